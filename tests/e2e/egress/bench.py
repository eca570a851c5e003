"""Times requests to a host: prints milliseconds for small ones, and megabytes a second for large ones, as JSON.

Arguments: the base URL, how many small requests, and the sizes of the downloads in MiB, separated by commas.
"""

import hashlib
import http.client
import json
import os
import ssl
import sys
import time
import urllib.parse

import requests

BASE, COUNT, SIZES = sys.argv[1], int(sys.argv[2]), [int(size) for size in sys.argv[3].split(",")]
UPLOAD = 60
HOST = urllib.parse.urlsplit(BASE).hostname
PROXY = urllib.parse.urlsplit(os.environ["https_proxy"]) if "https_proxy" in os.environ else None
CONTEXT = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE"))


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_ms(work, count):
    work()
    return sorted(timed(work) for _ in range(count))[count // 2] * 1000


def fresh():
    """One request over a connection of its own. The trusted certificates are read beforehand: there are many inside a bottle."""
    connection = http.client.HTTPSConnection(*(PROXY.hostname, PROXY.port) if PROXY else (HOST,), context=CONTEXT)
    if PROXY:
        connection.set_tunnel(HOST, 443)
    connection.request("GET", "/status/200")
    response = connection.getresponse()
    assert response.status == 200 and response.read(), response.status
    connection.close()


def download(session, megabytes):
    size = 0
    with session.get(f"{BASE}/big?mb={megabytes}", stream=True) as response:
        response.raise_for_status()
        for piece in response.iter_content(1 << 18):
            size += len(piece)
    assert size == megabytes << 20, size


def upload(session, body, expected):
    response = session.post(f"{BASE}/upload", data=body)
    response.raise_for_status()
    assert response.json()["sha256"] == expected


def turn(session, body):
    session.post(f"{BASE}/upload", data=body, headers={"Content-Type": "application/json"}).raise_for_status()


session = requests.Session()
large = bytes(UPLOAD << 20)
digest = hashlib.sha256(large).hexdigest()
conversation = json.dumps({"messages": [{"role": "user", "content": "word " * 200}] * 1000}).encode()
figures = {
    "small, kept connection": median_ms(lambda: session.get(f"{BASE}/status/200").raise_for_status(), COUNT),
    "small POST, kept connection": median_ms(lambda: session.post(f"{BASE}/status/200", data=b"x").raise_for_status(), COUNT),
    "small, new connection": median_ms(fresh, COUNT),
    "1 MB of JSON": median_ms(lambda: turn(session, conversation), 10),
    **{f"{size} MiB down": size * 1.048576 / timed(lambda: download(session, size)) for size in SIZES},
    f"{UPLOAD} MiB up": UPLOAD * 1.048576 / timed(lambda: upload(session, large, digest)),
}
print(json.dumps(figures))

"""Times requests to a host: prints milliseconds for a small one, and megabytes a second for a large one, as JSON."""

import hashlib
import json
import sys
import time

import requests

BASE, COUNT, MEGABYTES = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_ms(get):
    get()
    return sorted(timed(get) for _ in range(COUNT))[COUNT // 2] * 1000


def download(session):
    size, digest = 0, hashlib.sha256()
    with session.get(f"{BASE}/big?mb={MEGABYTES}", stream=True) as response:
        response.raise_for_status()
        for piece in response.iter_content(1 << 18):
            size += len(piece)
            digest.update(piece)
    assert size == MEGABYTES << 20, size


def upload(session, megabytes):
    body = bytes(megabytes << 20)
    response = session.post(f"{BASE}/upload", data=body)
    response.raise_for_status()
    assert response.json()["sha256"] == hashlib.sha256(body).hexdigest()


session = requests.Session()
kept = median_ms(lambda: session.get(f"{BASE}/echo").raise_for_status())
fresh = median_ms(lambda: requests.get(f"{BASE}/echo").raise_for_status())
down = MEGABYTES * 1.048576 / timed(lambda: download(session))
# Pipelock takes bodies of up to 64 MiB.
up = 50 * 1.048576 / timed(lambda: upload(session, 50))
print(json.dumps({"kept_ms": kept, "fresh_ms": fresh, "down_mb_s": down, "up_mb_s": up}))

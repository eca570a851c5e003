"""Sends many requests and prints how often each status, or kind of failure, was the answer, as JSON.

Arguments: `sequential`, `at-once` or `large`, the URL, and how many. `sequential` uses one kept connection, GET and POST in
turn. `at-once` opens a connection for each and sends nothing until all are open. `large` reads each answer to its end.
"""

import asyncio
import collections
import concurrent.futures
import json
import os
import ssl
import sys
import urllib.parse

import requests

MODE, URL, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
PROXY = urllib.parse.urlsplit(os.environ["https_proxy"])
SECONDS = 110


def sequential():
    session = requests.Session()
    for number in range(COUNT):
        yield (session.post(URL, data=b"x") if number % 2 else session.get(URL)).status_code


def large():
    def one(_):
        with requests.get(URL, stream=True, timeout=SECONDS) as response:
            size = sum(len(piece) for piece in response.iter_content(1 << 18))
        return response.status_code if size == int(response.headers["Content-Length"]) else "cut"

    with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
        yield from pool.map(one, range(COUNT))


async def at_once():
    url, context, connected = urllib.parse.urlsplit(URL), ssl.create_default_context(), asyncio.Barrier(COUNT)

    async def one():
        try:
            reader, writer = await asyncio.open_connection(PROXY.hostname, PROXY.port)
            writer.write(f"CONNECT {url.hostname}:443 HTTP/1.1\r\nHost: {url.hostname}:443\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(context, server_hostname=url.hostname, ssl_handshake_timeout=SECONDS)
            await connected.wait()
            writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.hostname}\r\n\r\n".encode())
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            writer.transport.abort()
            return int(status)
        except Exception as error:
            await connected.abort()
            return type(error).__name__

    async with asyncio.timeout(SECONDS):
        return await asyncio.gather(*(one() for _ in range(COUNT)))


answers = asyncio.run(at_once()) if MODE == "at-once" else {"sequential": sequential, "large": large}[MODE]()
print(json.dumps({str(answer): count for answer, count in collections.Counter(answers).items()}))

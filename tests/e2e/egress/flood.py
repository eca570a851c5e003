"""Sends many requests through the proxy at once, and leaves those that are not answered in time.

Arguments: the URL, how many, after how many seconds they are given up, and the size of a request's body in KiB. Without a
body it asks for answers of 1 MiB. Prints how often each status, or kind of failure, was the answer, as JSON.
"""

import asyncio
import collections
import contextlib
import json
import os
import ssl
import sys
import urllib.parse

URL, COUNT, SECONDS = urllib.parse.urlsplit(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
BODY = int(sys.argv[4]) << 10 if len(sys.argv) > 4 else 0
PROXY = urllib.parse.urlsplit(os.environ["http_proxy"])
PIECE = b"no secret in here "[:16] * 4096


async def send(writer):
    # A request that is refused is answered before all of it was sent.
    with contextlib.suppress(OSError):
        for _ in range(BODY // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()


async def one(ready):
    reader, writer = await asyncio.open_connection(PROXY.hostname, PROXY.port)
    sending = None
    try:
        await ready.wait()
        host, target = URL.netloc, URL.geturl()
        async with asyncio.timeout(SECONDS):
            if URL.scheme == "https":
                writer.write(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
                await reader.readuntil(b"\r\n\r\n")
                await writer.start_tls(ssl._create_unverified_context(), server_hostname=host)
                target = target.removeprefix(f"https://{host}")
            head = f"{'POST' if BODY else 'GET'} {target} HTTP/1.1\r\nHost: {host}\r\n"
            length = f"Content-Type: text/plain\r\nContent-Length: {BODY}\r\n" if BODY else ""
            writer.write(f"{head}{length}\r\n".encode())
            sending = asyncio.create_task(send(writer))
            status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
            if not BODY:
                await reader.readexactly(1 << 20)
            return status
    except Exception as error:
        return type(error).__name__
    finally:
        if sending:
            sending.cancel()
        writer.transport.abort()


async def main():
    ready = asyncio.Barrier(COUNT)
    return await asyncio.gather(*(one(ready) for _ in range(COUNT)))


print(json.dumps(collections.Counter(map(str, asyncio.run(main())))))

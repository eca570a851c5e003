"""Asks for many answers of 1 MiB over plain HTTP at once, and leaves those that do not come in time.

Arguments: the URL, how many, and after how many seconds they are given up. Prints how often each status, or kind of
failure, was the answer, as JSON.
"""

import asyncio
import collections
import json
import os
import sys
import urllib.parse

URL, COUNT, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
PROXY = urllib.parse.urlsplit(os.environ["http_proxy"])


async def one(ready):
    reader, writer = await asyncio.open_connection(PROXY.hostname, PROXY.port)
    try:
        await ready.wait()
        host = urllib.parse.urlsplit(URL).netloc
        async with asyncio.timeout(SECONDS):
            writer.write(f"GET {URL} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
            await reader.readexactly(1 << 20)
            return status
    except Exception as error:
        return type(error).__name__
    finally:
        writer.transport.abort()


async def main():
    ready = asyncio.Barrier(COUNT)
    return await asyncio.gather(*(one(ready) for _ in range(COUNT)))


print(json.dumps(collections.Counter(map(str, asyncio.run(main())))))

"""Talks to an echoing WebSocket by a WebSocket library; prints the result as JSON.

Arguments: the URL, and the value of an `X-Api-Key` header.

The library's other client reads and writes one TLS connection in two threads, which OpenSSL does not allow: now and then
its request never left.
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

URL, KEY = sys.argv[1], sys.argv[2]


async def talk():
    began = time.perf_counter()
    try:
        async with connect(URL, additional_headers={"X-Api-Key": KEY}, max_size=None) as socket:
            opened = time.perf_counter() - began
            trips = []
            for number in range(20):
                began = time.perf_counter()
                await socket.send(f"message {number}s")
                assert await asyncio.wait_for(socket.recv(), 10) == f"message {number}s"
                trips.append((time.perf_counter() - began) * 1000)
            large = bytes(range(256)) * 4096
            await socket.send(large)
            assert await asyncio.wait_for(socket.recv(), 30) == large
            return {"status": 101, "opened_ms": opened * 1000, "median_ms": sorted(trips)[10], "worst_ms": max(trips)}
    except InvalidStatus as refused:
        return {
            "status": refused.response.status_code,
            "refused_ms": (time.perf_counter() - began) * 1000,
            "rule": refused.response.headers.get("X-Egress-Refused"),
        }


print(json.dumps(asyncio.run(talk())))

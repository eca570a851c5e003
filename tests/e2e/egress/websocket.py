"""Talks to an echoing WebSocket by a WebSocket library; prints the result as JSON.

Arguments: the URL, and the value of an `X-Api-Key` header.
"""

import json
import sys
import time

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

URL, KEY = sys.argv[1], sys.argv[2]


def opened():
    """Opens it, at the second attempt if the first gets no answer in time, which was seen a few times and never explained."""
    try:
        return connect(URL, additional_headers={"X-Api-Key": KEY}, max_size=None)
    except TimeoutError:
        print("no answer within 10 s", file=sys.stderr)
        return connect(URL, additional_headers={"X-Api-Key": KEY}, max_size=None)


began = time.perf_counter()
try:
    with opened() as socket:
        took = time.perf_counter() - began
        trips = []
        for number in range(20):
            began = time.perf_counter()
            socket.send(f"message {number}s")
            assert socket.recv(10) == f"message {number}s"
            trips.append((time.perf_counter() - began) * 1000)
        large = bytes(range(256)) * 4096
        socket.send(large)
        assert socket.recv(30) == large
        result = {"status": 101, "opened_ms": took * 1000, "median_ms": sorted(trips)[10], "worst_ms": max(trips)}
except InvalidStatus as refused:
    result = {"status": refused.response.status_code, "refused_ms": (time.perf_counter() - began) * 1000}
    result["rule"] = refused.response.headers.get("X-Egress-Refused")
print(json.dumps(result))

"""Sends 1 MB of JSON ten times to a URL; prints the median in milliseconds."""

import json
import statistics
import sys
import time

import requests

BODY = json.dumps({"messages": [{"role": "user", "content": "def f(x):\n    return x + 1  # a line of code\n" * 20_000}]})
session, took = requests.Session(), []
for _ in range(10):
    began = time.perf_counter()
    session.post(sys.argv[1], data=BODY[:1_000_000], timeout=60).raise_for_status()
    took.append((time.perf_counter() - began) * 1000)
print(statistics.median(took))

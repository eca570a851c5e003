"""Reads an event stream: prints when each event was sent and when it was received, as a JSON list."""

import json
import sys
import time

import requests

events = []
with requests.get(sys.argv[1], stream=True, timeout=60) as response:
    response.raise_for_status()
    for line in response.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            events.append((json.loads(line[6:])["sent"], time.time()))
print(json.dumps(events))

"""Log of events, one JSON object a line, for the test to read with `docker exec … cat /data/events.jsonl`."""

import json
import os
import time

DATA = "/data"
PATH = f"{DATA}/events.jsonl"


def record(kind, **fields):
    """Appends one event. A line is one write to a file opened for appending, so that writers do not mix."""
    line = json.dumps({"time": round(time.time(), 4), "kind": kind, **fields}, ensure_ascii=True) + "\n"
    handle = os.open(PATH, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)

"""Asks for a URL again and again, each time anew, until it is answered with 200: when, and how often it was not."""

import json
import sys
import time

import requests

refused: dict[str, int] = {}
end = time.time() + 60
while time.time() < end:
    began = time.time()
    try:
        status = str(requests.get(sys.argv[1], timeout=10).status_code)
    except requests.exceptions.ProxyError as error:
        status = "403" if "403" in str(error) else repr(error)
    if status == "200":
        print(json.dumps({"began": began, "answered": time.time(), "refused": refused}))
        break
    refused[status] = refused.get(status, 0) + 1
    time.sleep(0.01)

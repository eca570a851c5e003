"""Sends requests as they are read, [method, URL, headers, body], and prints each one's status and answer."""

import json
import sys

import requests

for method, url, headers, body in json.load(sys.stdin):
    try:
        answer = requests.request(method, url, headers=headers, data=body.encode(), timeout=15)
        print(json.dumps([answer.status_code, answer.text[:4000]]))
    except requests.exceptions.RequestException as error:
        print(json.dumps([0, repr(error)]))

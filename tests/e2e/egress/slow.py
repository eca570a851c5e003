"""Keeps connections to a proxy busy with requests that never end, and asks for something else meanwhile.

Arguments: the proxy as `HOST:PORT`, how many connections, for how many seconds, and the URL that is asked for meanwhile.
Of the connections a third sends one byte of its request line a second, a third one byte of a header, and a third is
silent. Then requests with a header and with a target of 1 MiB are sent. Prints how many connections were open at once, the
slowest of the other requests in seconds and how many failed, and how the large ones were answered, as JSON.
"""

import json
import select
import socket
import subprocess
import sys
import time

PLACE, COUNT, SECONDS, URL = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
HOST, PORT = PLACE.rsplit(":", 1)
STARTS = (b"CONNECT ", b"CONNECT outside.test:443 HTTP/1.1\r\nHost: outside.test:443\r\nX-Slow: ", b"")


def ask():
    began = time.monotonic()
    code = subprocess.run(["curl", "-fsS", "-m", "20", "-o", "/dev/null", URL], check=False).returncode
    return time.monotonic() - began, code


def large(head):
    with socket.create_connection((HOST, int(PORT)), timeout=20) as connection:
        try:
            connection.sendall(head)
            return connection.recv(64).split(b"\r\n")[0].decode() or "closed"
        except OSError as error:
            return type(error).__name__


slow, most, times, failed = {}, 0, [], 0
for number in range(COUNT):
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex((HOST, int(PORT)))
    slow[connection] = STARTS[number % 3]
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    poll = select.poll()
    for connection in slow:
        poll.register(connection, select.POLLOUT)
    ready = {number for number, event in poll.poll(0) if event == select.POLLOUT}
    for connection, start in list(slow.items()):
        if connection.fileno() not in ready:
            continue
        try:
            if start:
                connection.send(start if len(start) > 20 else start[:1])
                slow[connection] = b"x"
        except OSError:
            del slow[connection]
            connection.close()
    most = max(most, len(ready))
    took, code = ask()
    times.append(took)
    failed += code != 0
    time.sleep(max(0.0, 1.0 - took))
for connection in slow:
    connection.close()
answers = {
    "header": large(b"GET http://outside.test/ HTTP/1.1\r\nHost: outside.test\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n"),
    "target": large(b"GET http://outside.test/" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: outside.test\r\n\r\n"),
}
print(json.dumps({"open": most, "slowest": max(times), "failed": failed, "answers": answers}))

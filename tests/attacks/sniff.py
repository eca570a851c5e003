"""Records every packet of every interface that holds a nonce: the interface, the kind of packet, and the nonce, a line each.

Argument: the beginning of every nonce of the run.
"""

import re
import socket
import sys

PATTERN = re.compile(re.escape(sys.argv[1].encode()) + rb"[0-9a-f]{8}", re.IGNORECASE)
KINDS = {0: "to us", 1: "broadcast", 2: "multicast", 3: "to others", 4: "from us"}

taps = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
taps.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
print("ready", flush=True)
seen = set()
for _ in range(100_000_000):
    data, (interface, protocol, kind, _, _) = taps.recvfrom(65536)
    for nonce in PATTERN.findall(data):
        line = (interface, KINDS.get(kind, str(kind)), f"{protocol:04x}", nonce.decode().lower())
        if line not in seen:
            seen.add(line)
            print(*line, sep="\t", flush=True)

"""Tries to connect to every port of every host that is named, and prints which answered."""

import json
import select
import socket
import sys

BATCH = 500


def open_ports(host: str) -> list[int]:
    address = socket.gethostbyname(host)
    found = []
    for first in range(1, 65536, BATCH):
        waiting = {}
        poll = select.epoll()
        for port in range(first, min(first + BATCH, 65536)):
            knock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            error = knock.connect_ex((address, port))
            if error == 115:
                poll.register(knock, select.EPOLLOUT)
                waiting[knock.fileno()] = (knock, port)
            else:
                found += [port] if error == 0 else []
                knock.close()
        while waiting:
            ready = poll.poll(2)
            if not ready:
                # Where nothing listens, the outlet of pipelock lets no answer out either.
                for knock, _ in waiting.values():
                    knock.close()
                break
            for fileno, _ in ready:
                knock, port = waiting.pop(fileno)
                poll.unregister(fileno)
                found += [port] if knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 else []
                knock.close()
        poll.close()
    return found


print(json.dumps({host: open_ports(host) for host in sys.argv[1:]}))

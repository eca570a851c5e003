"""Listeners that only note who came: raw TCP, raw UDP, and a name server with one answer."""

import socket
import struct
import threading

import events


def tcp(port):
    def one(connection, peer):
        with connection:
            connection.settimeout(2)
            try:
                data = connection.recv(4096)
                connection.sendall(b"outside\n")
            except OSError:
                data = b""
        events.record("tcp", port=port, peer=peer[0], data=data.decode("latin-1"))

    with socket.create_server(("0.0.0.0", port)) as server:
        while True:
            threading.Thread(target=one, args=server.accept(), daemon=True).start()


def udp(port):
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", port))
        while True:
            data, peer = server.recvfrom(65536)
            events.record("udp", port=port, peer=peer[0], data=data.decode("latin-1"))
            server.sendto(b"outside\n", peer)


A = 1


def names(port, answer):
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", port))
        while True:
            query, peer = server.recvfrom(4096)
            try:
                name, kind, question = parse(query)
            except (IndexError, struct.error):
                continue
            events.record("dns", name=name, type=kind, peer=peer[0])
            answers = []
            if kind == A:
                # A pointer to the question's name, class IN, ten seconds to live.
                answers = [struct.pack(">HHHIH", 0xC00C, A, 1, 10, 4) + socket.inet_aton(answer)]
            header = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(answers), 0, 0)
            server.sendto(header + question + b"".join(answers), peer)


def parse(query):
    """The first question: its name, its type, and its bytes."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    kind, _class = struct.unpack_from(">HH", query, at + 1)
    return ".".join(labels), kind, query[12 : at + 5]

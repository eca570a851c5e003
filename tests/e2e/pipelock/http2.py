"""Asks for as many answers at once as a proxy lets through, over HTTP/2 where that is offered, and reads none of them.

Arguments: the proxy as `HOST:PORT`, the URL, connections, streams on each, and after how many seconds all are given up.
Prints how many connections got which protocol, as JSON.
"""

import collections
import json
import socket
import ssl
import struct
import sys
import time
import urllib.parse

PROXY, URL, CONNECTIONS, STREAMS, SECONDS = sys.argv[1], urllib.parse.urlsplit(sys.argv[2]), *map(int, sys.argv[3:6])
TARGET = f"{URL.path}?{URL.query}".encode()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def text(value):
    assert len(value) < 127
    return bytes((len(value),)) + value


def requests(protocol):
    """RFC 9113 and 7541: settings with the widest window, then one GET in each stream."""
    if protocol != "h2":
        return b"GET " + TARGET + b" HTTP/1.1\r\nHost: " + URL.netloc.encode() + b"\r\n\r\n"
    head = b"\x82\x87" + b"\x04" + text(TARGET) + b"\x01" + text(URL.netloc.encode())
    settings = frame(4, 0, 0, struct.pack(">HI", 4, (1 << 31) - 1))
    window = frame(8, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65535))
    streams = (frame(1, 5, 2 * number + 1, head) for number in range(STREAMS))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + window + b"".join(streams)


def connect():
    host, port = PROXY.rsplit(":", 1)
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        raw = socket.create_connection((host, int(port)), timeout=10)
        raw.sendall(f"CONNECT {URL.hostname}:443 HTTP/1.1\r\nHost: {URL.hostname}:443\r\n\r\n".encode())
        if b" 200 " not in raw.recv(4096):
            return None, "refused"
        tls = context.wrap_socket(raw, server_hostname=URL.hostname)
        protocol = tls.selected_alpn_protocol() or "http/1.1"
        tls.sendall(requests(protocol))
        return tls, protocol
    except OSError as error:
        return None, type(error).__name__


end = time.monotonic() + SECONDS
connected = [connect() for _ in range(CONNECTIONS) if time.monotonic() < end]
time.sleep(max(0.0, end - time.monotonic()))
print(json.dumps(collections.Counter(protocol for _, protocol in connected)))

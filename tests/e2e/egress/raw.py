"""Sends requests byte by byte, as no client would: prints the head of each answer, as a JSON list."""

import json
import os
import socket
import ssl
import sys
import urllib.parse

PROXY = urllib.parse.urlsplit(os.environ["https_proxy"])


def answer(case):
    try:
        with socket.create_connection((PROXY.hostname, PROXY.port), 20) as connection:
            if target := case["connect"]:
                connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                if " 200 " not in (head := read_head(connection)).split("\r\n")[0]:
                    return head
                context = ssl.create_default_context()
                # Whom the certificate names is not what is looked at here.
                context.check_hostname = False
                connection = context.wrap_socket(connection, server_hostname=case["sni"])
            connection.sendall(case["send"].encode("latin-1"))
            return read_head(connection)
    except OSError as error:
        return type(error).__name__


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data and (piece := connection.recv(65536)):
        data += piece
    return data.decode("latin-1")


print(json.dumps([answer(case) for case in json.loads(sys.argv[1])]))

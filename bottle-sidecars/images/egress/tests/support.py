"""The proxy under test as a process of its own, and a double of the proxy and the hosts beyond it."""

import contextlib
import datetime
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import egress

LIMIT = 10.0  # seconds that any single wait may take


class Authority:
    """A certificate authority like the ones that a bottle has."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, key=None) -> bytes:
        return (key or self.key).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def server_context(self, host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(self.key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
            pem.flush()
            context.load_cert_chain(pem.name)
        return context


def _key_usage(**given: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return x509.KeyUsage(**dict.fromkeys(names, False), encipher_only=False, decipher_only=False, **given)


# What pipelock 2.3.0 answers to a CONNECT that it refuses, by the host that is asked for.
REFUSALS = {
    "blocked.test": (403, "CONNECT blocked: domain not in allowlist: blocked.test"),
    "nameless.test": (
        403,
        "CONNECT blocked: SSRF check failed: DNS resolution error for nameless.test: lookup nameless.test on "
        "127.0.0.11:53: no such host",
    ),
    "inside.test": (403, "CONNECT blocked: SSRF blocked: inside.test resolves to internal IP 10.1.2.3"),
    "dead.test": (502, "tunnel dial failed"),
    "limited.test": (429, "rate limit exceeded"),
    "odd.test": (403, "secret"),
}


class Outer:
    """The next proxy and every host behind it. It keeps each head that reached it, and answers by the path.

    It terminates TLS for `content.test` itself, as pipelock does where it inspects content, and closes that connection
    after each answer. The other hosts have certificates of `origins`.
    """

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.origins = Authority("origins")
        self.untrusted = Authority("untrusted")
        self.connects: list[str] = []
        self.heads: list[bytes] = []
        self.received = 0
        self.connecting = self.most_connecting = 0
        self.holding = self.most_holding = 0
        self.hold_seconds = 0.1
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def forget(self) -> None:
        self.connects.clear()
        self.heads.clear()
        self.received = 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, ValueError):
            host = ""
            connection = stack.enter_context(accepted)
            connection.settimeout(LIMIT * 6)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peek = connection.recv(8, socket.MSG_PEEK)
            if peek.startswith(b"CONNECT "):
                head = _read_head(connection.makefile("rb", buffering=0))
                target = head.split()[1].decode()
                self.connects.append(target)
                host = target.rpartition(":")[0]
                if host in REFUSALS:
                    status, body = REFUSALS[host]
                    head = f"HTTP/1.1 {status} Status\r\nContent-Length: {len(body)}\r\n\r\n"
                    connection.sendall(head.encode())
                    time.sleep(0.02)  # in a packet of its own
                    connection.sendall(body.encode())
                    return
                if host == "slow.test":
                    with self._lock:
                        self.connecting += 1
                        self.most_connecting = max(self.most_connecting, self.connecting)
                    time.sleep(0.05)
                    with self._lock:
                        self.connecting -= 1
                if host == "mute.test":
                    connection.recv(1)
                    return
                if host == "gone.test":
                    return
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                authority = {"untrusted.test": self.untrusted, "content.test": self.authority}.get(host, self.origins)
                if host not in self._contexts:
                    self._contexts[host] = authority.server_context(host)
                connection = stack.enter_context(self._contexts[host].wrap_socket(connection, server_side=True))
            reader = stack.enter_context(connection.makefile("rb"))
            number = 0
            while self._exchange(reader, connection, number):
                number += 1
                if host == "content.test":
                    return

    def _exchange(self, reader, connection, number: int) -> bool:
        """Answers one request. `number` is how many this connection has had before."""
        head = _read_head(reader)
        if not head:
            return False
        self.heads.append(head)
        if b"/dying" in head and number:
            return False
        lines = head.decode("latin-1").split("\r\n")
        _, target, _ = lines[0].split(" ")
        if target.startswith("http://") and (host := target.split("/")[2]) in REFUSALS:
            # As pipelock answers over plain HTTP.
            status, text = REFUSALS[host]
            text = text.replace("CONNECT blocked", "blocked").replace("tunnel dial", "forward proxy fetch")
            text = "blocked: rate limit exceeded" if status == 429 else text
            kind = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff"
            hint = f"X-Pipelock-Hint: add 10.1.2.3\r\nContent-Length: {len(text) + 1}"
            connection.sendall(f"HTTP/1.1 {status} Status\r\n{kind}\r\n{hint}\r\n\r\n{text}\n".encode())
            return True
        path = target.partition("?")[0]
        path = path if path.startswith("/") else "/" + path.split("/", 3)[3]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}

        if path.endswith("/early"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            return False
        body = 0
        if "content-length" in headers:
            left = int(headers["content-length"])
            while left and (chunk := reader.read1(min(left, 65536))):
                left -= len(chunk)
                body += len(chunk)
                self.received += len(chunk)
        elif "transfer-encoding" in headers:
            while size := int(reader.readline(), 16):
                body += size
                self.received += size
                reader.read(size + 2)
            reader.readline()

        if "/sse" in path:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for number in range(5):
                event = f"data: {number} {time.monotonic()}\n\n".encode()
                connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
                time.sleep(0.2)
            connection.sendall(b"0\r\n\r\n")
        elif path.endswith("/held"):
            # As pipelock scans what it holds: to the end, whether or not somebody waits for it.
            with self._lock:
                self.holding += 1
                self.most_holding = max(self.most_holding, self.holding)
            time.sleep(self.hold_seconds)
            with self._lock:
                self.holding -= 1
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif "/big/" in path:
            size = int(path.rpartition("/")[2])
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            block = bytes(65536)
            while size:
                size -= connection.send(block[: min(size, len(block))])
        elif path.endswith("/trailers"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
        elif path.endswith("/echo"):
            echo = headers["x-api-key"].encode()
            head = b"HTTP/1.1 200 %s\r\nX-Echo: %s\r\nX-%s: 1\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head % (echo, echo, echo))
        elif path.endswith("/torn"):
            key = headers["x-api-key"].encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in (key[:5], key[5:], b"!"):
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                time.sleep(0.05)
            connection.sendall(b"0\r\n\r\n")
        elif path.endswith("/interim"):
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r")
            time.sleep(0.05)
            connection.sendall(b"\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif path.endswith("/switch"):
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
            return False
        elif path.endswith("/ws"):
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %s\r\n\r\n" % headers.get("x-api-key", "none").encode()
            )
            while data := connection.recv(65536):
                connection.sendall(data)
            return False
        elif path.endswith("/endless-head"):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:
                connection.sendall(b"X: " + b"a" * 8192 + b"\r\n")
        elif path.endswith("/endless-chunk"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1")
            while True:
                connection.sendall(b";a" * 4096)
        elif path.endswith("/idle"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return False
        elif path.endswith("/garbage"):
            connection.sendall(b"secret garbage\r\n\r\n")
            return False
        elif path.endswith("/cut"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
            return False
        else:
            answer = json.dumps({"head": head.decode("latin-1"), "body": body}).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        return True


def _read_head(reader) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return b""
        head += line
    return head


class Egress:
    """The proxy, started as its entry point starts it. Close it to have it ended and its lines checked for secrets."""

    def __init__(
        self,
        outer_port: int,
        authority: Authority,
        routes: str,
        tokens: dict[str, str],
        origins: Authority | None = None,
        constants: dict[str, float] | None = None,
        **extra: str,
    ) -> None:
        """`constants`, such as `connections.HANDSHAKE_SECONDS`, replace the real ones, which take too long here."""
        self.authority = authority
        self._constants = constants or {}
        self.tokens = tokens
        self._directory = tempfile.TemporaryDirectory()
        self.directory = Path(self._directory.name)
        self.inner = Authority("egress")
        self.credentials = self.directory / "credentials"
        self.credentials.mkdir(mode=0o700)
        for slot, token in tokens.items():
            (self.credentials / slot).write_text(token)
        self.routes = self.directory / "routes.yaml"
        self.routes.write_text(routes)
        (self.directory / "ca.pem").write_bytes(self.inner.key_pem() + self.inner.certificate_pem())
        (self.directory / "inner.pem").write_bytes(self.inner.certificate_pem())
        (self.directory / "outer.pem").write_bytes(authority.certificate_pem())
        if origins:
            (self.directory / "origins.pem").write_bytes(origins.certificate_pem())
            extra = {"EGRESS_EXTRA_CA": str(self.directory / "origins.pem"), **extra}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.lines_file = self.directory / "lines"
        self.environment = {
            "HOME": "/tmp",
            "PATH": os.environ["PATH"],
            "EGRESS_PORT": str(self.port),
            "EGRESS_UPSTREAM_PROXY": f"http://127.0.0.1:{outer_port}",
            "EGRESS_UPSTREAM_CA": str(self.directory / "outer.pem"),
            "EGRESS_ROUTES": str(self.routes),
            "EGRESS_CA": str(self.directory / "ca.pem"),
            "EGRESS_CREDENTIALS": str(self.credentials),
            **extra,
        }
        self.process: subprocess.Popen | None = None

    def start(self) -> "Egress":
        began = time.monotonic()
        self.process = self._spawn()
        while time.monotonic() < began + LIMIT:
            if self.process.poll() is not None:
                raise AssertionError(f"the proxy ended: {self.lines()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                self.start_seconds = time.monotonic() - began
                return self
            time.sleep(0.02)
        raise AssertionError("the proxy did not start")

    def run_to_end(self) -> int:
        """Start it, and wait for it to refuse to."""
        self.process = self._spawn()
        return self.process.wait(LIMIT)

    def _spawn(self) -> subprocess.Popen:
        with open(self.lines_file, "ab") as out:
            # The test's own path, and constants, are the only things that differ from the entry point.
            changes = "".join(f"{name} = {value}; " for name, value in self._constants.items())
            change = f"from egress import lean, addon, connections; {changes}" if changes else ""
            code = (
                f"import runpy, sys; sys.path.insert(0, sys.argv[1]); {change}"
                "runpy.run_module('egress', run_name='__main__')"
            )
            source = str(Path(egress.__file__).parents[1])
            return subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", code, source],
                env=self.environment,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.lines_file.read_text().splitlines()]

    def requests(self) -> list[dict]:
        return [line for line in self.lines() if line["event"] == "request"]

    def reload(self) -> dict:
        """Send the signal and give what the status file says then."""
        before = len([line for line in self.lines() if line["event"] == "reload"])
        self.process.send_signal(signal.SIGHUP)
        until(lambda: len([line for line in self.lines() if line["event"] == "reload"]) > before)
        return json.loads(Path("/tmp/egress-status.json").read_text())

    def resident_kib(self, field: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(field + ":")).split()[1])

    def tunnel(self, target: str, server_name: str | None = None, alpn: list[str] | None = None) -> ssl.SSLSocket:
        """An agent's connection: CONNECT, then TLS that trusts this proxy's authority only."""
        plain = self.dial()
        plain.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = plain.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200 "):
            plain.close()
            raise ConnectionRefusedError(answer.decode())
        context = ssl.create_default_context(cadata=self.inner.certificate_pem().decode())
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if alpn:
            context.set_alpn_protocols(alpn)
        return context.wrap_socket(plain, server_hostname=server_name or target.rpartition(":")[0])

    def dial(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), LIMIT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(LIMIT)
        text = self.lines_file.read_text()
        self._directory.cleanup()
        for token in self.tokens.values():
            assert not token or token not in text, "a token was logged"


def until(check, seconds: float = LIMIT):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


class Answer:
    """One HTTP/1 answer read from a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        raw = b""
        while b"\r\n\r\n" not in raw:
            chunk = connection.recv(65536)
            if not chunk:
                raise EOFError(raw)
            raw += chunk
        self.head, _, self._rest = raw.partition(b"\r\n\r\n")
        self.status = int(self.head.split()[1])

    def body(self) -> bytes:
        length = next(
            (int(line[15:]) for line in self.head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None
        )
        body = self._rest
        while length is None or len(body) < length:
            chunk = self._connection.recv(65536)
            if not chunk:
                break
            body += chunk
        return body

    def json(self) -> dict:
        return json.loads(self.body())

    def rule(self) -> str:
        error = self.json()["error"]
        assert error["type"] == "egress_refused" and error["message"].startswith("egress: ")
        return error["rule"]


def ask(connection: socket.socket, text: str | bytes) -> Answer:
    connection.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
    return Answer(connection)

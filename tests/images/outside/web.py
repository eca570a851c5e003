"""HTTP/1.1, plain and over TLS. Each request is recorded when its body has been read.

    /                 ok
    /echo             the request as recorded, as JSON
    /sse?n=&ms=       n server-sent events, ms apart, each carrying the time at which it was sent, and perhaps text= or
                      size= characters
    /big?mb=          that many megabytes
    /upload           the length and SHA-256 of what was sent, never held in memory
    /gzip             a compressed answer
    /slow?ms=         ok, after a while
    /status/NNN       that status
    /redirect?to=     302
    /reflect?as=      the credential of the request, in the encoding that is asked for; also below a repository
    /expiring?ms=     the credential of the request, and 200 if it is `expiring-<time>-<digest>` of a time (ms since 1970) that
                      is at most so long ago, otherwise 401
    /ws               a WebSocket that echoes
    /v1/…             the model APIs (messages.py, responses.py), both with the same conversation (task.py)
    /<name>.git/…     git (git_host.py), also under /git/
"""

import base64
import gzip
import hashlib
import html
import http.server
import json
import re
import struct
import sys
import tempfile
import time
import urllib.parse

import events
import git_host
import messages
import responses

API_KEY = ""
# Known to the test that issues tokens for `/expiring`.
EXPIRING = "the issuer of the tests"
# What of a body is kept in the event, to look for text in it.
KEPT = 64 * 1024
# The opcodes of a WebSocket's frames.
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def serve(port, context=None):
    server = Server(("0.0.0.0", port), Handler)
    server.context = context
    server.serve_forever()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def finish_request(self, request, client_address):
        # The handshake belongs to the connection's own thread: one that stalls must not hold up the others.
        if not self.context:
            return super().finish_request(request, client_address)
        with self.context.wrap_socket(request, server_side=True) as encrypted:
            return super().finish_request(encrypted, client_address)

    def handle_error(self, request, client_address):
        events.record("error", peer=client_address[0], error=repr(sys.exc_info()[1]), tls=bool(self.context))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "outside"
    # A client may leave a connection open for as long as a test takes.
    timeout = 120
    # An answer is two writes: without this the second waits 40 ms for the first one's acknowledgement.
    disable_nagle_algorithm = True

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        self.query = {name: values[-1] for name, values in urllib.parse.parse_qs(url.query).items()}
        with self.read_body() as body:
            self.record(body)
            self.answer(url, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def read_body(self):
        """The body in a file, with its length, hash and beginning noted."""
        body, digest, length, start = tempfile.TemporaryFile(), hashlib.sha256(), 0, b""
        for piece in self.pieces():
            digest.update(piece)
            length += len(piece)
            start += piece[: KEPT - len(start)]
            body.write(piece)
        body.flush()
        body.seek(0)
        self.body = {"length": length, "sha256": digest.hexdigest(), "start": start.decode("utf-8", "replace")}
        return body

    def pieces(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self.exactly(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            yield from self.exactly(int(self.headers.get("Content-Length", 0)))

    def exactly(self, size):
        while size:
            piece = self.rfile.read(min(size, 1 << 16))
            if not piece:
                raise ConnectionError("the body was cut short")
            size -= len(piece)
            yield piece

    def record(self, body):
        self.event = {
            "tls": self.server.context is not None,
            "sni": getattr(self.connection, "server_name", None),
            "peer": self.client_address[0],
            "method": self.command,
            "target": self.path,
            "host": self.headers.get("Host"),
            "headers": self.headers.items(),
            "body": self.body,
        }
        events.record("http", **self.event)

    def answer(self, url, body):
        path, query = url.path, self.query
        if path.endswith("/reflect"):
            self.reflect(query.get("as", "plain"), int(query.get("shift", 0)))
        elif found := re.fullmatch(r"(?:/git)?(/[\w.-]+\.git/.*)", path):
            self.git(found[1], url.query, body)
        elif path.startswith("/v1/"):
            self.api(path, body)
        elif path == "/echo":
            self.json(self.event)
        elif path == "/upload":
            self.json({name: self.body[name] for name in ("length", "sha256")})
        elif path == "/sse":
            more = query.get("text", "") + "x " * (int(query.get("size", 0)) // 2)
            self.events(self.ticks(int(query.get("n", 5)), int(query.get("ms", 200)), more))
        elif path == "/big":
            self.big(int(query.get("mb", 1)))
        elif path == "/gzip":
            self.reply(200, gzip.compress(b"outside " * 1000), "text/plain", [("Content-Encoding", "gzip")])
        elif path == "/slow":
            time.sleep(int(query.get("ms", 1000)) / 1000)
            self.reply(200, b"ok\n")
        elif path == "/expiring":
            self.expiring(int(query.get("ms", 1000)))
        elif path == "/redirect":
            self.reply(302, b"", headers=[("Location", query.get("to", "/"))])
        elif path == "/ws" and self.headers.get("Upgrade", "").lower() == "websocket":
            self.websocket()
        elif found := re.fullmatch(r"/status/([2-5]\d\d)", path):
            self.reply(int(found[1]), b"" if found[1] in ("204", "304") else f"{found[1]}\n".encode())
        elif path == "/":
            self.reply(200, b"ok\n")
        else:
            self.reply(404, b"not found\n")

    def reply(self, status, content, kind="text/plain", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value, status=200):
        self.reply(status, json.dumps(value).encode(), "application/json")

    def events(self, stream):
        """Server-sent events, each in a chunk of its own."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for name, data in stream:
            text = f"event: {name}\ndata: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def ticks(count, pause, more):
        for number in range(count):
            if number:
                time.sleep(pause / 1000)
            yield "tick", json.dumps({"n": number, "sent": time.time()} | ({"more": more} if more else {}))

    def big(self, megabytes):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(megabytes << 20))
        self.end_headers()
        piece = bytes(range(256)) * 256
        for _ in range(megabytes << 4):
            self.wfile.write(piece)

    def reflect(self, form, shift):
        """Repeats the credential, as a host that is tricked into it might."""
        secret = self.headers.get("X-Api-Key") or self.headers.get("Authorization", "").split(" ")[-1]
        if form == "decoded":
            secret = base64.b64decode(self.headers.get("Authorization", "").split(" ")[-1] + "===").decode("latin-1")
        padded = b"xx"[:shift] + secret.encode()
        forms = {
            "upper": secret.upper(), "lower": secret.lower(), "swap": secret.swapcase(), "hex": secret.encode().hex(),
            "HEX": secret.encode().hex().upper(), "base64": base64.b64encode(padded).decode(),
            "base64url": base64.urlsafe_b64encode(padded).decode(), "percent": urllib.parse.quote(secret, safe=""),
            "percent-all": "".join(f"%{ord(letter):02X}" for letter in secret), "json": secret.replace("/", "\\/"),
            "json-all": "".join(f"\\u{ord(letter):04x}" for letter in secret), "html": html.escape(secret).replace("/", "&#x2F;"),
            "html-all": "".join(f"&#{ord(letter)};" for letter in secret), "twice": secret + secret,
        }
        shown = forms.get(form, secret)
        in_head = {"header": "X-Reflected", "cookie": "Set-Cookie", "location": "Location"}.get(form)
        if form in ("bytes", "trailer"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for letter in shown if form == "bytes" else "x":
                self.wfile.write(b"1;x=%s\r\n%s\r\n" % (shown.encode() if form == "trailer" else b"y", letter.encode()))
                self.wfile.flush()
                time.sleep(0.005)
            self.wfile.write(b"0\r\nX-Reflected: %s\r\n\r\n" % shown.encode() if form == "trailer" else b"0\r\n\r\n")
            return
        content, headers = b"" if in_head or form == "reason" else f"value: {shown}\n".encode(), []
        if in_head:
            headers.append((in_head, f"a={shown}" if form == "cookie" else f"https://{shown}/" if form == "location" else shown))
        if "gzip" in self.headers.get("Accept-Encoding", "") or "gzip" in self.headers.get("TE", ""):
            content, headers = gzip.compress(content), [*headers, ("Content-Encoding", "gzip")]
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            content = content[int(found[1]) : int(found[2]) + 1]
        status = {"error": 500, "location": 302}.get(form, 206 if "Range" in self.headers else 200)
        if form == "reason":
            self.send_response(status, shown)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.reply(status, content, headers=headers)

    def expiring(self, lifetime):
        shown = self.headers.get("Authorization", "")
        found = re.fullmatch(r"Bearer expiring-(\d+)-([0-9a-f]{64})", shown)
        genuine = found and found[2] == hashlib.sha256(f"{EXPIRING} {found[1]}".encode()).hexdigest()
        fresh = genuine and 0 <= time.time() * 1000 - int(found[1]) < lifetime
        self.json({"shown": shown}, 200 if fresh else 401)

    def api(self, path, body):
        shown = (self.headers.get("X-Api-Key"), self.headers.get("Authorization", "").removeprefix("Bearer "))
        error = messages.error if self.headers.get("Anthropic-Version") else responses.error
        if API_KEY and API_KEY not in shown:
            self.json(error("authentication_error", "invalid API key"), 401)
        elif path == "/v1/models":
            self.json(messages.models())
        elif path == "/v1/messages/count_tokens":
            self.json({"input_tokens": 10})
        elif path == "/v1/messages" and self.command == "POST":
            request = json.load(body)
            if request.get("stream"):
                self.events(messages.stream(request))
            else:
                self.json(messages.whole(request))
        elif path == "/v1/responses" and self.command == "POST":
            request = json.load(body)
            self.events(responses.stream(request, request["input"]))
        elif path == "/v1/responses" and self.headers.get("Upgrade", "").lower() == "websocket":
            self.conversation()
        else:
            self.json(error("not_found_error", path), 404)

    def git(self, path, query, body):
        if not git_host.allowed(self.headers.get("Authorization")):
            self.reply(401, b"", headers=[("WWW-Authenticate", 'Basic realm="outside"')])
            return
        status, headers, content = git_host.backend(self.command, path, query, self.headers, self.client_address[0], body)
        kind = next((value for name, value in headers if name == "Content-Type"), "text/plain")
        self.reply(status, content, kind, [pair for pair in headers if pair[0] not in ("Content-Type", "Content-Length")])

    def websocket(self):
        """Echoes text and binary frames until the other side closes."""
        for opcode, data in self.frames():
            events.record("websocket", opcode=opcode, data=data.decode("utf-8", "replace"))
            self.send_frame(opcode, data)

    def conversation(self):
        """Answers each request of a model's client with a text frame for every event."""
        conversations = responses.Conversations()
        for opcode, data in self.frames():
            events.record("websocket", opcode=opcode, data=data[:KEPT].decode("utf-8", "replace"))
            if opcode == CLOSE:
                self.send_frame(CLOSE, data)
            else:
                for answer in conversations.answer(json.loads(data)):
                    self.send_frame(TEXT, answer.encode())

    def frames(self):
        """Accepts the upgrade; then each message, with its opcode, until one that closes. Pings are answered here."""
        key = self.headers.get("Sec-WebSocket-Key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        kind, message = TEXT, b""
        while len(head := self.rfile.read(2)) == 2:
            final, opcode, size = head[0] & 0x80, head[0] & 0x0F, head[1] & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self.rfile.read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.rfile.read(8))
            mask = self.rfile.read(4)
            data = unmasked(self.rfile.read(size), mask)
            if opcode == PING:
                self.send_frame(PONG, data)
            elif opcode == CLOSE:
                yield CLOSE, data
                return
            elif opcode != PONG:
                kind, message = (opcode or kind), message + data
                if final:
                    yield kind, message
                    message = b""

    def send_frame(self, opcode, data):
        size = len(data)
        length = bytes([size]) if size < 126 else struct.pack(">BH", 126, size) if size < 1 << 16 else struct.pack(">BQ", 127, size)
        self.wfile.write(bytes([0x80 | opcode]) + length + data)

    def log_message(self, *_arguments):
        """Events say more than the usual line on standard error."""


def unmasked(data, mask):
    """A client's frame in the clear. One large number is faster than a loop over the bytes."""
    key = int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)])
    return (int.from_bytes(data) ^ key).to_bytes(len(data))

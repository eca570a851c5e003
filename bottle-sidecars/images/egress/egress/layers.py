"""The protocol stack of a connection: mitmproxy's layers, made stricter.

The order of the protocols is fixed: the agent's connection carries HTTP, a CONNECT carries TLS, and TLS carries
HTTP/1.1. Anything else is refused, including raw TCP.
"""

import re
import time

import h11
from h11._readers import ChunkedReader
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.net.http.http1 import read_response_head
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer, http, modes
from mitmproxy.proxy.layers.http import _http1, _upstream_proxy
from mitmproxy.proxy.layers.tls import starts_like_tls_record
from mitmproxy.proxy.tunnel import TunnelLayer

from . import answers, audit
from .connections import AdmitHook, handler_of
from .guard import Guard
from .mask import FrameMask, Spellings
from .policy import Refusal

# Maximum length in bytes of a message's head, a chunk's header, the trailers, and the bytes that a client sends before
# its previous request is answered.
HEAD_LIMIT = 128 * 1024
# Maximum length in bytes: three times the largest real one, which has post-quantum key shares. TLS allows 16 MiB.
CLIENT_HELLO_LIMIT = 16 * 1024

# Maximum time that a kept connection may have been idle, for a request that cannot be repeated. Servers close idle
# connections after five seconds or more. A request on a connection that is being closed would be lost.
FRESH_SECONDS = 3.0
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS"})

_REQUEST_LINE = re.compile(rb"[A-Z]{3,}(?: /|\Z)")
_NOT_TLS = Refusal(403, "not-tls", "a tunnel must carry TLS; use https or wss, or send plain http without CONNECT")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r]")
_CLOSED_UNANSWERED = "server closed connection"

# Key in a flow's metadata: true if the agent's side broke the exchange.
CLIENT_FAILED = "egress-client-failed"
# Key in a flow's metadata: the agent's own header, if the answer may be compressed unless pipelock inspects it.
ACCEPT_ENCODING = "egress-accept-encoding"
# Key in a flow's metadata: the search for credentials in the body of a request.
GUARD = "egress-guard"
# Key in a flow's metadata: record, credential and guard of an allowed WebSocket handshake.
WEBSOCKET = "egress-websocket"


class NextLayer:
    """Add-on that chooses a connection's next layer."""

    def next_layer(self, asked: layer.NextLayer) -> None:
        context = asked.context
        match context.layers:
            case [modes.HttpUpstreamProxy()]:
                if starts_like_tls_record(asked.data_client()):
                    asked.layer = End(context, "not-http")
                else:
                    asked.layer = Http(context, http.HTTPMode.upstream)
            case [*_, ClientTLSLayer()]:
                asked.layer = Http(context, http.HTTPMode.transparent)
            case _:
                first = asked.data_client()
                if starts_like_tls_record(first):
                    tls = ServerTLSLayer(context)
                    tls.child_layer = ClientTls(context)
                    asked.layer = tls
                elif len(first) >= 3:
                    # A client of a WebSocket without TLS opens a tunnel for it, and can read this.
                    is_http = _REQUEST_LINE.match(first)
                    asked.layer = End(context, "not-tls", answers.closing_message(_NOT_TLS) if is_http else b"")


class End(layer.Layer):
    """Ends a connection that carries the wrong protocol, after sending an answer if there is one."""

    def __init__(self, context: Context, rule: str, answer: bytes = b"") -> None:
        super().__init__(context)
        self._rule = rule
        self._answer = answer

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            host, port = self.context.server.address or (None, None)
            audit.Record("CONNECT" if host else "", host, port, None, refused=self._rule).write()
            if self._answer:
                yield commands.SendData(self.context.client, self._answer)
            yield commands.CloseConnection(self.context.client)


class ClientTls(ClientTLSLayer):
    """TLS with the agent, with a limit on the size of a ClientHello."""

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        if not self.client_hello_parsed and len(self.recv_buffer) + len(data) > CLIENT_HELLO_LIMIT:
            return False, "Cannot parse ClientHello: too long"
        return (yield from super().receive_handshake_data(data))


class Http(http.HttpLayer):
    """HTTP over at most one upstream connection, with `Server` for the agent's side and `Stream` for each request."""

    def __init__(self, context: Context, mode: http.HTTPMode) -> None:
        super().__init__(context, mode)
        self.connections[context.client] = Server(context.fork())
        self.idle_since = 0.0
        self._ended: set[layer.Layer] = set()

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        stream = Stream(self.context.fork(), stream_id, self)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super()._handle_event(event)
        if isinstance(event, events.ConnectionClosed) and event.connection is not self.context.client:
            self._forget(event.connection)

    def _forget(self, closed: Connection) -> None:
        """Drops the layers of closed connections. mitmproxy would keep them until the agent's connection ends."""
        if stack := self.connections.get(closed):
            if isinstance(stack, http.HttpStream):  # which also has the other connections of its tunnel
                del self.connections[closed]
            else:
                self._ended.add(stack)
        in_use = {stream.context.server for stream in self.streams.values()}
        for connection, stack in list(self.connections.items()):
            if stack in self._ended and connection not in in_use:
                del self.connections[connection]
        self._ended.intersection_update(self.connections.values())

    def get_connection(
        self,
        event: http.GetHttpConnection,
        *,
        reuse: bool = True,  # noqa: ARG002 (mitmproxy calls it with this argument)
    ) -> layer.CommandGenerator[None]:
        stream = self.command_sources[event]
        assert isinstance(stream, Stream)
        matching = (c for c in self.connections if event.connection_spec_matches(c) and c.connected)
        kept = next(matching, None)
        if kept is not None and self._is_usable(kept, stream):
            stream.reused = True
            yield from super().get_connection(event)
            return
        for connection, stack in list(self.connections.items()):
            if isinstance(stack, TunnelLayer) and stack.tunnel_connection is connection:
                if connection.state is not ConnectionState.CLOSED:
                    yield commands.CloseConnection(connection)
        stream.reused = False
        handler_of(self.context.client).connect_began()
        yield from super().get_connection(event, reuse=False)

    def _is_usable(self, connection: Connection, stream: "Stream") -> bool:
        handler = handler_of(self.context.client)
        stack = self.connections[connection]
        if stream.repeated or handler.intercepted or not isinstance(stack, TunnelLayer):
            return False
        if not stream.is_repeatable() and time.monotonic() - self.idle_since > FRESH_SECONDS:
            return False
        return handler.is_alive(stack.tunnel_connection)

    def register_connection(self, command: http.RegisterHttpConnection) -> layer.CommandGenerator[None]:
        handler = handler_of(self.context.client)
        handler.connect_ended()
        if command.err and handler.timed_out:
            command.err = answers.TIMED_OUT
        yield from super().register_connection(command)


class Stream(http.HttpStream):
    """One exchange. The body of a refused request is read and dropped instead of buffered."""

    def __init__(self, context: Context, stream_id: int, parent: Http) -> None:
        super().__init__(context, stream_id)
        self._parent = parent
        self._has_body = True
        self.reused = False
        """True if the request was sent on a connection that an earlier request had used."""
        self.repeated = False
        """True if the request was sent a second time."""
        self._is_cut = False

    def is_repeatable(self) -> bool:
        return not self._has_body and self.flow.request.data.method in _REPEATABLE

    def state_wait_for_request_headers(self, event: http.RequestHeaders) -> layer.CommandGenerator[None]:
        self._has_body = not event.end_stream
        yield from super().state_wait_for_request_headers(event)

    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, http.RequestData) and self.flow.response is not None:
            return
        yield from super().state_consume_request_body(event)

    def state_stream_request_body(
        self, event: http.RequestData | http.RequestEndOfMessage
    ) -> layer.CommandGenerator[None]:
        guard: Guard | None = self.flow.metadata.get(GUARD)
        if guard is None:
            yield from super().state_stream_request_body(event)
            return
        piece = event.data if isinstance(event, http.RequestData) else b""
        last = not isinstance(event, http.RequestData)
        passed = guard.body(piece, last=last)
        if isinstance(passed, Refusal):
            yield from self._cut(passed)
            return
        if passed:
            yield from super().state_stream_request_body(http.RequestData(self.stream_id, passed))
        if last:
            yield from super().state_stream_request_body(event)

    def _cut(self, refusal: Refusal) -> layer.CommandGenerator[None]:
        """Closes the upstream connection in the middle of a request, and answers the agent at once."""
        self._is_cut = True
        cancelled = http.RequestProtocolError(self.stream_id, "refused", http.ErrorCode.CANCEL)
        yield http.SendHttp(cancelled, self.context.server)
        if self.server_state == self.state_wait_for_response_headers:
            self.flow.response = answers.response(refusal)
            self.client_state = self._drop_request_body
            yield from self.send_response()
        else:
            # The answer has begun, so that only its end can be told.
            failed = http.ResponseProtocolError(self.stream_id, "refused", http.ErrorCode.GENERIC_SERVER_ERROR)
            yield from super().handle_protocol_error(failed)
        self.server_state = self.state_errored

    def _drop_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Reads the rest of a request that was answered already, so that the agent can read the answer."""
        if isinstance(event, http.RequestEndOfMessage):
            self.client_state = self.state_done
            yield from self.flow_done()

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        handler = handler_of(self.context.client)
        request = self.flow.request
        plain = request.scheme == "http"
        if plain or handler.firewall.inspects((request.host, request.port)):
            if not (yield from self._be_admitted()):
                return False
        if not (yield from super().make_server_connection()):
            return False
        inspected = plain or handler.intercepted
        if ACCEPT_ENCODING in self.flow.metadata and not inspected:
            self.flow.request.headers["Accept-Encoding"] = self.flow.metadata[ACCEPT_ENCODING]
        if WEBSOCKET in self.flow.metadata and handler.intercepted:
            # Pipelock would remove the upgrade, and the host would answer as if it were an ordinary request.
            record, *_ = self.flow.metadata.pop(WEBSOCKET)
            refusal = answers.UPGRADE_IMPOSSIBLE
            record.status, record.refused = refusal.status, refusal.rule
            self.flow.response = answers.response(refusal)
            yield from self.send_response()
            return False
        if not inspected:
            handler.leave()
            return True
        if not (yield from self._be_admitted()):
            return False
        stack = self._parent.connections[self.context.server]
        assert isinstance(stack, TunnelLayer)
        handler.sent_on(stack.tunnel_connection)
        return True

    def _be_admitted(self) -> layer.CommandGenerator[bool]:
        """Waits until pipelock may inspect the request. Returns false if the request failed."""
        yield AdmitHook()  # type: ignore[no-untyped-call]
        handler = handler_of(self.context.client)
        if handler.admitted:
            return True
        message = answers.NOT_ADMITTED
        if handler.has_left():
            self.flow.metadata[CLIENT_FAILED] = True
            message = "client disconnected"
        error = http.ResponseProtocolError(self.stream_id, message, http.ErrorCode.CONNECT_FAILED)
        yield from self.handle_protocol_error(error)
        return False

    def handle_protocol_error(
        self, event: http.RequestProtocolError | http.ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        if isinstance(event, http.RequestProtocolError):
            self.flow.metadata[CLIENT_FAILED] = True
        elif self._is_cut:
            return
        elif self._died_of_age(event):
            self.repeated = True
            if (yield from self.make_server_connection()):
                server = self.context.server
                yield http.SendHttp(http.RequestHeaders(self.stream_id, self.flow.request, True), server)
                yield http.SendHttp(http.RequestEndOfMessage(self.stream_id), server)
            return
        yield from super().handle_protocol_error(event)

    def _died_of_age(self, event: http.ResponseProtocolError) -> bool:
        """Returns true if a kept connection ended before the answer began, and the request may be repeated."""
        return (
            self.reused
            and not self.repeated
            and event.message == _CLOSED_UNANSWERED
            and self.is_repeatable()
            and self.client_state == self.state_done
            and self.server_state == self.state_wait_for_response_headers
        )

    def flow_done(self) -> layer.CommandGenerator[None]:
        assert self.flow.response
        self._parent.idle_since = time.monotonic()
        if self.flow.response.status_code != 101:
            yield from super().flow_done()
            return
        self.flow.live = False
        self.child_layer = WebSocket(self.context, *self.flow.metadata[WEBSOCKET])
        self._handle_event = self.passthrough
        yield from self.child_layer.handle_event(events.Start())
        yield http.SendHttp(http.ResponseEndOfMessage(self.stream_id), self.context.client)


class WebSocket(layer.Layer):
    """A WebSocket. Its bytes are passed on as they arrive, and its audit line is written when it ends."""

    def __init__(
        self, context: Context, record: audit.Record, spellings: Spellings | None, guard: Guard | None
    ) -> None:
        super().__init__(context)
        self._record = record
        self._guard = guard
        self._mask = FrameMask(spellings) if spellings else None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            if event.connection == self.context.client:
                refusal = self._guard.frames(event.data) if self._guard else None
                if refusal or self._record.written:
                    yield from self._close(refusal)
                    return
                yield commands.SendData(self.context.server, self._record.count_up(event.data))
                return
            data = self._mask.feed(event.data) if self._mask else event.data
            if data:
                yield commands.SendData(self.context.client, self._record.count_down(data))
        elif isinstance(event, events.ConnectionClosed) and not self._record.written:
            yield from self._close(None)

    def _close(self, refusal: Refusal | None) -> layer.CommandGenerator[None]:
        self._record.write()
        if refusal:
            # A frame that closes, with the reason (RFC 6455, section 7.4.1: the policy is violated).
            reason = (1008).to_bytes(2) + f"egress: {refusal.message}".encode()[:123]
            yield commands.SendData(self.context.client, bytes([0x88, len(reason)]) + reason)
        for connection in (self.context.server, self.context.client):
            yield commands.CloseConnection(connection)


class Tunnel(_upstream_proxy.HttpUpstreamProxy):
    """The CONNECT to the firewall. It also reads the body of a refusal, because the reason is there."""

    _refusal: tuple[int, int] | None = None  # the status, and the length of the body

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        if not self.send_connect:
            return (yield from super().receive_handshake_data(data))
        self.buf += data
        if self._refusal is None:
            lines = self.buf.maybe_extract_lines()
            if not lines:
                return False, "the firewall's head is too large" if len(self.buf) > HEAD_LIMIT else None
            try:
                response = read_response_head([bytes(line) for line in lines])
                length = min(int(response.headers.get("content-length", "0")), HEAD_LIMIT)
            except ValueError:
                return False, "the firewall's answer is malformed"
            if 200 <= response.status_code < 300:
                if self.buf:
                    yield from self.receive_data(bytes(self.buf))
                    del self.buf
                return True, None
            self._refusal = response.status_code, length
        status, length = self._refusal
        if len(self.buf) < length:
            return False, None
        return False, answers.connect_refused(status, bytes(self.buf))


class Server(_http1.Http1Server):
    """HTTP/1 with the agent, with limits on what is buffered and with this proxy's own error messages."""

    def send(self, event: http.HttpEvent) -> layer.CommandGenerator[None]:
        if not isinstance(event, http.ResponseProtocolError):
            yield from super().send(event)
            return
        if self.conn.state & ConnectionState.CAN_WRITE:
            status = event.code.http_status_code()
            if not self.response and status is not None:
                yield commands.SendData(self.conn, answers.closing_message(answers.failure(status, event.message)))
            yield commands.CloseConnection(self.conn)

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        yield from super().read_headers(event)
        if self.state == self.done and self.request is None:
            audit.Record("", None, None, None, status=400, refused="malformed").write()
        elif self.state == self.read_headers and len(self.buf) > HEAD_LIMIT:
            audit.Record("", None, None, None, status=431, refused="head-too-large").write()
            too_large = Refusal(431, "head-too-large", "the request's head is too large")
            yield commands.SendData(self.conn, answers.closing_message(too_large))
            yield commands.CloseConnection(self.conn)
            self.state = self.done

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super().read_body(event)
        yield from _bound_body(self, self.read_body)

    def wait(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super().wait(event)
        if len(self.buf) > HEAD_LIMIT:
            yield commands.CloseConnection(self.conn)
            self.state = self.done


class Client(_http1.Http1Client):
    """HTTP/1 with the firewall. Interim answers are skipped: mitmproxy would take the first for the final one."""

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        while self.request and _INTERIM.match(bytes(self.buf)):
            if not self.buf.maybe_extract_lines():
                break
        yield from super().read_headers(event)
        if self.state == self.read_headers and len(self.buf) > HEAD_LIMIT:
            yield from _give_up(self, "the answer's head is too large")

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super().read_body(event)
        yield from _bound_body(self, self.read_body)

    def mark_done(self, *, request: bool = False, response: bool = False) -> layer.CommandGenerator[None]:
        yield from super().mark_done(request=request, response=response)
        if self.state == self.read_headers and self.stream_id is None and handler_of(self.context.client).intercepted:
            # Pipelock closes its side after each answer, without a `Connection: close`.
            yield commands.CloseConnection(self.conn)
            self.state = self.done


def _bound_body(side: Server | Client, reading: object) -> layer.CommandGenerator[None]:
    """Ends a message with an endless chunk header or trailer. Only these stay in the buffer; data does not."""
    if side.state == reading and len(side.buf) > HEAD_LIMIT:
        yield from _give_up(side, "a chunk's header or the trailers are too large")


def _give_up(side: Server | Client, message: str) -> layer.CommandGenerator[None]:
    side.state = side.done
    yield commands.CloseConnection(side.conn)
    if side.stream_id is not None:
        code = side.ReceiveProtocolError.code
        yield http.ReceiveHttp(side.ReceiveProtocolError(side.stream_id, message, code))


class TrailerlessReader(ChunkedReader):
    """Reader of a chunked body that drops trailers, as a proxy may do. mitmproxy would close the connection."""

    def __call__(self, buffer: _http1.ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        read = super().__call__(buffer)
        return h11.EndOfMessage() if isinstance(read, h11.EndOfMessage) else read


def _body_reader(size: int | None) -> _http1.TBodyReader:
    return TrailerlessReader() if size is None else _make_body_reader(size)


def _error_response(status: int, message: str = "") -> bytes:
    return answers.closing_message(answers.failure(status, message))


# These replace parts of mitmproxy that no subclass can replace. The release is pinned, and each replacement has a test.
_make_body_reader = _http1.make_body_reader
_http1.make_body_reader = _body_reader  # type: ignore[assignment]
_http1.make_error_response = _error_response  # type: ignore[assignment]
http.Http1Client = Client  # type: ignore[misc]
_upstream_proxy.HttpUpstreamProxy = Tunnel  # type: ignore[misc]

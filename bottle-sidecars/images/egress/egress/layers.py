"""The protocol stack of a connection: mitmproxy's layers, made as strict as this place needs.

What may follow what is fixed: the agent's connection is HTTP; inside a CONNECT there is TLS; inside that, HTTP/1.1.
Nothing is guessed and nothing else is forwarded, in particular no raw TCP.
"""

import re

import h11
from h11._readers import ChunkedReader
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer, http, modes
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.tls import starts_like_tls_record

from . import answers, audit
from .policy import Refusal

# A request's head may be this long, as may what a client sends ahead while its request is being answered.
HEAD_LIMIT = 128 * 1024

_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r]")

# Set in a flow's metadata when it was the agent's side that broke it.
CLIENT_FAILED = "egress-client-failed"


class NextLayer:
    """The add-on that mitmproxy asks for a connection's next layer."""

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
                    tls.child_layer = ClientTLSLayer(context)
                    asked.layer = tls
                elif len(first) >= 3:
                    asked.layer = End(context, "not-tls")


class End(layer.Layer):
    """Ends a connection that holds something else than it should."""

    def __init__(self, context: Context, rule: str) -> None:
        super().__init__(context)
        self._rule = rule

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            host, port = self.context.server.address or (None, None)
            audit.Record("CONNECT" if host else "", host, port, None, refused=self._rule).write()
            yield commands.CloseConnection(self.context.client)


class Http(http.HttpLayer):
    """HTTP whose client side is `Server` and whose requests are `Stream`."""

    def __init__(self, context: Context, mode: http.HTTPMode) -> None:
        super().__init__(context, mode)
        self.connections[context.client] = Server(context.fork())

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        stream = Stream(self.context.fork(), stream_id)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


class Stream(http.HttpStream):
    """One exchange. The body of a refused request is read and dropped, instead of being held until its end."""

    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, http.RequestData) and self.flow.response is not None:
            return
        yield from super().state_consume_request_body(event)

    def handle_protocol_error(
        self, event: http.RequestProtocolError | http.ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        if isinstance(event, http.RequestProtocolError):
            self.flow.metadata[CLIENT_FAILED] = True
        yield from super().handle_protocol_error(event)


class Server(_http1.Http1Server):
    """The agent's side of HTTP/1: bounded in what it holds, and answering in this proxy's own words."""

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

    def wait(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super().wait(event)
        if len(self.buf) > HEAD_LIMIT:
            yield commands.CloseConnection(self.conn)
            self.state = self.done


class Client(_http1.Http1Client):
    """The next proxy's side of HTTP/1. Interim answers are passed over: mitmproxy would take the first for the last."""

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        while self.request and _INTERIM.match(bytes(self.buf)):
            if not self.buf.maybe_extract_lines():
                break
        yield from super().read_headers(event)


class TrailerlessReader(ChunkedReader):
    """A chunked body whose trailers are dropped, as a proxy may do. mitmproxy would break off the connection."""

    def __call__(self, buffer: _http1.ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        read = super().__call__(buffer)
        return h11.EndOfMessage() if isinstance(read, h11.EndOfMessage) else read


def _body_reader(size: int | None) -> _http1.TBodyReader:
    return TrailerlessReader() if size is None else _make_body_reader(size)


def _error_response(status: int, message: str = "") -> bytes:
    return answers.closing_message(answers.failure(status, message))


# What no subclass reaches is put in the place of mitmproxy's own. The release is pinned, and tests see each at work.
_make_body_reader = _http1.make_body_reader
_http1.make_body_reader = _body_reader
_http1.make_error_response = _error_response
http.Http1Client = Client

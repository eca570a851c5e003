"""mitmproxy's events, translated for `policy` and `audit`."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from mitmproxy import http, tls
from mitmproxy.connection import ConnectionState

from sidecar.credentials import PAUSE_SECONDS, WAIT_SECONDS, Credentials

from . import answers, audit
from .budget import Budget
from .connections import handler_of
from .dlp import OFF, Target
from .guard import Guard
from .labels import Names
from .layers import ACCEPT_ENCODING, CLIENT_FAILED, GUARD, WEBSOCKET
from .mask import Mask
from .names import split_authority
from .policy import Head, Passage, Refusal, Tunnel, judge, judge_connect
from .proposer import Proposer
from .routes import Credential, Injection, Table

HEALTH_PATH = "/.egress/health"
_KEY = "egress"
_MASK = "egress-mask"
_FIREWALL = "egress-firewall"
# Limits on the lines about removed headers and parameters: their number, and the length of a name in characters.
_MAX_TOLD = 256
_NAME_LIMIT = 64
# Longest part of what a CONNECT names in place of a host, in a line about it.
_HOST_LIMIT = 260


# mitmproxy logs an add-on's exception and continues with the request. Therefore each request starts as refused.
_UNJUDGED = Refusal(500, "internal", "the request could not be judged")


class Gate:
    """Judges every request before anything of it leaves, and records every exchange."""

    def __init__(
        self,
        table: Callable[[], Table],
        credentials: Credentials,
        budget: Budget,
        proposer: Proposer,
        spent: set[str],
    ) -> None:
        """`spent` has the proposals whose one request was made, or may have been made before this process began."""
        self._table = table
        self._budget = budget
        self._credentials = credentials
        self._proposer = proposer
        self._spent = spent
        self._told: set[tuple[str, str, str]] = set()
        self._names = Names()

    def http_connect(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        flow.response = answers.response(_UNJUDGED)
        authority = request.data.authority.decode("latin-1")
        place = judge_connect(_method(request), authority, request.headers.fields)
        if isinstance(place, Refusal):
            host, port = split_authority(authority, None) or (authority[:_HOST_LIMIT], None)
            audit.Record("CONNECT", host, port, None, status=place.status, refused=place.rule).write()
            flow.response = answers.response(place)
        else:
            request.data.host, request.data.port = place
            flow.response = None

    def tls_failed_client(self, data: tls.TlsData) -> None:
        """Records a failed handshake. The usual cause is a program that does not trust this bottle's authority."""
        host, port = data.context.server.address or (None, None)
        audit.Record("CONNECT", host, port, None, error="client-tls").write()

    def requestheaders(self, flow: http.HTTPFlow) -> Coroutine[Any, Any, None] | None:
        request = flow.request
        record = audit.Record(_method(request), None, None, request.path)
        flow.metadata[_KEY] = record
        if flow.error:  # found malformed by mitmproxy's own checks; it answers, and `error` follows
            record.status, record.refused = 400, "malformed"
            return None
        record.status, record.refused = _UNJUDGED.status, _UNJUDGED.rule
        flow.response = answers.response(_UNJUDGED)
        tunnel = _tunnel(flow)
        if tunnel is None and not request.authority and request.path == HEALTH_PATH:
            record.written = True  # it has no line
            flow.response = http.Response.make(200, b"ok\n", {"Content-Type": "text/plain"})
            return None

        table = self._table()
        verdict = self._budget.refusal() or judge(_head(request), tunnel, table)
        record.host, record.port = (tunnel.host, tunnel.port) if tunnel else (request.host, request.port)
        if isinstance(verdict, Passage) and (rule := table.refuses(verdict.host, time.time(), self._spent)):
            verdict = self._proposer.refuse(verdict.host, rule, _method(request), request.scheme)
        if isinstance(verdict, Refusal):
            record.status, record.refused = verdict.status, verdict.rule
            flow.response = answers.response(verdict)
            return None
        if verdict.route is None or (injection := verdict.route.injection) is None:
            self._pass(flow, record, table, verdict, None)
        elif token := self._credentials.read(injection.slot):
            self._pass(flow, record, table, verdict, injection.fill(token))
        else:
            return self._pass_later(flow, record, table, verdict, injection)
        return None

    async def _pass_later(
        self, flow: http.HTTPFlow, record: audit.Record, table: Table, verdict: Passage, injection: Injection
    ) -> None:
        """Waits for a token that the launcher has not written yet, for a bounded time."""
        handler = handler_of(flow.client_conn)
        deadline = time.monotonic() + WAIT_SECONDS
        while (token := self._credentials.read(injection.slot)) is None:
            if time.monotonic() >= deadline or handler.has_left():
                record.status, record.refused = 503, "credential"
                record.route = verdict.route.name if verdict.route else None
                message = f"the credential of route {record.route} has not arrived"
                flow.response = answers.response(Refusal(503, "credential", message))
                return
            await asyncio.sleep(PAUSE_SECONDS)
        self._pass(flow, record, table, verdict, injection.fill(token))

    def _pass(
        self, flow: http.HTTPFlow, record: audit.Record, table: Table, verdict: Passage, credential: Credential | None
    ) -> None:
        """Lets a request pass in which nothing is found that may not leave."""
        request = flow.request
        if verdict.removed_parameters:
            request.path = verdict.target
        guard = self._guard(table, verdict, record, request.path, credential)
        encoding: str = request.headers.get("content-encoding", "")
        # Searches what the agent itself sends: the headers are still without the credential that egress injects.
        if guard and (refusal := guard.head(request.data.path, verdict.headers, encoding.strip().lower())):
            record.port = verdict.port
            flow.response = answers.response(refusal)
            return
        record.route = verdict.route.name if verdict.route else None
        headers = verdict.headers
        if credential:
            record.injected = True
            headers = (*headers, credential.header)
            flow.metadata[_MASK] = Mask(credential.spellings)
        if not record.injected and "Accept-Encoding" in request.headers:
            flow.metadata[ACCEPT_ENCODING] = request.headers["Accept-Encoding"]
        if verdict.websocket:
            flow.metadata[WEBSOCKET] = record, credential.spellings if credential else None, guard
        elif guard:
            flow.metadata[GUARD] = guard
        record.host, record.port = verdict.host, verdict.port
        request.data.host, request.data.port = verdict.host, verdict.port
        request.data.authority = b"" if _tunnel(flow) else verdict.authority.encode("ascii")
        request.headers = http.Headers(headers)
        if verdict.websocket and guard:
            # Compressed frames cannot be searched.
            request.headers.pop("Sec-WebSocket-Extensions", None)
        self._tell_removed(verdict)
        record.spend = self._meter(flow, record)
        self._budget.request(_size(request))
        request.stream = record.count_up
        record.status = record.refused = None
        flow.response = None

    def _meter(self, flow: http.HTTPFlow, record: audit.Record) -> Callable[[int], None]:
        """Returns the counter of an exchange's bytes, which ends its connection beyond the budget."""

        def spend(size: int) -> None:
            if not self._budget.transfer(size) and not record.written:
                record.error = "limit"
                record.write()
                handler_of(flow.client_conn).drop()

        return spend

    def _guard(
        self, table: Table, passage: Passage, record: audit.Record, path: str, credential: Credential | None
    ) -> Guard | None:
        mode = table.dlp(passage.host, passage.route)
        if mode == OFF:
            return None
        detector = table.detector(self._credentials)
        own = credential.token if credential else None
        target = Target(passage.host, path.partition("?")[0], own)
        return Guard(detector, target, mode, record, None if table.names(passage.host) else self._names)

    def _tell_removed(self, passage: Passage) -> None:
        """Writes a line for each name that was removed, once for each host. A name is the agent's choice."""
        for kind, names in (("header", passage.removed), ("parameter", passage.removed_parameters)):
            for name in names:
                removed = passage.host, kind, name[:_NAME_LIMIT]
                if removed not in self._told and len(self._told) < _MAX_TOLD:
                    self._told.add(removed)
                    details: dict[str, Any] = {kind: removed[2]}
                    audit.emit(f"{kind}-removed", host=removed[0], **details)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        record: audit.Record = flow.metadata[_KEY]
        response = flow.response
        if record.refused or record.written or response is None:
            return
        switched = response.status_code == 101
        if switched and (WEBSOCKET not in flow.metadata or not _is_websocket(response)):
            # The request did not ask for it.
            record.error = "upstream-switched-protocols"
            flow.kill()
            return
        record.status = response.status_code
        mask: Mask | None = flow.metadata.get(_MASK)
        if mask is not None:
            fields = response.headers.fields
            response.headers = http.Headers((mask.whole(name), mask.whole(value)) for name, value in fields)
            response.data.reason = mask.whole(response.data.reason)
        if switched:  # `layers.WebSocket` counts and masks what follows
            return
        if mask is None:
            if _tunnel(flow) is None and answers.may_be_firewalls(response):
                flow.metadata[_FIREWALL] = True  # short, and read as a whole in `response`
            else:
                response.stream = record.count_down
            return

        def masked(chunk: bytes) -> list[bytes]:
            # An empty chunk would end a chunked body.
            passed = mask.feed(chunk)
            return [record.count_down(passed)] if passed else []

        response.stream = masked

    def response(self, flow: http.HTTPFlow) -> None:
        record: audit.Record = flow.metadata[_KEY]
        assert flow.response is not None
        if record.refused:
            record.bytes_down = len(flow.response.raw_content or b"")
        elif flow.response.status_code == 101:
            return  # the line is written when the WebSocket ends
        elif _FIREWALL in flow.metadata:
            if refusal := answers.of_firewall(flow.response):
                flow.response = answers.response(refusal)
                record.status, record.error = refusal.status, refusal.rule
            record.bytes_down = len(flow.response.raw_content or b"")
        record.write()

    def error(self, flow: http.HTTPFlow) -> None:
        record = flow.metadata.get(_KEY)
        if record is None:
            return
        message = flow.error.msg if flow.error else ""
        if flow.metadata.get(CLIENT_FAILED):
            record.error = "client-gone" if "disconnected" in message else "client-malformed"
        elif flow.client_conn.state is ConnectionState.CLOSED and not record.refused:
            record.error = "client-gone"
        elif not record.refused and not record.error:
            told = answers.failure(502, message)
            record.error = told.rule
            record.status = record.status or told.status
        record.write()


def _tunnel(flow: http.HTTPFlow) -> Tunnel | None:
    client = flow.client_conn
    if not client.tls:
        return None
    assert flow.server_conn.address is not None
    host, port = flow.server_conn.address
    return Tunnel(host, port, client.sni)


def _head(request: http.Request) -> Head:
    return Head(
        method=_method(request),
        scheme=request.scheme,
        authority=request.data.authority.decode("latin-1"),
        path=request.path,
        version=request.http_version,
        headers=request.headers.fields,
    )


def _size(request: http.Request) -> int:
    """Returns the size of a request's head in bytes, without the ends of its lines."""
    return len(request.data.path) + sum(len(name) + len(value) for name, value in request.headers.fields)


def _is_websocket(response: http.Response) -> bool:
    upgrade: str = response.headers.get("upgrade", "")
    return upgrade.lower() == "websocket"


def _method(request: http.Request) -> str:
    """Returns the method as it was sent. mitmproxy's own accessor gives it in upper case."""
    return request.data.method.decode("latin-1")

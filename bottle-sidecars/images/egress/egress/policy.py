"""Policy: judges one request's head against the tunnel that it came through and the routing table. Pure."""

import re
from dataclasses import dataclass, field

from . import query
from .headers import passes, without_credentials
from .names import join_authority, split_authority
from .paths import AmbiguousPath, readings
from .routes import Host, Route, Table, header_key

Headers = tuple[tuple[bytes, bytes], ...]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_TARGET = re.compile(r"[!-\"$-~\u0080-\U0010ffff]+\Z")

# Hop-by-hop headers (RFC 9110, section 7.6.1), which are removed. `connection` is written anew, because the agent could
# name the injected header in it, and the next hop would remove that header.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade"}
)
# Headers that many servers use in place of the method or the path, to which the rules were applied.
_OVERRIDES = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}
)
_ONCE = ("host", "content-length", "transfer-encoding", "content-type", "expect")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Target of a CONNECT and of the TLS inside it. The host is canonical; the server name is as it was sent."""

    host: str
    port: int
    server_name: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head as it was sent. `authority` is that of an absolute request target, else empty."""

    method: str
    scheme: str
    authority: str
    path: str
    version: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    rule: str
    message: str
    ask: dict[str, object] | None = None
    """The call of a tool that asks a person for what was refused."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The request may pass, to this place and with these headers. `route` is None on a host without routes."""

    host: str
    port: int
    authority: str
    target: str = field(repr=False)  # the path and the query
    headers: Headers = field(repr=False)  # without the route's credential
    route: Route | None
    websocket: bool = False
    removed: tuple[str, ...] = ()
    """Names of the agent's headers that may not pass, without those in whose place a credential is injected."""
    removed_parameters: tuple[str, ...] = ()
    """Names of the parameters of the query that may not pass, in letters and digits only."""


def judge_connect(method: str, authority: str, headers: Headers) -> tuple[str, int] | Refusal:
    """Returns the host and port of a CONNECT, or its refusal."""
    place = split_authority(authority, None)
    if place is None or method != "CONNECT":
        return Refusal(400, "connect", "CONNECT must name one host and a port")
    named = [value for name, value in headers if header_key(_latin(name)) == "host"]
    # Clients differ in whether they put the port into CONNECT's Host; a missing one means the same port.
    if len(named) > 1 or any(split_authority(_latin(value), place[1]) != place for value in named):
        return Refusal(400, "host-mismatch", "CONNECT and its Host header name different places")
    return place


def judge(head: Head, tunnel: Tunnel | None, table: Table) -> Passage | Refusal:
    """Returns the request as it is sent upstream, or its refusal."""
    if malformed := _malformed(head):
        return malformed
    place = _place_in_tunnel(head, tunnel) if tunnel else _place_of_plain(head)
    if isinstance(place, Refusal):
        return place
    websocket = _asks_for_websocket(head)
    if websocket and (malformed := _malformed_upgrade(head, tunnel is not None)):
        return malformed

    host, port = place
    authority = join_authority(host, port, 443 if tunnel else 80)
    routed = table.lookup(host)
    if routed is None:
        if pattern := table.claimed(host):
            return Refusal(403, "host", f"{pattern} stands for one label more, and no other route is for this host")
        if port not in (ports := table.ports(host)):
            named = ", ".join(map(str, sorted(ports)))
            asked = join_authority(host, port, None)
            return Refusal(403, "port", f"{host} is reached on port {named} only; the manifest can allow `{asked}`")
        headers = _rewrite(head.headers, authority, websocket)
        return Passage(host, port, authority, head.path, headers, None, websocket)
    route = _choose(head, port, tunnel is not None, routed)
    if isinstance(route, Refusal):
        return route
    injected = routed.injected()
    passing, removed = _limit(head.headers, injected, route.headers)
    target, parameters = query.without_credentials(head.path, route.headers) if injected else (head.path, ())
    headers = _rewrite(passing, authority, websocket)
    return Passage(host, port, authority, target, headers, route, websocket, removed, parameters)


def _malformed(head: Head) -> Refusal | None:
    if head.version not in ("HTTP/1.1", "HTTP/1.0"):
        return Refusal(505, "version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if not _TOKEN.match(head.method.encode("latin-1", "replace")):
        return Refusal(400, "method", "the method is not a token")
    if head.method.upper() in ("TRACE", "TRACK"):
        # The answer would contain the injected credential.
        return Refusal(405, "trace", "TRACE is never passed on")
    if head.method.upper() in ("CONNECT", "HEAD") and head.method != "HEAD":
        # These two change how the answer is framed, and not every server agrees on what their other spellings do.
        return Refusal(400, "method", "this method is not allowed here")
    if not _TARGET.match(head.path.encode("utf-8", "surrogateescape").decode("latin-1")):
        return Refusal(400, "target", "the request target holds a space, a control character or a fragment")
    counts: dict[str, int] = {}
    for name, value in head.headers:
        if not _TOKEN.match(name) or not _VALUE.match(value):
            return Refusal(400, "header", "a header has a name or a value that is not allowed, or is folded")
        key = header_key(_latin(name))
        if key in _ONCE and key != _latin(name).lower():
            return Refusal(400, "header", f"a header is named almost `{key}`")
        counts[key] = counts.get(key, 0) + 1
    for key in _ONCE:
        if counts.get(key, 0) > 1:
            return Refusal(400, "header", f"more than one `{key}` header")
    if counts.get("content-length") and counts.get("transfer-encoding"):
        return Refusal(400, "framing", "both `content-length` and `transfer-encoding`")
    return None


def _place_in_tunnel(head: Head, tunnel: Tunnel) -> tuple[str, int] | Refusal:
    of_server = (head.method, head.path) == ("OPTIONS", "*")
    if head.authority or not (head.path.startswith("/") or of_server):
        return Refusal(400, "target", "inside a tunnel a request names a path and no host")
    place = (tunnel.host, tunnel.port)
    # An address has no server name (RFC 6066, section 3); a name must have its own.
    if (tunnel.server_name or "").lower() != ("" if _is_address(tunnel.host) else tunnel.host):
        return Refusal(421, "server-name-mismatch", "CONNECT and the TLS server name are not the same host")
    if split_authority(_header(head, "host") or "", 443) != place:
        return Refusal(421, "host-mismatch", "CONNECT and the Host header name different places")
    return place


def _place_of_plain(head: Head) -> tuple[str, int] | Refusal:
    if not head.authority:
        return Refusal(400, "target", "this is a proxy: name the host in the request, or use CONNECT")
    if head.scheme != "http":
        return Refusal(400, "scheme", "only http is asked for in the open; use CONNECT for everything else")
    place = split_authority(head.authority, 80)
    if place is None:
        return Refusal(400, "target", "the request names no plain host")
    if split_authority(_header(head, "host") or "", 80) != place:
        return Refusal(400, "host-mismatch", "the request and its Host header name different places")
    return place


def _asks_for_websocket(head: Head) -> bool:
    protocols = [protocol.strip().lower() for protocol in (_header(head, "upgrade") or "").split(",")]
    return "websocket" in protocols


def _malformed_upgrade(head: Head, secure: bool) -> Refusal | None:
    """Returns the refusal of a handshake that is not exactly what RFC 6455, section 4.1, requires."""
    if not secure:
        # Pipelock removes the upgrade from plain requests.
        return Refusal(426, "websocket", "WebSocket is possible over TLS only; use plain requests")
    tokens = [token.strip().lower() for token in (_header(head, "connection") or "").split(",")]
    length = _header(head, "content-length")
    once = all(
        sum(_latin(name).lower() == key for name, _ in head.headers) == 1
        for key in ("upgrade", "sec-websocket-key", "sec-websocket-version")
    )
    if (
        head.method != "GET"
        or head.version != "HTTP/1.1"
        or (_header(head, "upgrade") or "").lower() != "websocket"
        or "upgrade" not in tokens
        or not once
        or _header(head, "transfer-encoding") is not None
        or length not in (None, "0")
    ):
        return Refusal(400, "websocket", "the WebSocket handshake is malformed")
    return None


def _choose(head: Head, port: int, secure: bool, routed: Host) -> Route | Refusal:
    if not secure:
        return Refusal(403, "https-only", f"{routed.pattern} is reached over https only")
    if port not in routed.ports():
        ports = ", ".join(map(str, routed.ports()))
        return Refusal(403, "port", f"{routed.pattern} is reached on port {ports} only")
    for name, _ in head.headers:
        if header_key(_latin(name)) in _OVERRIDES:
            return Refusal(403, "override", f"`{header_key(_latin(name))}` would bypass the rules for {routed.pattern}")
    try:
        strict, loose = readings(head.path if head.path != "*" else "/")
    except AmbiguousPath as error:
        return Refusal(400, "path", f"the path cannot be judged: {error}")
    route = routed.choose(port, strict, head.method)
    if route is not routed.choose(port, loose, head.method):
        return Refusal(400, "path", "the path can be read in two ways that fall under different rules")
    if route:
        return route
    if covering := routed.covering(port, strict):
        names = ", ".join(covering)
        return Refusal(403, "method", f"this method is not allowed on this path of {routed.pattern} (route {names})")
    return Refusal(403, "path", f"no route of {routed.pattern} allows this path")


def _limit(headers: Headers, injected: frozenset[str], further: frozenset[str]) -> tuple[Headers, tuple[str, ...]]:
    """Returns the headers that may pass to a host for which some are injected, and the names of the others."""
    if not injected:
        return headers, ()
    passing: list[tuple[bytes, bytes]] = []
    removed: list[str] = []
    for name, value in headers:
        key = header_key(_latin(name))
        sent = without_credentials(value) if key == "sec-websocket-protocol" else value
        if key in _HOP_BY_HOP or (key not in injected and (passes(key) or key in further) and (sent or not value)):
            passing.append((name, sent))
        elif key not in injected:
            removed.append(key)
    return tuple(passing), tuple(removed)


def _rewrite(headers: Headers, authority: str, websocket: bool) -> Headers:
    """Returns the headers to send: those that were judged, without hop-by-hop headers."""
    keep: list[tuple[bytes, bytes]] = [(b"Host", authority.encode("ascii"))]
    close = False
    for name, value in headers:
        key = header_key(_latin(name))
        if key == "connection":
            close = close or "close" in [token.strip().lower() for token in _latin(value).split(",")]
        # Compressed answers are not requested: pipelock cannot scan them and refuses them, and a credential could
        # not be masked in one. Where neither applies, `layers` restores the agent's own header.
        if key not in _HOP_BY_HOP and key not in ("host", "accept-encoding"):
            keep.append((name, value))
    keep.append((b"Accept-Encoding", b"identity"))
    if websocket:
        keep += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    elif close:
        keep.append((b"Connection", b"close"))
    return tuple(keep)


def _header(head: Head, key: str) -> str | None:
    values = [_latin(value) for name, value in head.headers if _latin(name).lower() == key]
    return ", ".join(values) if values else None


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _latin(raw: bytes) -> str:
    return raw.decode("latin-1")

"""The routing table, parsed from `routes.yaml` as a whole. Without I/O: the caller passes text and credentials.

An exact host takes precedence over every wildcard that covers it, whatever the ports. Of a host's routes that allow the
path and the method, the one with the longest path prefix wins, then one with methods over one without. Two equal routes
are an error. A request to a routed host that no route allows is refused.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sidecar.credentials import Credentials
from sidecar.grammar import GRAMMARS

from .dlp import MODES, OFF, Detector
from .mask import Spellings
from .paths import is_below

# The default name of a route is its host and a number, which the length allows for.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,299}\Z")
_SLOT = re.compile(r"EGRESS_TOKEN_[A-Za-z0-9_]+\Z")
_KEYS = {"version", "routes", "dlp", "hosts", "ports", "allow", "temporary", "limits", "learn"}
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")


DEFAULT_PORTS = frozenset({80, 443})
"""Ports of a host for which none are given: HTTP and HTTPS."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of all requests together. None: there is no limit."""

    requests: int | None = None
    bytes: int | None = None

    def of(self, name: str) -> int | None:
        return self.requests if name == "requests" else self.bytes


_UNLIMITED = Limits()


class RoutesError(ValueError):
    """Error of an invalid table. The message is one line, names the key, and contains no token."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A header to inject, with the token."""

    token: bytes = field(repr=False)
    header: tuple[bytes, bytes] = field(repr=False)
    spellings: Spellings = field(repr=False)
    """Texts to mask in answers: those of the token, and of its encoded form for basic authentication."""


@dataclass(frozen=True, slots=True)
class Injection:
    """The form of a header to inject: either a template or a user's name for basic authentication."""

    header: str
    slot: str
    template: str | None = None
    basic_username: str | None = None

    def fill(self, token: str) -> Credential:
        return _fill(self, token)


@lru_cache(maxsize=256)
def _fill(injection: Injection, token: str) -> Credential:
    name = injection.header.encode("ascii")
    raw = token.encode("ascii")
    if injection.template is not None:
        return Credential(raw, (name, injection.template.replace("{token}", token).encode("ascii")), Spellings([raw]))
    encoded = base64.b64encode(f"{injection.basic_username}:{token}".encode("ascii"))
    return Credential(raw, (name, b"Basic " + encoded), Spellings([raw, encoded]))


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    host: str
    port: int
    paths: tuple[str, ...] | None
    methods: frozenset[str] | None
    headers: frozenset[str]
    """Further request headers that pass, in the form of `header_key`."""
    injection: Injection | None
    dlp: str | None = None
    """The mode of the search for credentials. None: that of the host."""

    def prefix_for(self, path: str) -> str | None:
        """Returns the longest prefix that covers the path. Empty: every path is allowed. None: no prefix covers it."""
        if self.paths is None:
            return ""
        return max((prefix for prefix in self.paths if is_below(path, prefix)), key=len, default=None)


@dataclass(frozen=True, slots=True)
class Host:
    """Every route of one host pattern."""

    pattern: str
    routes: tuple[Route, ...]

    def ports(self) -> list[int]:
        return sorted({route.port for route in self.routes})

    def injected(self) -> frozenset[str]:
        """Returns the names of the headers that are injected for this host, in the form of `header_key`."""
        return frozenset(header_key(route.injection.header) for route in self.routes if route.injection)

    def choose(self, port: int, path: str, method: str) -> Route | None:
        best: tuple[int, bool] | None = None
        chosen = None
        for route in self.routes:
            if route.port != port or (route.methods is not None and method not in route.methods):
                continue
            prefix = route.prefix_for(path)
            if prefix is None:
                continue
            rank = (len(prefix), route.methods is not None)
            if best is None or rank > best:
                best, chosen = rank, route
        return chosen

    def covering(self, port: int, path: str) -> list[str]:
        """Returns the names of the routes that cover the path, whatever the method."""
        return [r.name for r in self.routes if r.port == port and r.prefix_for(path) is not None]


@dataclass(frozen=True, slots=True)
class Ending:
    """A host that is allowed until a time, in seconds since 1970, or for one request before it."""

    proposal: str
    until: int
    once: bool


class Table:
    """A routing table.

    `learn`: every host with a name passes. Otherwise `allow` has the hosts that pass. None: all, since the firewall
    decides. `temporary` has further hosts that end.
    `ports` has the ports of the hosts without routes: by name, or by `*.` and a domain, which stands for the domain and
    every name below it. A host that no entry covers is reached on the default ports.
    """

    def __init__(
        self,
        routes: list[Route],
        dlp: str = OFF,
        dlp_of_hosts: Mapping[str, str] | None = None,
        ports: Mapping[str, frozenset[int]] | None = None,
        limits: Limits = _UNLIMITED,
        allow: Sequence[str] | None = None,
        temporary: Mapping[str, Ending] | None = None,
        learn: bool = False,
    ) -> None:
        self._learn = learn
        self.limits = limits
        self._allow = None if allow is None else frozenset(allow)
        self._temporary = dict(temporary or {})
        self._ports = dict(ports or {})
        patterns: dict[str, list[Route]] = {}
        for route in routes:
            patterns.setdefault(route.host, []).append(route)
        self._hosts = {pattern: Host(pattern, tuple(of)) for pattern, of in patterns.items()}
        self.routes = tuple(routes)
        self._dlp, self._dlp_of_hosts = dlp, dict(dlp_of_hosts or {})
        modes = {dlp, *self._dlp_of_hosts.values(), *(route.dlp for route in routes)}
        self.searches = bool(modes - {OFF, None})
        """True if the search for credentials is on for any host."""
        self._slots = sorted({route.injection.slot for route in routes if route.injection})

    def dlp(self, host: str, route: Route | None) -> str:
        """Returns the mode of the search for credentials: that of the route, of the host, of the longest domain."""
        if route and route.dlp:
            return route.dlp
        domains = [f"*.{host}", *(f"*{host[at:]}" for at, character in enumerate(host) if character == ".")]
        return next((self._dlp_of_hosts[name] for name in (host, *domains) if name in self._dlp_of_hosts), self._dlp)

    def names(self, host: str) -> bool:
        """Returns true if a route or an entry is for exactly this host."""
        return any(
            host in named
            for named in (self._hosts, self._dlp_of_hosts, self._ports, self._temporary, self._allow or ())
        )

    def slots(self) -> set[str]:
        """Returns the slots of the tokens that are injected."""
        return set(self._slots)

    def detector(self, credentials: Credentials) -> Detector:
        """Returns the search for credentials, with the tokens that there are. It is made anew when one changes."""
        tokens = filter(None, map(credentials.read, self._slots))
        return _detector(tuple(token.encode("ascii") for token in tokens))

    def lookup(self, host: str) -> Host | None:
        if exact := self._hosts.get(host):
            return exact
        label, dot, parent = host.partition(".")
        return self._hosts.get(f"*.{parent}") if label and dot else None

    def ports(self, host: str) -> frozenset[int]:
        """Returns the ports of a host without routes: those of every entry that covers it."""
        patterns = [host, *(f"*.{parent}" for parent in _parents(host))]
        found = [self._ports[pattern] for pattern in patterns if pattern in self._ports]
        return frozenset().union(*found) if found else DEFAULT_PORTS

    def refuses(self, host: str, now: float, spent: set[str]) -> str | None:
        """Returns the rule that refuses a host, or None if it may be reached. A host for one request is then spent."""
        if self._learn:
            # A manifest can list names only. No host is below this domain (RFC 2606).
            return None if GRAMMARS["allowed_host"].accepts(host) and not host.endswith(".invalid") else "not-allowed"
        patterns = (host, *(f"*.{parent}" for parent in _parents(host)))
        if self._allow is None or any(pattern in self._allow for pattern in patterns):
            return None
        ending = self._temporary.get(host)
        if ending is None:
            return "not-allowed"
        if now >= ending.until or ending.proposal in spent:
            return "expired"
        if ending.once:
            spent.add(ending.proposal)
        return None

    @property
    def temporary(self) -> Mapping[str, Ending]:
        """The hosts whose approval ends."""
        return self._temporary

    def single(self) -> set[str]:
        """Returns the proposals that allow a host for one request."""
        return {ending.proposal for ending in self._temporary.values() if ending.once}

    def claimed(self, host: str) -> str | None:
        """Returns the wildcard route whose domain contains a host that has no route.

        Pipelock's wildcard is wider than a route's: it would also allow the domain itself and deeper names.
        """
        return next((pattern for parent in _parents(host) if (pattern := f"*.{parent}") in self._hosts), None)


def _parents(host: str) -> list[str]:
    """Returns the host and every domain that it is in."""
    return [host, *(host[at + 1 :] for at, character in enumerate(host) if character == ".")]


@lru_cache(maxsize=1)
def _detector(secrets: tuple[bytes, ...]) -> Detector:
    return Detector(secrets)


def header_key(name: str) -> str:
    """Returns a header's name as a lenient server reads it: CGI cannot tell `_` from `-`."""
    return name.lower().replace("_", "-")


def parse(text: str) -> Table:
    """Parses a table.

    Raises:
        RoutesError: anything is unknown, missing, of the wrong type, duplicate or ambiguous.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        document = yaml.load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not one YAML document"
        raise RoutesError(f"{problem}{f' (line {mark.line + 1})' if mark else ''}") from None
    except (ValueError, RecursionError):
        raise RoutesError("not YAML") from None

    top = _mapping(document, "the file", _KEYS, {"version", "routes"})
    if type(top["version"]) is not int or top["version"] != 1:
        raise RoutesError("version: must be 1")
    if not isinstance(top["routes"], list):
        raise RoutesError("routes: must be a list")
    routes = [_route(item, f"routes[{index}]") for index, item in enumerate(top["routes"])]

    seen: dict[str, int] = {}
    for index, route in enumerate(routes):
        if route.name in seen:
            raise RoutesError(f"routes[{index}].name: `{route.name}` is also the name of routes[{seen[route.name]}]")
        seen[route.name] = index
    for index, route in enumerate(routes):
        for other in routes[:index]:
            if clash := _clash(route, other):
                raise RoutesError(f"routes[{index}]: `{route.name}` and `{other.name}` both claim {clash}")
    hosts: dict[str, str] = {}
    listed = top.get("hosts", [])
    if not isinstance(listed, list):
        raise RoutesError("hosts: must be a list")
    for index, item in enumerate(listed):
        keys = _mapping(item, f"hosts[{index}]", {"host", "dlp"}, {"host", "dlp"})
        hosts[_value("allowed_host", keys["host"], f"hosts[{index}].host")] = _mode(keys, f"hosts[{index}]", OFF)
    ports = _ports(top.get("ports", {}), "ports")
    allow, temporary = _allow(top["allow"]) if "allow" in top else None, _temporary(top.get("temporary", []))
    limits, learn = _limits(top.get("limits", {})), top.get("learn", False)
    if type(learn) is not bool:
        raise RoutesError("learn: must be true or false")
    return Table(routes, _mode(top, "the file", OFF), hosts, ports, limits, allow, temporary, learn)


def _limits(value: object) -> Limits:
    keys = _mapping(value, "limits", {"requests", "bytes"}, set())
    return Limits(_count(keys, "requests"), _count(keys, "bytes"))


def _count(keys: dict[str, object], key: str) -> int | None:
    if key not in keys:
        return None
    value = keys[key]
    if type(value) is not int or value < 1:
        raise RoutesError(f"limits.{key}: must be a number from 1")
    return value


def _allow(value: object) -> list[str]:
    if not isinstance(value, list):
        raise RoutesError("allow: must be a list of hosts")
    return [_value("allowed_host", item, f"allow[{index}]") for index, item in enumerate(value)]


def _temporary(value: object) -> dict[str, Ending]:
    if not isinstance(value, list):
        raise RoutesError("temporary: must be a list")
    endings: dict[str, Ending] = {}
    for index, item in enumerate(value):
        where = f"temporary[{index}]"
        keys = _mapping(item, where, {"host", "proposal", "until", "once"}, {"host", "proposal", "until"})
        host = _value("allowed_host", keys["host"], f"{where}.host")
        until, once = keys["until"], keys.get("once", False)
        if host.startswith("*.") or host in endings:
            raise RoutesError(f"{where}.host: must be one name, given once")
        if type(until) is not int or until < 0 or type(once) is not bool:
            raise RoutesError(f"{where}: `until` must be seconds since 1970, and `once` true or false")
        proposal = _text(keys["proposal"], f"{where}.proposal", _NAME, "the id of a proposal")
        endings[host] = Ending(proposal, until, once)
    return endings


def _mode(keys: dict[str, object], where: str, otherwise: str) -> str:
    mode = keys.get("dlp", otherwise)
    if mode not in MODES:
        raise RoutesError(f"{where}.dlp: must be {', '.join(MODES)}")
    return str(mode)


def _ports(value: object, where: str) -> dict[str, frozenset[int]]:
    if not isinstance(value, dict):
        raise RoutesError(f"{where}: must be a mapping from hosts to lists of ports")
    ports = {}
    for host, numbers in value.items():
        key = f"{where}.{_value('allowed_host', host, where)}"
        if not isinstance(numbers, list) or not numbers:
            raise RoutesError(f"{key}: must be a list of ports that is not empty")
        ports[host] = frozenset(_port(number, key) for number in numbers)
    return ports


def _port(value: object, where: str) -> int:
    if type(value) is not int or not 0 < value < 65536:
        raise RoutesError(f"{where}: must be a number from 1 to 65535")
    return value


def _route(item: object, where: str) -> Route:
    keys = _mapping(
        item, where, {"name", "host", "port", "paths", "methods", "headers", "inject", "dlp"}, {"name", "host"}
    )
    return Route(
        name=_text(keys["name"], f"{where}.name", _NAME, "letters, digits, `.`, `_` and `-`, 300 at most"),
        host=_value("route_host", keys["host"], f"{where}.host"),
        port=_port(keys.get("port", 443), f"{where}.port"),
        paths=_paths(keys["paths"], f"{where}.paths") if "paths" in keys else None,
        methods=_methods(keys["methods"], f"{where}.methods") if "methods" in keys else None,
        headers=_headers(keys["headers"], f"{where}.headers") if "headers" in keys else frozenset(),
        injection=_injection(keys["inject"], f"{where}.inject") if "inject" in keys else None,
        dlp=_mode(keys, where, OFF) if "dlp" in keys else None,
    )


def _paths(value: object, where: str) -> tuple[str, ...]:
    return tuple(_value("path", item, f"{where}[{index}]") for index, item in enumerate(_list(value, where)))


def _methods(value: object, where: str) -> frozenset[str]:
    return frozenset(_value("method", item, f"{where}[{index}]") for index, item in enumerate(_list(value, where)))


def _headers(value: object, where: str) -> frozenset[str]:
    return frozenset(_value("header", item, f"{where}[{index}]") for index, item in enumerate(_list(value, where)))


def _injection(value: object, where: str) -> Injection:
    keys = _mapping(value, where, {"header", "template", "basic_username", "slot"}, {"header", "slot"})
    header = _value("header", keys["header"], f"{where}.header")
    if ("template" in keys) == ("basic_username" in keys):
        raise RoutesError(f"{where}: needs either `template` or `basic_username`")

    slot = _text(keys["slot"], f"{where}.slot", _SLOT, "EGRESS_TOKEN_ and letters, digits or `_`")
    if "template" in keys:
        template = _text(keys["template"], f"{where}.template", _VALUE, "printable ASCII")
        if template.count("{token}") != 1:
            raise RoutesError(f"{where}.template: must hold {{token}} once")
        return Injection(header, slot, template=template)
    username = _text(keys["basic_username"], f"{where}.basic_username", _VALUE, "printable ASCII")
    if ":" in username:
        raise RoutesError(f"{where}.basic_username: must not hold a colon")
    return Injection(header, slot, basic_username=username)


def _clash(one: Route, other: Route) -> str | None:
    """Describes a request that both routes match equally. None if there is none."""
    if (one.host, one.port) != (other.host, other.port) or (one.methods is None) != (other.methods is None):
        return None
    methods = None if one.methods is None else one.methods & (other.methods or frozenset())
    if methods is not None and not methods:
        return None
    paths = {""} if one.paths is None else set(one.paths)
    shared = sorted(paths & ({""} if other.paths is None else set(other.paths)))
    if not shared:
        return None
    verb = "" if methods is None else f"{min(methods)} "
    return f"{verb}{one.host}:{one.port}{shared[0]}"


def _mapping(value: object, where: str, known: set[str], needed: set[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RoutesError(f"{where}: must be a mapping")
    for key in value:
        if key not in known:
            raise RoutesError(f"{where}: unknown key `{str(key)[:64]!r}`; known are {', '.join(sorted(known))}")
    for key in sorted(needed - value.keys()):
        raise RoutesError(f"{where}: `{key}` is missing")
    return value


def _list(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise RoutesError(f"{where}: must be a list that is not empty; leave it out to allow all")
    if any(not isinstance(item, str) for item in value) or len(set(value)) != len(value):
        raise RoutesError(f"{where}: must hold strings, each once")
    return value


def _text(value: object, where: str, pattern: re.Pattern[str], accepted: str) -> str:
    if not isinstance(value, str) or not pattern.match(value):
        raise RoutesError(f"{where}: must be {accepted}")
    return value


def _value(kind: str, value: object, where: str) -> str:
    if not isinstance(value, str) or not GRAMMARS[kind].accepts(value):
        raise RoutesError(f"{where}: must be {GRAMMARS[kind].accepted}")
    return value

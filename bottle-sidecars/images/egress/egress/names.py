"""Canonical form of host names and authorities, which is compared, matched and sent."""

import ipaddress
import re

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMERIC = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


def canonical_host(text: str) -> str | None:
    """Returns the host in lower case, an IPv6 literal without its brackets. None if the text is not exactly one host.

    Programs disagree on a trailing dot, an empty label, a character outside ASCII and other spellings of an IPv4
    address (`127.1`, `0x7f.0.0.1`), so none of them is accepted.
    """
    if not text.isascii() or len(text) > 253:
        return None
    host = text.lower()
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])) if host.endswith("]") and "%" not in host else None
        except ValueError:
            return None
    labels = host.split(".")
    if not all(_LABEL.match(label) for label in labels):
        return None
    if _NUMERIC.match(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            return None
    return host


def split_authority(text: str, default_port: int | None) -> tuple[str, int] | None:
    """Parses `host[:port]`. Returns None for anything else, such as an authority with user information."""
    if text.startswith("["):
        literal, bracket, rest = text.partition("]")
        name = literal + bracket
        if rest and not rest.startswith(":"):
            return None
        port = rest[1:] if rest else None
    else:
        name, colon, rest = text.partition(":")
        port = rest if colon else None
    host = canonical_host(name)
    if host is None:
        return None
    if port is None:
        return (host, default_port) if default_port is not None else None
    if not _PORT.match(port) or int(port) > 65535:
        return None
    return host, int(port)


def join_authority(host: str, port: int, default_port: int | None) -> str:
    """Returns the shortest `host[:port]` that `split_authority` parses to this host and port."""
    name = f"[{host}]" if ":" in host else host
    return name if port == default_port else f"{name}:{port}"

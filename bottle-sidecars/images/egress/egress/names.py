"""Host names and authorities, in the one form that is compared, matched and sent on."""

import ipaddress
import re

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMERIC = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


def canonical_host(text: str) -> str | None:
    """The host in lower case without an IPv6 literal's brackets, or None for what is not plainly one host.

    A trailing dot, an empty label, a character outside ASCII and the many other spellings of an IPv4 address
    (`127.1`, `0x7f.0.0.1`) name the same host to some and another to others: none is a host here.
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
    """`host[:port]` as a canonical host and a port, or None for anything else (user information included)."""
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
    """The shortest `host[:port]` that `split_authority` reads back."""
    name = f"[{host}]" if ":" in host else host
    return name if port == default_port else f"{name}:{port}"

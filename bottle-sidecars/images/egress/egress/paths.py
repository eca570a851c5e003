"""Canonical form of a request's path, so that no spelling of it is matched as one thing and served as another."""

import re

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MANY_SLASHES = re.compile(r"/{2,}")
# Nobody escapes an escape more often than this for a good reason.
_ROUNDS = 4


class AmbiguousPath(ValueError):
    """The path has more than one meaning; the message says which feature of it."""


def readings(target: str) -> tuple[str, str]:
    """The two extreme readings of a request target's path (query left off).

    The first is the path as it stands. The second is what the most forgiving server could make of it: every escape
    undone, however often it was escaped, back-slashes turned, runs of slashes made one, `;parameters` dropped. A rule
    may be applied only if it says the same of both. Segments `.` and `..`, in any disguise, have no place in either.

    Raises:
        AmbiguousPath: what no reading could make safe.
    """
    path = target.split("?", 1)[0]
    if not path.startswith("/"):
        raise AmbiguousPath("it does not begin with a slash")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise AmbiguousPath("it holds a character that must be escaped")
    if _BROKEN_ESCAPE.search(path):
        raise AmbiguousPath("it holds a percent sign that escapes nothing")

    loose = path
    for _ in range(_ROUNDS):
        undone = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), loose)
        if undone == loose:
            break
        loose = undone
    else:
        raise AmbiguousPath("it is escaped over and over")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in loose):
        raise AmbiguousPath("it holds an escaped control character")
    segments = [segment.split(";", 1)[0].strip() for segment in loose.replace("\\", "/").split("/")]
    if "." in segments or ".." in segments:
        raise AmbiguousPath("it holds a dot segment")
    return path, _MANY_SLASHES.sub("/", "/".join(segments))


def is_below(path: str, prefix: str) -> bool:
    """Return true if the prefix covers the path, on a segment's boundary: `/v1` covers `/v1` and `/v1/x`, not `/v10`."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")

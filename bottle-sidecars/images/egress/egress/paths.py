"""Canonical form of a request's path, so that no spelling of it is matched as one thing and served as another."""

import re
import unicodedata

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MANY_SLASHES = re.compile(r"/{2,}")
# Maximum number of times that a path may have been escaped.
_ROUNDS = 4


class AmbiguousPath(ValueError):
    """Error of a path with more than one meaning. The message names the reason."""


def readings(target: str) -> tuple[str, str]:
    """Returns the strictest and the most lenient reading of a request target's path, without the query.

    The first is the path as it is written. The second is the path as the most lenient server could read it: all escapes
    decoded repeatedly, `\\` read as `/`, repeated slashes merged, `;parameters` removed. A rule applies only if both
    readings match it. The segments `.` and `..` are refused in every encoding. So is text that is not UTF-8, which
    servers repair in different ways, and text that Unicode's normalization NFKC changes: `\uff0f` becomes a slash.

    Raises:
        AmbiguousPath: the path is refused whatever the rules are.
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
        _check_text(loose)
    else:
        raise AmbiguousPath("it is escaped over and over")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in loose):
        raise AmbiguousPath("it holds an escaped control character")
    segments = [segment.split(";", 1)[0].strip() for segment in loose.replace("\\", "/").split("/")]
    if "." in segments or ".." in segments:
        raise AmbiguousPath("it holds a dot segment")
    return path, _MANY_SLASHES.sub("/", "/".join(segments))


def _check_text(decoded: str) -> None:
    """Checks a path after a round of decoding. Each character stands for a byte."""
    try:
        text = decoded.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise AmbiguousPath("it is not UTF-8 when it is decoded") from None
    if not unicodedata.is_normalized("NFKC", text):
        raise AmbiguousPath("it holds a character that Unicode's normalization (NFKC) changes")


def is_below(path: str, prefix: str) -> bool:
    """Returns true if the prefix covers the path up to a segment's end: `/v1` covers `/v1` and `/v1/x`, not `/v10`."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")

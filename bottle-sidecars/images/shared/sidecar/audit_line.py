"""Audit lines: JSON objects with the common fields of `audit-line.schema.json`, one per line of standard output."""

import json
from datetime import UTC, datetime
from typing import Literal

Outcome = Literal["done", "refused", "failed", "unknown"]


def timestamp(seconds: float | None = None) -> str:
    """Return a time, given in seconds since 1970, in UTC with milliseconds. Default: the current time."""
    time = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(
    sidecar: str, event: str, *, outcome: Outcome | None = None, reason: str | None = None, **details: object
) -> str:
    """Return one line, without its end. It is ASCII, so that no text from outside can start a second line.

    A byte that is no text is written as an escape: a lone surrogate in its place is not accepted by strict parsers.
    """
    line: dict[str, object] = {"ts": timestamp(), "sidecar": sidecar, "event": event}
    if outcome is not None:
        line["outcome"] = outcome
    if reason is not None:
        line["reason"] = reason
    return json.dumps(_text(line | details), separators=(",", ":"), default=str)


def _text(value: object) -> object:
    """Return the value with every string in valid Unicode."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_text(key): _text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return value

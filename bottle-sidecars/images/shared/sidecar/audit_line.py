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
    """Return one line, without its end. It is ASCII, so that no text from outside can start a second line."""
    line: dict[str, object] = {"ts": timestamp(), "sidecar": sidecar, "event": event}
    if outcome is not None:
        line["outcome"] = outcome
    if reason is not None:
        line["reason"] = reason
    return json.dumps(line | details, separators=(",", ":"), default=str)

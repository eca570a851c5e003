"""Audit lines of this proxy: one for each request, without a credential and without the query."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar import audit_line
from sidecar.audit_line import Outcome

# Longer paths are cut, to bound the length of a line.
_PATH_LIMIT = 1024


@dataclass(slots=True)
class Record:
    """Audit line of one request. `refused` is a rule of this proxy, `error` the reason that an exchange broke."""

    method: str
    host: str | None
    port: int | None
    path: str | None
    route: str | None = None
    injected: bool = False
    status: int | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    refused: str | None = None
    error: str | None = None
    finding: dict[str, str] | None = None
    """The pattern of a credential that was found, and its place. It holds no part of the credential."""
    started: float = field(default_factory=time.monotonic)
    written: bool = False
    spend: Callable[[int], None] | None = None
    """Receives the number of bytes that pass."""

    def count_up(self, chunk: bytes) -> bytes:
        self.bytes_up += len(chunk)
        if self.spend:
            self.spend(len(chunk))
        return chunk

    def count_down(self, chunk: bytes) -> bytes:
        self.bytes_down += len(chunk)
        if self.spend:
            self.spend(len(chunk))
        return chunk

    def write(self) -> None:
        """Writes the line. A second call does nothing."""
        if self.written:
            return
        self.written = True
        path = self.path.split("?", 1)[0][:_PATH_LIMIT] if self.path is not None else None
        outcome: Outcome = "refused" if self.refused else "failed" if self.error else "done"
        emit(
            "request",
            outcome=outcome,
            reason=self.refused or self.error,
            method=self.method[:32],
            host=self.host,
            port=self.port,
            path=path,
            route=self.route,
            injected=self.injected,
            status=self.status,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            **({"finding": self.finding} if self.finding else {}),
            ms=round((time.monotonic() - self.started) * 1000, 1),
        )


def emit(event: str, *, outcome: Outcome | None = None, reason: str | None = None, **details: object) -> None:
    """Writes one audit line."""
    sys.stdout.write(audit_line.encode("egress", event, outcome=outcome, reason=reason, **details) + "\n")
    sys.stdout.flush()

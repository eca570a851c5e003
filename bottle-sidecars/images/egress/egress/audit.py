"""One JSON line on standard output for every request, without a secret and without a query's values."""

import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

# Longer paths are cut: a line is a record, not a channel.
_PATH_LIMIT = 1024


@dataclass(slots=True)
class Record:
    """What one request's line will say. `refused` names a rule of this proxy; `error` says why an exchange broke."""

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
    started: float = field(default_factory=time.monotonic)
    written: bool = False

    def count_up(self, chunk: bytes) -> bytes:
        self.bytes_up += len(chunk)
        return chunk

    def count_down(self, chunk: bytes) -> bytes:
        self.bytes_down += len(chunk)
        return chunk

    def write(self) -> None:
        """Write the line, once."""
        if self.written:
            return
        self.written = True
        path = self.path.split("?", 1)[0][:_PATH_LIMIT] if self.path is not None else None
        emit(
            "request",
            method=self.method[:32],
            host=self.host,
            port=self.port,
            path=path,
            route=self.route,
            injected=self.injected,
            status=self.status,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            ms=round((time.monotonic() - self.started) * 1000, 1),
            refused=self.refused,
            error=self.error,
        )


def emit(event: str, **fields: object) -> None:
    """Write one line. ASCII only, so that no byte of a request can forge a second one."""
    line = {"ts": now(), "event": event, **fields}
    sys.stdout.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")
    sys.stdout.flush()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Append-only log in which each line contains the hash of the line before it."""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.audit_line import timestamp

GENESIS = "0" * 64
MAX_EVENT_BYTES = 4 * 1024
MAX_TORN_BYTES = 30 * 1024
MAX_LOG_BYTES = 32 * 1024 * 1024
"""Largest size. Beyond it no proposal is accepted, because none may be accepted without a log line."""

_FIELDS = {"seq": int, "ts": str, "event": str, "data": dict, "prev": str, "hash": str}


class AuditError(Exception):
    """The log cannot be trusted or cannot be written."""


class LogFull(AuditError):
    """The log has reached its largest size."""


@dataclass(frozen=True)
class Entry:
    """One line of the log."""

    seq: int
    event: str
    data: dict[str, Any]
    hash: str


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of a value, which is what is hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(content: bytes) -> str:
    """Return the SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class AuditLog:
    """Writer of one log file. A lock on the file keeps a second writer out."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._now = now
        # Not O_APPEND, with which Linux would ignore the offset of the repair of a torn line.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise AuditError(f"failed to open `{path}`: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise AuditError(f"{path} is not a regular file")
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AuditError(f"{path} is in use by another server") from None
            content = _read_all(self._fd, path)
            whole = content.rfind(b"\n") + 1
            self.entries = parse_chain(content[:whole])
            self._size = whole
            if torn := content[whole:]:
                self._repair(torn)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line. 0 and zeros for an empty log."""
        return (self.entries[-1].seq, self.entries[-1].hash) if self.entries else (0, GENESIS)

    def append(self, event: str, data: dict[str, Any]) -> Entry:
        """Write one line and wait until it is on the disk."""
        seq, prev = self.head
        body = {"seq": seq + 1, "ts": timestamp(self._now()), "event": event, "data": data, "prev": prev}
        entry = Entry(seq + 1, event, data, digest(canonical(body)))
        line = canonical({**body, "hash": entry.hash}) + b"\n"
        if len(line) > MAX_EVENT_BYTES and event != "repaired":
            raise AuditError("the event is too large for one line")
        if self._size + len(line) > MAX_LOG_BYTES:
            raise LogFull("the audit log is full")
        try:
            written = os.pwrite(self._fd, line, self._size)
            if written != len(line):
                raise AuditError("the disk is full")
            os.fdatasync(self._fd)
        except (OSError, AuditError) as error:
            # A partial line is removed. If that fails too, the next line overwrites it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise AuditError(f"failed to write the audit log: {error}") from None
        self._size += len(line)
        self.entries.append(entry)
        return entry

    def close(self) -> None:
        """Close the file, which releases its lock."""
        os.close(self._fd)

    def _repair(self, torn: bytes) -> None:
        # A writer that was killed in the middle of a line leaves its beginning. The line that records those bytes
        # overwrites them. It is longer than they are.
        if len(torn) > MAX_TORN_BYTES:
            raise AuditError("the unfinished last line is longer than any line this server writes")
        self.append("repaired", {"torn": torn.hex()})


def parse_chain(content: bytes) -> list[Entry]:
    """Return the entries of a log of whole lines. Raises AuditError with the first line that is wrong."""
    entries: list[Entry] = []
    prev = GENESIS
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line)
            spelled_well = canonical(fields) == line
        except (ValueError, RecursionError):
            raise AuditError(f"line {number} is not JSON") from None
        if not isinstance(fields, dict) or {k: type(v) for k, v in fields.items()} != _FIELDS:
            raise AuditError(f"line {number} does not have the fields of an entry")
        if not spelled_well:
            raise AuditError(f"line {number} is not canonical JSON")
        claimed = fields.pop("hash")
        if fields["seq"] != number or fields["prev"] != prev or claimed != digest(canonical(fields)):
            raise AuditError(f"line {number} does not continue the chain")
        prev = claimed
        entries.append(Entry(number, fields["event"], fields["data"], claimed))
    return entries


def _read_all(fd: int, path: Path) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        content = file.read(MAX_LOG_BYTES + 1)
    if len(content) > MAX_LOG_BYTES:
        raise AuditError(f"{path} is larger than any log this server writes")
    return content

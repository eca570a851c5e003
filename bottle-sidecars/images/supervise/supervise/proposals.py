"""Queue of proposals, which this server writes, and decisions, which only the host can write."""

import base64
import contextlib
import json
import os
import re
import secrets
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import audit_line
from sidecar.audit_line import Outcome as LineOutcome
from sidecar.audit_line import timestamp

from .audit import AuditError, AuditLog, LogFull, canonical, digest

VERSION = 1
ID_PATTERN = r"[0-9]{13}-[a-z2-7]{16}"
MAX_PENDING = 20
MAX_PER_MINUTE = 10
MAX_EVER = 1000
MAX_FILE_BYTES = 64 * 1024
_REFUSALS_LOGGED_PER_MINUTE = 10
# Limits of a text and of a change in a line, so that the engine does not cut the line at 16 KiB.
_SHOWN_CHARACTERS = 300
_SHOWN_BYTES = 4096


class QueueError(Exception):
    """The queue cannot be used at all."""


class Refused(Exception):
    """A proposal was refused. The message gives the reason and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Proposal:
    """Proposal that this server wrote. The hash is that of the file's bytes."""

    id: str
    kind: str
    change: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """State of a proposal: `pending`, `approved`, `denied`, or `changed` (a decision on it does not count)."""

    state: str
    reason: str = ""
    applied: dict[str, str] | None = None
    by: dict[str, Any] | None = None
    """The decider. None in a decision of an older launcher."""
    ends: dict[str, Any] | None = None
    """End of an approval that has one."""


PENDING = Outcome("pending")


class Queue:
    """All proposals of one bottle. For one thread of one process; the audit log's lock keeps a second process out."""

    def __init__(self, queue_dir: Path, decisions_dir: Path, slug: str, now: Callable[[], float] = time.time) -> None:
        self._dir = queue_dir / "proposals"
        self._decisions = decisions_dir
        self._slug = slug
        self._now = now
        self._proposals: dict[str, Proposal] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._recent: deque[float] = deque()
        self._refusals: deque[float] = deque()
        self._refusals_unlogged = 0
        try:
            self._dir.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise QueueError(f"failed to create `{self._dir}` as uid {os.getuid()}: {error.strerror}") from None
        try:
            self._audit = AuditLog(queue_dir / "audit.jsonl", now)
            self._load()
            self._log("started", {"pending": len(self.pending()), "slug": slug})
        except AuditError as error:
            raise QueueError(str(error)) from None

    def propose(self, kind: str, change: dict[str, Any], reason: str) -> tuple[Proposal, bool]:
        """Queue a change, or return the pending proposal of the same change. The flag is true for a new proposal."""
        for proposal in self.pending():
            if proposal.kind == kind and proposal.change == change:
                return proposal, False
        self._admit()

        now = self._now()
        proposal_id = self._new_id(now)
        content = canonical(
            {
                "version": VERSION,
                "id": proposal_id,
                "kind": kind,
                "created": timestamp(now),
                "slug": self._slug,
                "agent_reason": reason,
                "change": change,
            }
        )
        if len(content) > MAX_FILE_BYTES:
            raise Refused("too-large", "the proposal is too large; make it smaller")
        proposal = Proposal(proposal_id, kind, change, digest(content))
        try:
            # The log is written first. A proposal file whose hash is not in the log was not written by this server.
            data = {"id": proposal.id, "kind": kind, "sha256": proposal.sha256}
            self._log("proposed", data, {**_shown(change), "agent_reason": reason[:_SHOWN_CHARACTERS]})
            self._write(proposal.id, content)
        except LogFull:
            raise Refused("log-full", "the audit log is full; a person has to start a new bottle") from None
        except (AuditError, OSError):
            raise Refused("disk", "the queue cannot be written; a person has to look at the bottle's disk") from None
        self._proposals[proposal.id] = proposal
        self._recent.append(now)
        return proposal, True

    def outcome(self, proposal_id: str) -> Outcome | None:
        """Return the state of a proposal. None if it does not exist. Cheap until there is a decision."""
        proposal = self._proposals.get(proposal_id)
        if proposal is None:
            return None
        known = self._outcomes.get(proposal_id)
        if known is not None:
            return known
        content = _read(self._decisions / f"{proposal_id}.json")
        if content is None:
            return PENDING
        outcome = self._judge(proposal, content)
        self._settle(proposal, outcome, content)
        return outcome

    def pending(self) -> list[Proposal]:
        """Return the proposals that wait for a decision, oldest first."""
        return [
            proposal
            for proposal in self._proposals.values()
            if proposal.id not in self._outcomes and self.outcome(proposal.id) is PENDING
        ]

    def find(self, proposal_id: str) -> Proposal | None:
        """Return the proposal with this id."""
        return self._proposals.get(proposal_id)

    def note_refusal(self, tool: str, code: str) -> None:
        """Log that a call was refused. Above the limit per minute refusals are counted only, to save the disk."""
        now = self._now()
        _forget_before(self._refusals, now - 60)
        if len(self._refusals) >= _REFUSALS_LOGGED_PER_MINUTE:
            self._refusals_unlogged += 1
            return
        try:
            self._log("refused", {"tool": tool, "code": code, "unlogged_before": self._refusals_unlogged})
        except AuditError:
            return
        self._refusals.append(now)
        self._refusals_unlogged = 0

    def close(self) -> None:
        """Log the decisions that nobody asked for, and the end. Close the log."""
        self.pending()
        with contextlib.suppress(AuditError):
            self._log("stopped", {})
        self._audit.close()

    def _log(self, event: str, data: dict[str, Any], shown: dict[str, Any] | None = None) -> None:
        # The chained log is the evidence. The line is for whoever follows the output of all sidecars. Only the line has
        # `shown`, since the chain has the hash of the file that it comes from.
        self._audit.append(event, data)
        outcome, reason = _told(event, data)
        fields = {"slug": self._slug, **data, **(shown or {})}
        line = audit_line.encode("supervise", event, outcome=outcome, reason=reason, **fields)
        with contextlib.suppress(OSError):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    def _admit(self) -> None:
        _forget_before(self._recent, self._now() - 60)
        if len(self.pending()) >= MAX_PENDING:
            raise Refused("full", f"{MAX_PENDING} proposals wait for a person; wait for their decisions")
        if len(self._recent) >= MAX_PER_MINUTE:
            raise Refused("rate", f"more than {MAX_PER_MINUTE} proposals in a minute; wait a minute")
        if len(self._proposals) >= MAX_EVER:
            raise Refused("ever", f"this bottle has made {MAX_EVER} proposals, which is the limit")

    def _new_id(self, now: float) -> str:
        # Increasing even within a millisecond or when the clock is set back. 80 random bits make it unguessable.
        last = int(next(reversed(self._proposals))[:13]) if self._proposals else 0
        milliseconds = max(int(now * 1000), last + 1)
        return f"{milliseconds:013d}-{base64.b32encode(secrets.token_bytes(10)).decode().lower()}"

    def _write(self, proposal_id: str, content: bytes) -> None:
        temporary = self._dir / f".{proposal_id}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, self._dir / f"{proposal_id}.json")
        _sync_dir(self._dir)

    def _judge(self, proposal: Proposal, content: bytes) -> Outcome:
        try:
            decision = json.loads(content)
            verdict, bound_to = decision["decision"], decision["proposal_sha256"]
            reason, applied = str(decision.get("reason", "")), decision.get("applied")
            valid = decision["version"] == VERSION and decision["id"] == proposal.id
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # The host writes files atomically, so a later read gives the same. The file decides nothing.
            return Outcome("changed", "the decision file cannot be read")
        if not valid or verdict not in ("approved", "denied"):
            return Outcome("changed", "the decision file is not one for this proposal")
        if bound_to != proposal.sha256:
            return Outcome("changed", "the decision was made on other contents than what was proposed")
        written = _read(self._dir / f"{proposal.id}.json")
        if written is None or digest(written) != proposal.sha256:
            return Outcome("changed", "the proposal file is no longer what was proposed")
        ends = applied.get("ends") if isinstance(applied, dict) else None
        if isinstance(applied, dict):
            applied = {key: str(applied.get(key, "")) for key in ("status", "detail")}
        else:
            applied = None
        return Outcome(verdict, reason, applied, decision.get("by"), ends)

    def _settle(self, proposal: Proposal, outcome: Outcome, content: bytes) -> None:
        self._outcomes[proposal.id] = outcome
        shown: dict[str, Any] = {"kind": proposal.kind, **_shown(proposal.change)}
        if outcome.reason:
            shown["decision_reason"] = outcome.reason[:_SHOWN_CHARACTERS]
        if outcome.applied:
            shown["applied"] = {key: text[:_SHOWN_CHARACTERS] for key, text in outcome.applied.items()}
        if outcome.by:
            shown["by"] = outcome.by
        if outcome.ends:
            shown["ends"] = outcome.ends
        # The decision is in the host's own log. A full disk here must not hide it from the agent.
        with contextlib.suppress(AuditError):
            self._log(
                "settled",
                {
                    "id": proposal.id,
                    "state": outcome.state,
                    "decision_sha256": digest(content),
                },
                shown,
            )

    def _load(self) -> None:
        recorded = {e.data["id"]: e.data for e in self._audit.entries if e.event == "proposed"}
        reported = {e.data["id"] for e in self._audit.entries if e.event == "lost"}
        settled = {e.data["id"] for e in self._audit.entries if e.event == "settled"}
        for proposal_id, data in recorded.items():
            content = _read(self._dir / f"{proposal_id}.json")
            if content is not None and digest(content) == data["sha256"]:
                change = json.loads(content)["change"]
                self._proposals[proposal_id] = Proposal(proposal_id, data["kind"], change, data["sha256"])
            elif content is not None:
                self._proposals[proposal_id] = Proposal(proposal_id, data["kind"], {}, data["sha256"])
                self._outcomes[proposal_id] = Outcome("changed", "the proposal file is no longer what was proposed")
            elif proposal_id not in reported:
                # The process was killed between log and file: neither the agent nor a person saw this proposal.
                self._log("lost", {"id": proposal_id})
        for proposal_id in settled & self._proposals.keys() - self._outcomes.keys():
            decision = _read(self._decisions / f"{proposal_id}.json")
            if decision is not None:
                self._outcomes[proposal_id] = self._judge(self._proposals[proposal_id], decision)
        for name in os.listdir(self._dir):
            if name.startswith(".") and re.fullmatch(ID_PATTERN, name[1:]):
                (self._dir / name).unlink()
        minute_ago = self._now() - 60
        self._recent.extend(t for t in (int(i[:13]) / 1000 for i in self._proposals) if t > minute_ago)


def _shown(change: dict[str, Any]) -> dict[str, Any]:
    """Return the change for a line. A long one, such as a patch, is only in the proposal's file."""
    return {"change": change} if len(json.dumps(change)) <= _SHOWN_BYTES else {}


def _told(event: str, data: dict[str, Any]) -> tuple[LineOutcome | None, str | None]:
    """Return the common fields `outcome` and `reason` for an event's line."""
    match event, data.get("state"):
        case "settled", "approved":
            return "done", None
        case "settled", "denied":
            return "refused", "denied"
        case "settled", _:
            return "failed", "changed"
        case "lost", _:
            return "failed", "lost"
        case "refused", _:
            return "refused", data["code"]
        case _:
            return None, None


def _forget_before(times: deque[float], limit: float) -> None:
    while times and times[0] < limit:
        times.popleft()


def _read(path: Path) -> bytes | None:
    """Return the content of a regular file up to the size limit. None for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            return None
        content = file.read(MAX_FILE_BYTES + 1)
    return content if len(content) <= MAX_FILE_BYTES else None


def _sync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

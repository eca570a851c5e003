"""The search for credentials in one request, with its audit line and its refusal."""

import time
from collections.abc import Iterable

from . import audit
from .dlp import BLOCK, TOO_MUCH, Detector, Finding, FrameScan, Scan, Target, find_in_head
from .labels import Names
from .policy import Refusal


class Guard:
    """Searches the parts of one request. After the first finding, nothing more is searched."""

    def __init__(
        self, detector: Detector, target: Target, mode: str, record: audit.Record, names: Names | None = None
    ) -> None:
        """`names` judges the host's name. None: the manifest has this very name; the agent did not choose it."""
        self._detector = detector
        self._target = target
        self._names = names
        self._blocks = mode == BLOCK
        self._record = record
        self._done = False
        self._body: Scan | None = None
        self._frames = FrameScan(detector, target)

    def head(self, url: bytes, headers: Iterable[tuple[bytes, bytes]], encoding: str) -> Refusal | None:
        """Judges the URL and the headers. The encoding is that of the body that follows."""
        self._body = Scan(self._detector, self._target, encoding, hold=self._blocks)
        if self._names and self._names.refuses(self._target.host, time.monotonic()):
            return self._judge(Finding("encoded-data", "host"))
        return self._judge(find_in_head(self._detector, url, headers, self._target))

    def body(self, piece: bytes, *, last: bool) -> bytes | Refusal:
        """Returns the bytes of the body that may be sent now."""
        if self._done or self._body is None:
            return piece
        sent = self._body.feed(piece, last=last)
        refusal = self._judge(self._body.finding)
        # Without a refusal nothing was held back.
        return refusal or (piece if self._body.finding else sent)

    def frames(self, data: bytes) -> Refusal | None:
        """Judges the next bytes of a WebSocket client."""
        if self._done:
            return None
        self._frames.feed(data)
        return self._judge(self._frames.finding)

    def _judge(self, found: Finding | None) -> Refusal | None:
        if found is None:
            return None
        self._done = True
        self._record.finding = {"pattern": found.pattern, "place": found.place}
        if found.place == "url":
            self._record.path = None
        if not self._blocks:
            return None
        host = self._target.host
        message = (
            f"this request holds a credential ({found.pattern}, {found.place}), which may not be sent to {host}; send "
            f"it without, or ask a person to set `dlp: off` for {host} in the bottle's manifest"
        )
        if found.place == "host":
            message = f"{host} looks like encoded data, or like one part of it; ask a person to allow exactly this name"
        elif found.pattern == TOO_MUCH:
            message = (
                f"the search of this request for credentials takes too long ({TOO_MUCH}, {found.place}): it holds too "
                "many prefixes of tokens, or too much encoded text; send it in smaller requests, or ask a person to "
                f"set `dlp: off` for {host} in the bottle's manifest"
            )
        refusal = Refusal(403, "dlp", message)
        self._record.status, self._record.refused = refusal.status, refusal.rule
        return refusal

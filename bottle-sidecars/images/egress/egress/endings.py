"""The ends of approvals, told once each."""

import asyncio
import time
from collections.abc import Callable

from . import audit
from .routes import Ending, Table

_LOOK_SECONDS = 1.0


class Endings:
    """Writes a line when the approval of a host has ended: its time is over, or its one request was made."""

    def __init__(self, table: Callable[[], Table], spent: set[str]) -> None:
        self._table = table
        self._spent = spent
        self._told: set[str] = set()
        # The host's process may remove an approval from the table before the next look.
        self._open: dict[str, Ending] = {}

    async def watch(self) -> None:
        """Looks until it is cancelled."""
        while True:
            self.look(time.time())
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self, now: float) -> None:
        """Writes the line of each approval that has ended since the last call."""
        listed = self._table().temporary
        for host, ending in {**self._open, **listed}.items():
            if not self._is_over(ending, now) or ending.proposal in self._told:
                continue
            self._told.add(ending.proposal)
            audit.emit(
                "approval-ended",
                outcome="done",
                host=host,
                id=ending.proposal,
                until=ending.until,
                once=ending.once,
            )
        # One that is gone before its end was replaced by an approval without an end.
        self._open = {host: ending for host, ending in listed.items() if not self._is_over(ending, now)}

    def _is_over(self, ending: Ending, now: float) -> bool:
        return now >= ending.until or ending.proposal in self._spent

"""The budget of a bottle: the number of its requests and bytes, counted here, and refused beyond a limit."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from . import audit
from .policy import Refusal
from .routes import Limits

# Directory of a volume that outlives a stop of the bottle.
_DATA = Path("/var/lib/sidecar")
# Shortest time in seconds between two writes of the file.
_PAUSE = 1.0


def place(credentials: Path) -> Path:
    """Returns the path of the file: on the volume or, without one, among the credentials in memory."""
    return _DATA / "usage" if _DATA.is_mount() else credentials / ".usage"


class Budget:
    """Use of the limits of a bottle. If the file's directory is there, it outlives a restart of this process."""

    def __init__(self, path: Path, limits: Callable[[], Limits]) -> None:
        self._path, self._limits = path if path.parent.is_dir() else None, limits
        self._used = {"requests": 0, "bytes": 0}
        self._active = time.time()
        self._written = 0.0
        self._told: set[tuple[str, int, str]] = set()
        try:
            kept = json.loads(path.read_text("ascii"))
            self._used = {name: int(kept[name]) for name in self._used}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Nobody but this process writes the file.
            audit.emit("usage-lost", outcome="failed", reason=type(error).__name__)
        self._news()  # told before the restart
        self._write()

    def refusal(self) -> Refusal | None:
        """Returns the refusal of a request for which nothing is left."""
        for name, used in self._used.items():
            limit = self._limits().of(name)
            if limit is not None and used >= limit:
                message = f"the bottle has used the {limit} {name} that it may (`limits.{name}`); nothing more passes"
                return Refusal(403, "limit", message)
        return None

    def request(self, size: int) -> None:
        """Counts a request that passes, and the bytes of its head."""
        self._used["requests"] += 1
        self.transfer(size)
        if self._limits().of("requests") is not None:
            # Not one request less, however this process ends.
            self._write()

    def transfer(self, size: int) -> bool:
        """Counts bytes in either direction. Returns false if there is no budget for more."""
        self._used["bytes"] += size
        self._active = time.time()
        self._tell()
        if time.monotonic() - self._written > _PAUSE:
            self._write()
        limit = self._limits().bytes
        return limit is None or self._used["bytes"] <= limit

    def _tell(self) -> None:
        """Writes a line for each limit that is near or reached, once."""
        if news := self._news():
            self._write()
        for event, name, used, limit in news:
            audit.emit(event, limit=name, used=used, allowed=limit)

    def _news(self) -> list[tuple[str, str, int, int]]:
        """Returns each limit that is near or reached, with what was used, once. What is reached was near before."""
        news = []
        for name, used in self._used.items():
            limit = self._limits().of(name)
            if limit is None:
                continue
            near = limit - max(1, limit // 10)
            for event, mark in (("limit-near", near), ("limit-reached", limit)):
                if 0 < mark <= used and (name, limit, event) not in self._told:
                    self._told.add((name, limit, event))
                    news.append((event, name, mark if mark < limit <= used else used, limit))
        return news

    def _write(self) -> None:
        """Writes the file. The launcher reads it too."""
        self._written = time.monotonic()
        if self._path is None:
            return
        beside = self._path.with_name(f"{self._path.name}.new")
        beside.write_text(json.dumps(self._used | {"active": self._active}) + "\n", encoding="ascii")
        os.replace(beside, self._path)

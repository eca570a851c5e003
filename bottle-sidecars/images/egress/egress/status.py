"""The routing table in force, its reload, and the file that says which one it is."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from sidecar.audit_line import timestamp

from . import audit
from .routes import RoutesError, Table
from .settings import SettingsError, read_routes

STATUS = Path("/tmp/egress-status.json")


class Current:
    """The table in force. A reload that fails changes nothing but the status."""

    def __init__(self, path: Path, environment: Mapping[str, str], status: Path = STATUS) -> None:
        """Load the table for the first time.

        Raises:
            SettingsError: the file cannot be used.
        """
        self._path, self._environment, self._status = path, environment, status
        digest, loaded = read_routes(path, environment)
        if isinstance(loaded, RoutesError):
            raise SettingsError(f"{path}: {loaded}")
        self._take(digest, loaded)

    def table(self) -> Table:
        return self._table

    def reload(self) -> None:
        """Read the file again and take it if it is right."""
        try:
            digest, loaded = read_routes(self._path, self._environment)
        except SettingsError as error:
            self._reject(None, str(error))
            return
        if isinstance(loaded, RoutesError):
            self._reject(digest, f"{self._path}: {loaded}")
            return
        self._take(digest, loaded)
        audit.emit("reload", outcome="done", routes_sha256=self._digest, routes=len(self._table.routes))

    def _reject(self, seen: str | None, error: str) -> None:
        self._write_status(seen, error)
        audit.emit("reload", outcome="failed", reason=error, routes_sha256=self._digest)

    def _take(self, digest: str, table: Table) -> None:
        self._table, self._digest, self._loaded_at = table, digest, timestamp()
        self._write_status(digest, None)

    def _write_status(self, seen: str | None, error: str | None) -> None:
        """`routes_sha256` is of the table in force, `seen_sha256` of the file that was read last: they differ, and
        `error` says why, when the file was not taken."""
        status = {
            "routes_sha256": self._digest,
            "loaded_at": self._loaded_at,
            "seen_sha256": seen,
            "error": error,
        }
        beside = self._status.with_suffix(".new")
        beside.write_text(json.dumps(status) + "\n", encoding="utf-8")
        os.replace(beside, self._status)

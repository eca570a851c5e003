"""The routing table in force, its reload, and the status file."""

import json
import os
from pathlib import Path

from sidecar.audit_line import timestamp
from sidecar.credentials import Credentials

from . import audit
from .routes import RoutesError, Table
from .settings import SettingsError, read_routes

STATUS = Path("/tmp/egress-status.json")


class Current:
    """The table in force. A reload that fails changes nothing but the status."""

    def __init__(self, path: Path, credentials: Credentials, status: Path = STATUS) -> None:
        """Loads the table for the first time.

        Raises:
            SettingsError: the file cannot be used.
        """
        self._path, self._credentials, self._status = path, credentials, status
        digest, loaded = read_routes(path)
        if isinstance(loaded, RoutesError):
            raise SettingsError(f"{path}: {loaded}")
        self._take(digest, loaded)

    def table(self) -> Table:
        return self._table

    def reload(self) -> None:
        """Reads the file again and replaces the table if the file is valid."""
        try:
            digest, loaded = read_routes(self._path)
        except SettingsError as error:
            self._reject(None, str(error))
            return
        if isinstance(loaded, RoutesError):
            self._reject(digest, f"{self._path}: {loaded}")
            return
        # The launcher gives values once. A new slot would stay empty.
        added = sorted(loaded.slots() - self._table.slots())
        if missing := [slot for slot in added if self._credentials.read(slot) is None]:
            self._reject(digest, f"{self._path}: {missing[0]} has no value")
            return
        self._take(digest, loaded)
        audit.emit("reload", outcome="done", routes_sha256=self._digest, routes=len(self._table.routes))

    def _reject(self, seen: str | None, error: str) -> None:
        self._write_status(seen, error)
        audit.emit("reload", outcome="failed", reason=error, routes_sha256=self._digest)

    def _take(self, digest: str, table: Table) -> None:
        if table.searches and all(map(self._credentials.read, table.slots())):
            # Made now, so that no request waits for it.
            table.detector(self._credentials)
        self._table, self._digest, self._loaded_at = table, digest, timestamp()
        self._write_status(digest, None)

    def _write_status(self, seen: str | None, error: str | None) -> None:
        """Writes the status file.

        `routes_sha256` is the hash of the table in force, `seen_sha256` that of the file read last. If that file was
        invalid, `error` has the reason.
        """
        status = {
            "routes_sha256": self._digest,
            "loaded_at": self._loaded_at,
            "seen_sha256": seen,
            "error": error,
        }
        beside = self._status.with_suffix(".new")
        beside.write_text(json.dumps(status) + "\n", encoding="utf-8")
        os.replace(beside, self._status)

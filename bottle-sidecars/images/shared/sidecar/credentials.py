"""Credentials of a sidecar: one file per slot, in a directory in memory.

The launcher writes the files when the container runs, and may replace them later. It writes each under another name and
renames it, so a file is complete whenever it is there. If the values are in the container's environment instead
(`secrets: environment` in the manifest), the sidecar moves them to the directory before it starts another process.
"""

import os
import re
from collections.abc import Iterable, MutableMapping
from pathlib import Path

DIRECTORY = Path("/run/credentials")
# Time in seconds that a request waits for a missing credential.
WAIT_SECONDS = 10.0
PAUSE_SECONDS = 0.05

# Visible ASCII, with spaces only inside: what a header can carry.
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")


class CredentialError(ValueError):
    """Error of a value in the environment. The message names the slot and contains no value."""


class Credentials:
    """The credentials in a directory. Nothing is kept, so a replaced file takes effect at once."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory

    def path(self, slot: str) -> Path:
        return self.directory / slot

    def read(self, slot: str) -> str | None:
        """Return the value of a slot, or None if there is no usable one."""
        try:
            value = self.path(slot).read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return None
        return value if _VALUE.match(value) else None

    def take_from(self, environment: MutableMapping[str, str], slots: Iterable[str]) -> None:
        """Move the values of the slots from the environment to files. An unset slot is left out.

        Raises:
            CredentialError: a value is empty or no header can carry it.
        """
        for slot in slots:
            value = environment.pop(slot, None)
            if value is None:
                continue
            if not _VALUE.match(value):
                problem = "has characters that no header can carry" if value else "is empty"
                raise CredentialError(f"the value of {slot} {problem}")
            beside = self.directory / f".{slot}"
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(value)
            os.replace(beside, self.path(slot))

"""Settings from the environment, and limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.grammar import GRAMMARS

MAX_WAIT_SECONDS = 50
"""Longest wait of a call for a decision: less than the 60 seconds after which common MCP clients time out."""
MAX_BODY_BYTES = 128 * 1024
MAX_CONNECTIONS = 64


class SettingsError(Exception):
    """A variable that is missing or malformed."""


@dataclass(frozen=True)
class Settings:
    """Settings that differ between bottles."""

    slug: str
    port: int = 9100
    wait_seconds: float = MAX_WAIT_SECONDS
    queue_dir: Path = Path("/queue")
    decisions_dir: Path = Path("/decisions")
    config_dir: Path = Path("/config")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Read `SUPERVISE_*`."""
        slug = env.get("SUPERVISE_BOTTLE_SLUG", "")
        if not GRAMMARS["slug"].accepts(slug):
            raise SettingsError("SUPERVISE_BOTTLE_SLUG must be the bottle's slug")
        port = env.get("SUPERVISE_PORT", str(cls.port))
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise SettingsError("SUPERVISE_PORT must be a port number")
        wait = env.get("SUPERVISE_WAIT_SECONDS", str(MAX_WAIT_SECONDS))
        if not re.fullmatch(r"[0-9]{1,2}", wait) or int(wait) > MAX_WAIT_SECONDS:
            raise SettingsError(f"SUPERVISE_WAIT_SECONDS must be a whole number up to {MAX_WAIT_SECONDS}")
        return cls(
            slug=slug,
            port=int(port),
            wait_seconds=int(wait),
            queue_dir=Path(env.get("SUPERVISE_QUEUE_DIR", cls.queue_dir)),
            decisions_dir=Path(env.get("SUPERVISE_DECISIONS_DIR", cls.decisions_dir)),
            config_dir=Path(env.get("SUPERVISE_CONFIG_DIR", cls.config_dir)),
        )

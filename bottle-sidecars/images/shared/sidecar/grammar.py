"""Grammars of hosts, paths, names and other values, generated from the Rust types that parse a manifest."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Grammar:
    """Grammar of one kind of value."""

    accepted: str
    max_length: int
    pattern: re.Pattern[str]
    never: re.Pattern[str] | None

    def accepts(self, text: str) -> bool:
        """Return true if the Rust type parses the text."""
        if len(text) > self.max_length or not self.pattern.fullmatch(text):
            return False
        return self.never is None or not self.never.search(text)


def _load() -> dict[str, Grammar]:
    entries = json.loads(Path(__file__).with_name("grammar.json").read_text(encoding="utf-8"))
    return {
        name: Grammar(
            entry["accepted"],
            entry["max_length"],
            re.compile(entry["pattern"], re.ASCII),
            re.compile(entry["never"], re.ASCII) if entry["never"] else None,
        )
        for name, entry in entries.items()
    }


GRAMMARS = _load()

"""Finds data in the names of hosts that the agent chose: a look-up alone sends it to the domain's owner. Pure."""

import re
from collections import OrderedDict, deque

# A label in hexadecimal. Words have no digits, and the random names that hosting services give have other letters.
_HEXADECIMAL = re.compile(r"(?=(?:[a-f]*[0-9]){3})(?=(?:[0-9]*[a-f]){3})[0-9a-f]{16,}\Z")
_RUN = re.compile(r"[a-z0-9]+")
# Words have neither a digit nor five consonants in a row. Text in base 16, 32 or 36, and numbers, nearly always do.
_CODED = re.compile(r"[0-9]|[bcdfghjklmnpqrstvwxz]{5}")
# The longest names that services give have 33 such characters: the id of a function at a cloud, with its region.
_MAX_CODED = 35

# A name counts as one of many from this number of such characters on.
_MIN_COUNTED = 8
_MAX_NAMES = 32
_SECONDS = 3600
_MAX_DOMAINS = 256


def coded(host: str) -> int:
    """Returns the number of characters of a name, without its last two labels, that are in no word."""
    labels = ".".join(host.split(".")[:-2])
    return sum(len(run) for run in _RUN.findall(labels) if _CODED.search(run))


def holds_data(host: str) -> bool:
    """Returns true if a name has more such characters than one that a service gives."""
    return coded(host) > _MAX_CODED or any(_HEXADECIMAL.match(label) for label in host.split(".")[:-2])


class Names:
    """The names that look a little like data, of which a domain has a limited number in an hour.

    The least recent domain is forgotten beyond 256 of them, so that the agent cannot fill the memory.
    """

    def __init__(self) -> None:
        self._domains: OrderedDict[str, deque[tuple[str, float]]] = OrderedDict()

    def refuses(self, host: str, now: float) -> bool:
        """Returns true if the name holds data, or is one too many. `now` is in seconds and never decreases."""
        if coded(host) < _MIN_COUNTED:
            return False
        if holds_data(host):
            return True
        domain = ".".join(host.split(".")[-2:])
        names = self._domains.setdefault(domain, deque())
        self._domains.move_to_end(domain)
        if len(self._domains) > _MAX_DOMAINS:
            self._domains.popitem(last=False)
        while names and now - names[0][1] > _SECONDS:
            names.popleft()
        if any(name == host for name, _ in names):
            return False
        if len(names) >= _MAX_NAMES:
            return True
        names.append((host, now))
        return False

"""Masks a credential in answers, because some services echo parts of a request, for example in an error message."""

import base64
import re
from collections.abc import Iterable
from functools import cache
from html.entities import html5

# A part of the secret that all its spellings have, and that is searched for first: letters and digits.
_RUN = re.compile(rb"[A-Za-z0-9]+")
_MIN_RUN, _MAX_RUN = 4, 24
# A shorter text is searched for as it is only: its encodings would be found by chance.
_MIN_ENCODED = 6

# The number of bytes by which the begin of a spelling is looked up before it is compared.
_PROBE = 4

# The ways in which a character can be escaped, in lower case: in URLs once and twice, in HTML, in JSON and JavaScript.
_ESCAPES = (b"%%%02x", b"%%25%02x", b"&#%d;", b"&#x%x;", b"\\u%04x", b"\\x%02x")
_ENTITIES: dict[str, list[bytes]] = {}
for _name, _character in html5.items():
    if _name.endswith(";") and len(_character) == 1 and _character.isascii():
        _ENTITIES.setdefault(_character, []).append(b"&" + _name.lower().encode("ascii"))
# Base64 has a second alphabet, for URLs.
_URL_SAFE = {ord("+"): ord("-"), ord("/"): ord("_")}


class Spellings:
    """The texts in which a secret can be recognised.

    These are the secret as it is, and in hexadecimal and base64, the latter for each of the three positions in which it
    can begin in an encoded text. Signs can be escaped, and in the secret itself letters and digits too, but of the part
    that is searched for either all or none. Letters can be in either case.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._patterns = [pattern for secret in secrets for pattern in _patterns(secret)]
        self.longest = max((pattern.longest for pattern in self._patterns), default=0)
        self._begins = frozenset(begin for pattern in self._patterns for begin in pattern.begins_of(_PROBE))
        first = b"".join(re.escape(begin) for begin in sorted({begin[:1] for begin in self._begins}))
        self._first = re.compile(b"[" + first + b"]" if first else b"(?!)")

    def find(self, lower: bytes) -> list[tuple[int, int]]:
        """Returns begin and end of each spelling in a text in lower case."""
        return [place for pattern in self._patterns for place in pattern.find(lower)]

    def unfinished(self, lower: bytes) -> int:
        """Returns the number of bytes at the end of a text with which a spelling could begin.

        The last `longest` bytes of the text are enough.
        """
        end = len(lower)
        for found in self._first.finditer(lower):
            at = found.start()
            if end - at >= _PROBE and lower[at : at + _PROBE] not in self._begins:
                continue
            if any(pattern.begins(lower, at) for pattern in self._patterns):
                return end - at
        return 0


class _Pattern:
    """A text whose characters can be escaped one by one. All spellings are in lower case."""

    def __init__(self, text: bytes, *, encoded: bool = False) -> None:
        self.characters = [_spellings(character, encoded) for character in text]
        self.longest = sum(max(map(len, spellings)) for spellings in self.characters)
        run = max(_RUN.finditer(text), key=lambda found: len(found[0]), default=None)
        begin, end = run.span() if run and len(run[0]) >= _MIN_RUN else (0, len(text))
        end = min(end, begin + _MAX_RUN)
        self._before, self._after = self.characters[:begin][::-1], self.characters[end:]
        part = text[begin:end].lower()
        self._parts = {part}
        if not encoded:
            self._parts |= {b"".join(escape % character for character in text[begin:end]) for escape in _ESCAPES}

    def find(self, lower: bytes) -> Iterable[tuple[int, int]]:
        for part in self._parts:
            at = lower.find(part)
            while at >= 0:
                begins, ends = self._back(lower, at), self._on(lower, at + len(part))
                if begins and ends:
                    yield min(begins), max(ends)
                at = lower.find(part, at + 1)

    def _back(self, lower: bytes, at: int) -> set[int]:
        places = {at}
        for spellings in self._before:
            places = {p - len(s) for p in places for s in spellings if lower.endswith(s, 0, p)}
            if not places:
                break
        return places

    def _on(self, lower: bytes, at: int) -> set[int]:
        places = {at}
        for spellings in self._after:
            places = {p + len(s) for p in places for s in spellings if lower.startswith(s, p)}
            if not places:
                break
        return places

    def begins_of(self, length: int) -> set[bytes]:
        """Returns the first bytes of every spelling."""
        begins = {b""}
        for spellings in self.characters[:length]:
            begins = {begin + spelling for begin in begins for spelling in spellings}
            begins = {begin[:length] for begin in begins}
        return begins

    def begins(self, lower: bytes, at: int) -> bool:
        """Returns true if the text from here to its end is the begin of a spelling."""
        places, end = {at}, len(lower)
        for spellings in self.characters:
            if end in places:
                return True
            reached: set[int] = set()
            for p in places:
                rest = lower[p : p + 32]
                for spelling in spellings:
                    if rest.startswith(spelling):
                        reached.add(p + len(spelling))
                    elif end - p < len(spelling) and spelling.startswith(rest):
                        return True
            if not reached:
                return False
            places = reached
        return False


def _patterns(secret: bytes) -> Iterable[_Pattern]:
    yield _Pattern(secret)
    if len(secret) < _MIN_ENCODED:
        return
    yield _Pattern(secret.hex().encode("ascii"), encoded=True)
    for shift in range(3):
        # The characters that also depend on what is before or after the secret are left out.
        encoded = base64.b64encode(bytes(shift) + secret)
        yield _Pattern(encoded[(shift * 8 + 5) // 6 : (shift + len(secret)) * 8 // 6], encoded=True)


@cache
def _spellings(character: int, encoded: bool) -> tuple[bytes, ...]:
    """Returns the spellings of one character, in lower case."""
    plain = bytes([character]).lower()
    if encoded and plain.isalnum():
        return (plain,)
    every = {plain, *(escape % code for escape in _ESCAPES for code in {character, *plain, *plain.upper()})}
    if not plain.isalnum():
        every |= {b"\\" + plain, *_ENTITIES.get(chr(character), ())}
    if plain == b" ":
        every.add(b"+")
    if encoded and character in _URL_SAFE:
        every.update(_spellings(_URL_SAFE[character], False))
    return tuple(every)


class Mask:
    """Overwrites the spellings of secrets in a stream of chunks with asterisks, without a change of length.

    The end of a chunk is held back only if a spelling could begin there, so that events pass at once.
    """

    def __init__(self, spellings: Spellings) -> None:
        self._spellings = spellings
        self._held = b""

    def whole(self, data: bytes) -> bytes:
        if not (places := self._spellings.find(data.lower())):
            return data
        covered = bytearray(data)
        for begin, end in places:
            covered[begin:end] = b"*" * (end - begin)
        return bytes(covered)

    def feed(self, chunk: bytes) -> bytes:
        """Returns the bytes that may be passed on now. An empty chunk is the end, and returns what was held."""
        data = self._held + chunk if self._held else chunk
        data = self.whole(data)
        keep = self._spellings.unfinished(data[-self._spellings.longest :].lower()) if chunk else 0
        self._held = data[len(data) - keep :] if keep else b""
        return data[: len(data) - keep] if keep else data


class FrameMask:
    """A mask for the frames of a WebSocket server. A frame is passed on completely as soon as its end has arrived.

    A server does not encode its frames (RFC 6455, section 5.1), and a mask does not change the length, so that a
    frame's header stays valid. A secret that is split over two frames is not recognised.
    """

    def __init__(self, spellings: Spellings) -> None:
        self._mask = Mask(spellings)
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Returns the bytes that may be passed on now."""
        passed = []
        while data:
            if self._left == 0:
                header = self._header + data
                size = frame_header(header)
                if size is None:
                    self._header = header
                    break
                end, self._left = size
                passed.append(header[:end])
                self._header, data = b"", header[end:]
                continue
            payload, data = data[: self._left], data[self._left :]
            self._left -= len(payload)
            passed.append(self._mask.feed(payload))
            if self._left == 0:
                passed.append(self._mask.feed(b""))
        return b"".join(passed)


def frame_header(data: bytes) -> tuple[int, int] | None:
    """Returns the lengths of a frame's header and payload (RFC 6455, section 5.2). None if the header is incomplete."""
    if len(data) < 2:
        return None
    length, end = data[1] & 0x7F, 2
    if length >= 126:
        end = 4 if length == 126 else 10
        length = int.from_bytes(data[2:end], "big")
    if data[1] & 0x80:  # a server must not set it, but then a key of four bytes follows
        end += 4
    return (end, length) if len(data) >= end else None

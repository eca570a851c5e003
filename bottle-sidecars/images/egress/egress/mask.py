"""Masks a credential in answers, because some services echo parts of a request, for example in an error message."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from html.entities import html5

from .frames import Frames

# A part of the secret that all its spellings have, and that is searched for first: letters and digits.
_RUN = re.compile(rb"[A-Za-z0-9]+")
_MIN_RUN, _MAX_RUN = 4, 24
# A shorter text is searched for as it is only: its encodings would be found by chance.
_MIN_ENCODED = 6

# The number of bytes by which the begin of a spelling is looked up before it is compared.
_PROBE = 4

# The ways in which a character can be escaped, in lower case: in URLs once and twice, in HTML, in JSON and JavaScript.
_ESCAPES = (b"%%%02x", b"%%25%02x", b"\\u%04x", b"\\x%02x")
# A reference of HTML can have zeros before its number, and need not end with a semicolon. With more zeros than these,
# it is not recognised.
_MAX_ZEROS = 8
# The shortest line in which an encoded text is recognised.
_MIN_LINE = 48
# Where an encoded text can be broken into lines: as it is, and as JSON and URLs write it.
_BREAKS = (b"\r\n", b"\n", b"\r", b"\r\n ", b"\n ", b"\\r\\n", b"\\n", b"%0d%0a", b"%0a")
_ENTITIES: dict[str, list[bytes]] = {}
for _name, _character in html5.items():
    if _name.endswith(";") and len(_character) == 1 and _character.isascii():
        _ENTITIES.setdefault(_character, []).append(b"&" + _name.lower().encode("ascii"))
# Base64 has a second alphabet, for URLs.
_URL_SAFE = {ord("+"): ord("-"), ord("/"): ord("_")}


class Spellings:
    """The texts in which a secret can be recognised.

    These are the secret as it is, and in hexadecimal and base64, the latter for each of the three positions in which it
    can begin in an encoded text. An encoded text can have line breaks. Signs can be escaped, and in the secret itself
    letters and digits too, but of the part that is searched for either all or none. Letters can be in either case.
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
        self._characters = [_spellings(character, encoded) for character in text]
        self._breaks = _BREAKS if encoded else ()
        longest_break = max(map(len, self._breaks), default=0)
        self.longest = sum(max(map(len, spellings)) + longest_break for spellings in self._characters)
        runs = [found.span() for found in _RUN.finditer(text)]
        begin, end = max(runs, key=lambda run: run[1] - run[0], default=(0, len(text)))
        if end - begin < _MIN_RUN:
            begin, end = 0, len(text)
        parts = [(begin, min(end, begin + _MAX_RUN))]
        if encoded:
            # The end of a line is in one of two parts at most, because they are near each other.
            half = _MAX_RUN // 2
            pieces = [(at, min(end, at + half)) for begin, end in runs for at in range(begin, end, half)]
            pieces.sort(key=lambda piece: piece[0] - piece[1])
            near = [piece for piece in pieces if abs(piece[0] - pieces[0][0]) <= _MIN_LINE - half]
            if len(near) > 1 and near[1][1] - near[1][0] >= _MIN_RUN:
                parts = near[:2]
        self._parts = [_Part(text, *part) for part in parts]
        self._searched = [(part, part.text.lower()) for part in self._parts]
        self._referenced: re.Pattern[bytes] | None = None
        if not encoded:
            part = self._parts[0]
            self._searched += [(part, b"".join(escape % character for character in part.text)) for escape in _ESCAPES]
            self._referenced = re.compile(b"".join(map(_reference, part.text)))

    def find(self, lower: bytes) -> Iterable[tuple[int, int]]:
        for part, spelling in self._searched:
            at = lower.find(spelling)
            while at >= 0:
                yield from self._around(lower, part, at, at + len(spelling))
                at = lower.find(spelling, at + 1)
        if self._referenced and b"&#" in lower:
            for found in self._referenced.finditer(lower):
                yield from self._around(lower, self._parts[0], *found.span())

    def _around(self, lower: bytes, part: "_Part", begin: int, end: int) -> Iterable[tuple[int, int]]:
        """Returns begin and end of a spelling whose part is there."""
        begins, ends = self._back(lower, part.begin, begin), self._on(lower, part.end, end)
        if begins and ends:
            yield min(begins), max(ends)

    def _back(self, lower: bytes, count: int, at: int) -> set[int]:
        places = {at}
        for spellings in self._characters[:count][::-1]:
            places |= {p - len(s) for p in places for s in self._breaks if lower.endswith(s, 0, p)}
            places = {p - len(s) for p in places for s in spellings if lower.endswith(s, 0, p)}
            if not places:
                break
        return places

    def _on(self, lower: bytes, count: int, at: int) -> set[int]:
        places = {at}
        for spellings in self._characters[count:]:
            places |= {p + len(s) for p in places for s in self._breaks if lower.startswith(s, p)}
            places = {p + len(s) for p in places for s in spellings if lower.startswith(s, p)}
            if not places:
                break
        return places

    def begins_of(self, length: int) -> set[bytes]:
        """Returns the first bytes of every spelling."""
        begins = {b""}
        for spellings in self._characters[:length]:
            begins |= {begin + line_end for begin in begins for line_end in self._breaks if begin}
            begins = {(begin + spelling)[:length] for begin in begins for spelling in spellings}
        return begins

    def begins(self, lower: bytes, at: int) -> bool:
        """Returns true if the text from here to its end is the begin of a spelling."""
        places, end = {at}, len(lower)
        for number, spellings in enumerate(self._characters):
            if number and self._breaks:
                places |= self._after(lower, places, self._breaks)
            if max(places) >= end:
                return True
            if not (places := self._after(lower, places, spellings)):
                return False
        return max(places) > end

    @staticmethod
    def _after(lower: bytes, places: set[int], spellings: Iterable[bytes]) -> set[int]:
        """Returns the places behind a spelling. One that the text's end cuts ends behind it."""
        end = len(lower)
        return {
            p + len(spelling)
            for p in places
            for spelling in spellings
            if lower.startswith(spelling, p) or (end - p < len(spelling) and spelling.startswith(lower[p:]))
        }


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a text that is searched for first."""

    whole: bytes
    begin: int
    end: int

    @property
    def text(self) -> bytes:
        return self.whole[self.begin : self.end]


def _reference(character: int) -> bytes:
    """Returns the expression of a numeric reference of HTML to one letter or digit, in lower case."""
    return rb"&#(?:0{0,%d}%d(?![0-9])|x0{0,%d}%x(?![0-9a-f]));?" % (_MAX_ZEROS, character, _MAX_ZEROS, character)


def _references(character: int) -> Iterable[bytes]:
    """Returns all numeric references of HTML to one character, in lower case."""
    for zeros in range(_MAX_ZEROS + 1):
        for number in (b"%d" % character, b"x%x" % character):
            text = number.replace(b"x", b"x" + b"0" * zeros) if number[:1] == b"x" else b"0" * zeros + number
            yield from (b"&#" + text, b"&#" + text + b";")


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
    codes = {character, *plain, *plain.upper()}
    every = {plain, *(escape % code for escape in _ESCAPES for code in codes)}
    every.update(*map(_references, codes))
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
        self._frames = Frames()

    def feed(self, data: bytes) -> bytes:
        """Returns the bytes that may be passed on now."""
        passed = []
        for piece in self._frames.feed(data):
            passed += [piece.header, self._mask.feed(piece.payload) if piece.payload else b""]
            if piece.is_last:
                passed.append(self._mask.feed(b""))
        return b"".join(passed)

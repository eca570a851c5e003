"""Searches what the agent sends for credentials and private keys.

One automaton (Aho-Corasick) finds the literal text of every pattern in one pass, as it is and encoded. Only there, a
few hundred bytes are decoded and compared with the pattern. Long runs of base64 and hexadecimal, escapes, and what they
hold are decoded and searched as well, to a fixed depth. A body is searched in pieces as it passes.

The agent chooses the bodies, so the search must take time in proportion to their size. Every piece of work beyond the
first pass is counted. A body that needs more than its share is not searched to its end: that is a finding of its own.
"""

import base64
import binascii
import re
import string
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol, cast

import ahocorasick_rs
import zstandard

from .frames import Frames
from .patterns import PATTERNS, Context, Pattern

OFF, WARN, BLOCK = "off", "warn", "block"
MODES = (OFF, WARN, BLOCK)

# The part of a text that was searched and is searched again together with the next piece.
_OVERLAP = 4096
# The last word of a piece is passed on only when its end is known, up to this number of bytes.
_HELD = 1024
_WORD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-.%\\:@~&#;"
_WORD_END = re.compile(b"[^" + re.escape(_WORD) + b"]")
# An encoding inside an encoding, at most.
_MAX_DEPTH = 3
# Of a compressed body, at most so many bytes are searched.
_MAX_UNPACKED = 64 << 20
_UNPACKED_PIECE = 1 << 20
# Of what is compressed in a text, at most so many bytes are searched for each piece of it.
_MAX_INNER = 256 << 10
_GZIP = b"\x1f\x8b\x08"
# Files of gzip inside a body that are unpacked, at most: three bytes are also found by chance.
_MAX_PACKED = 256
# Units of work, each some 0.1 µs: what is saved up at most, and what a byte adds.
_MOST_WORK, _WORK_OF_BYTE = 300_000, 3
# With a small piece, much is searched that was searched before. So its bytes add more, up to this many units a piece.
_WORK_OF_SMALL, _MOST_OF_SMALL = 30, 2400
# Of what is unpacked, so many bytes for each packed one add their work.
_UNPACKED_RATIO = 4
# The name of the finding when that is not enough.
TOO_MUCH = "too-many-candidates"
# A long text is passed to the automaton in parts of this size, so that the work is counted in between.
_PART = 16 << 10
# Bytes by which the way a body is compressed is known.
_MAGIC = 4

# A shorter secret of the bottle is not searched for: it would be found by chance.
_MIN_SECRET = 8
_RUN = re.compile(rb"[A-Za-z0-9]+")
_MIN_RUN, _MAX_LITERAL = 12, 48
# Fewer characters of base64 are not searched for, because they are found by chance: so many for base64 in base64.
_MIN_BASE64, _MIN_TWICE = 4, 6

_CREDENTIAL_HEADERS = frozenset(
    """authorization proxy-authorization cookie x-api-key api-key x-goog-api-key private-token job-token deploy-token
    x-auth-token x-access-token x-amz-security-token x-registry-auth x-vault-token x-figma-token""".split()
)
# An opaque session, or one whose issuer is not known from it, is sent there by design: `Authorization`, `Cookie`,
# `Mcp-Session-Id`, `X-CSRF-Token`, `X-Amz-Security-Token`.
_SESSION_HEADER = re.compile(r"authorization|cookie|session|csrf|xsrf|(?:^|-)(?:token|jwt)(?:-|$)")
# Where a URL is searched, it stands in the place of a header's name.
_URL = ":url"
_TOKEN_ENDPOINT = re.compile(r"/(?:oauth2?|token|login|auth)\b", re.IGNORECASE)

# The ways in which every character of a text can be escaped.
_ESCAPES = (
    *("%%%02x", "%%%02X", "%%25%02x", "%%25%02X", "%%2525%02X"),
    *("\\u%04x", "\\u%04X", "\\x%02x", "%%5Cu%04x", "&#%d;", "%%26%%23%d%%3B"),
)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+")
# A run of backslashes is read once: it is matched from its begin only, and without going back.
_BASE64_GAPS = re.compile(rb"(?<!\\)\\++[rn]|[\r\n]++[ \t]*+|%0[AaDd]")
_BASE64_CHARACTERS = (string.ascii_letters + string.digits + "+/_-").encode("ascii")
_HEX_CHARACTERS = string.hexdigits.encode("ascii")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2})++")
# A run of characters that may be base64 or hexadecimal, as long as the shortest token in base64.
_LEAST_RUN = b"a" * 40
_RUNS = bytes(ord("a") if byte in _BASE64_CHARACTERS else ord(" ") for byte in range(256))
# Fewer new bytes are searched for a run together with the next ones.
_LEAST_NEW = len(_LEAST_RUN) - 8
_BREAKS = b"\r\n"
_ESCAPE = re.compile(
    rb"(%(?:25)*[0-9A-Fa-f]{2}|(?<!\\)\\++(?:u00[0-9A-Fa-f]{2}|[xX][0-9A-Fa-f]{2}|/)"
    rb"|&#0*+\d{2,3}(?!\d);?|&#[xX]0*+[0-9a-fA-F]{2}(?![0-9A-Fa-f]);?|&#0*+(?<=0)(?!\d);?)"
)
# How an escape of a printable character begins.
_BEGINS = (b"&#", b"\\x", b"\\X", b"\\u00", b"%2", b"%3", b"%4", b"%5", b"%6", b"%7")
# Bytes before an escape in which the token can begin that it belongs to. Bytes before and after an escape that say what
# the token is.
_LONGEST_BEGIN, _CONTEXT, _AFTER = 96, 512, 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """A credential that was found. It holds no part of it."""

    pattern: str
    place: str
    """`host`, `url`, `header NAME`, `body at byte N`, or `message at byte N` of a WebSocket."""


@dataclass(frozen=True, slots=True)
class Target:
    """Destination of a request, and the secret of the bottle that belongs there."""

    host: str
    path: str
    own: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Decoder:
    """One way to decode the text around a literal."""

    encoding: str
    decode: Callable[[bytes, int], tuple[bytes, int]]
    """Returns the decoded text around a place, and the place up to which it also has every literal that is in step."""
    step: int = 1
    """Number of characters that are decoded together."""
    first: int = 0
    """Number of characters from the begin of such a group to the literal."""

    def phase(self, at: int) -> tuple[str, int]:
        """Returns what the literals have in common that are decoded in step with the one at this place."""
        return self.encoding, (at - self.first) % self.step


@dataclass(frozen=True, slots=True)
class _Literal:
    pattern: Pattern | None
    secret: bytes | None
    decoder: _Decoder | None
    """None: the literal is the text as it is."""
    reach: int = 0
    """Number of bytes from the literal's begin on that decide what it is."""
    is_one_word: bool = False
    """True if these bytes are one word, and so end where it ends."""


class _Exceeded(Exception):
    """The search needs more work than it may do."""


class Work:
    """The work that a search may still do. It is given in proportion to what is searched."""

    def __init__(self) -> None:
        self._left = _MOST_WORK

    def give(self, units: int) -> None:
        self._left = min(_MOST_WORK, self._left + units)

    def take(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise _Exceeded


class Detector:
    """The patterns, and the secrets of one bottle."""

    def __init__(self, secrets: Iterable[bytes] = (), clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        literals: dict[bytes, list[_Literal]] = {}

        def add(text: bytes, literal: _Literal) -> None:
            literals.setdefault(text, []).append(literal)

        for pattern in PATTERNS:
            for text in pattern.literals:
                add(text, _Literal(pattern, None, None, pattern.ahead, not pattern.in_words))
                for spelling, decoder in _encoded(text):
                    add(spelling, _Literal(pattern, None, decoder, _OVERLAP))
        for secret in secrets:
            for text in set(_of_secret(secret)):
                add(text, _Literal(None, secret, None))
        for begin in _BEGINS:
            literals.setdefault(begin, [])
        self._longest = max(map(len, literals))
        self.meanings = [(meaning, text in _BEGINS) for text, meaning in literals.items()]
        """The meanings of each literal, and true if it begins an escape."""
        self._automaton = ahocorasick_rs.BytesAhoCorasick(
            list(literals), implementation=ahocorasick_rs.Implementation.DFA
        )

    def find(
        self,
        text: bytes,
        target: Target,
        header: str | None = None,
        *,
        hidden: bool = True,
        work: Work | None = None,
        new: int = 0,
        new_hidden: int = 0,
    ) -> tuple[str, int] | None:
        """Returns the name of the first pattern that is found, and its place in the text.

        Without `hidden`, long runs and escapes are not decoded. Before `new`, and for what is hidden before
        `new_hidden`, the text was searched already. More work than `work` allows is a finding too.
        """
        search = _Search(self, target, header, work or Work())
        try:
            return search.find(text, 0, hidden=hidden, new=new, new_hidden=new_hidden)
        except _Exceeded:
            return TOO_MUCH, search.place

    def matches(self, text: bytes) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
        """Returns the literals in a text: number, begin and end of each, for one part of the text after another.

        Begins and ends count from a base, which comes first. What ends before the second number belongs to the part
        before.
        """
        for part in range(0, len(text), _PART):
            base = max(0, part - self._longest)
            whole = text if len(text) <= _PART else text[base : part + _PART]
            if found := self._automaton.find_matches_as_indexes(whole, overlapping=True):
                yield base, part - base, found

    def now(self) -> float:
        return self._clock()


class _Search:
    """The search of one text."""

    def __init__(self, detector: Detector, target: Target, header: str | None, work: Work) -> None:
        self._detector = detector
        self._target = target
        self._header = header
        self._work = work
        self._asks_for_token = bool(_TOKEN_ENDPOINT.search(target.path))
        self.place = 0
        """Place in the text that the search has reached."""

    def find(
        self,
        text: bytes,
        depth: int,
        *,
        hidden: bool = True,
        begins: range | None = None,
        new: int = 0,
        new_hidden: int = 0,
    ) -> tuple[str, int] | None:
        """Searches a text. With `begins`, what is found has to begin there: the text is cut out of another one."""
        if depth:
            # The first pass over a body itself takes little time. All else is counted.
            self._work.take(40 + len(text) // 10)
        decoded_until: dict[tuple[str, int], int] = {}
        tried: set[tuple[_Decoder, int]] = set()
        escapes: list[tuple[int, int]] = []
        first = last = -_CONTEXT - 1
        meanings = self._detector.meanings
        # The words before it ended in the text that was searched already.
        ended = len(text[:new].rstrip(_WORD)) if new else 0
        for base, least_end, matches in self._detector.matches(text):
            for index, begin, end in matches:
                if end <= least_end:
                    continue
                begin, end = base + begin, base + end
                if begins is not None and begin not in begins:
                    continue
                literals, is_escape = meanings[index]
                if is_escape:
                    if begin + _AFTER > new_hidden:
                        if begin - last > _CONTEXT:
                            if first >= 0:
                                escapes.append((first, last))
                            first = begin
                        last = begin
                    continue
                for literal in literals:
                    if depth == 0:
                        self.place = begin
                    pattern, decoder = literal.pattern, literal.decoder
                    if pattern is None:
                        if literal.secret != self._target.own:
                            return "bottle-secret", begin
                    elif (begin < ended and literal.is_one_word) or begin + literal.reach <= new:
                        continue
                    elif decoder is None:
                        if self._is(pattern, text, begin):
                            return pattern.name, begin
                    elif depth < _MAX_DEPTH and (decoder, begin) not in tried:
                        tried.add((decoder, begin))
                        self._work.take(10)
                        phase = decoder.phase(begin)
                        if begin < decoded_until.get(phase, 0):
                            continue
                        decoded, decoded_until[phase] = decoder.decode(text, begin)
                        if found := self.find(decoded, depth + 1):
                            return found[0], begin
            self._work.take(len(matches) * 2)
        if first >= 0:
            escapes.append((first, last))
        if hidden and depth < _MAX_DEPTH:
            for begin, decoded, begins in _hidden(text, escapes, new_hidden, self._work):
                if depth == 0:
                    self.place = begin
                if found := self.find(decoded, depth + 1, begins=begins):
                    return found[0], begin
        return None

    def _is(self, pattern: Pattern, text: bytes, at: int) -> bool:
        header, target = self._header, self._target
        if header == _URL and pattern.in_url and pattern.issued_by(target.host):
            return False
        if header not in (None, _URL):
            if header in _CREDENTIAL_HEADERS and pattern.issued_by(target.host):
                return False
            if _SESSION_HEADER.search(header) and not pattern.in_session_headers:
                return False
        elif self._asks_for_token and pattern.issued_by(target.host):
            return False
        begin, end = max(0, at - pattern.before), at + pattern.ahead
        if not pattern.in_words and (word := _WORD_END.search(text, at, end)):
            window = text[begin : word.end()]
        else:
            window = text[begin:end]
        at -= begin
        self._work.take(52 + len(window) // (8 if pattern.in_words else 20))
        if self._matches(pattern, window, at, lambda: text[begin:end]):
            return True
        if b"%" not in window and b"\\" not in window and b"&#" not in window:
            return False
        self._work.take(20 + len(window) // 25)
        if not _ESCAPE.search(window):
            return False
        self._work.take(len(window) // 5)
        before = len(unescaped(window[:at]))
        return self._matches(pattern, unescaped(window), before, lambda: unescaped(text[begin:end]))

    def _matches(self, pattern: Pattern, text: bytes, at: int, around: Callable[[], bytes]) -> bool:
        found = pattern.match(text, at)
        if not found:
            return False
        self._work.take(200 + len(found[0]) // 2)
        return pattern.check(found, Context(around(), self._target.host, self._detector.now()))


def _hidden(
    text: bytes, escapes: list[tuple[int, int]], new: int, work: Work
) -> Iterator[tuple[int, bytes, range | None]]:
    """Returns what a text holds in another form, with a place near its begin, and where in it something may begin.

    `escapes` are the first and the last place of each group of escapes that is searched at once. A token has one in it,
    or none that matters. What ends before `new` is left out.
    """
    for first, last in escapes:
        begin, end = max(0, first - _CONTEXT), last + _AFTER
        work.take((end - begin) // 20)
        plain = unescaped(text[begin:end])
        after = len(plain) - len(unescaped(text[last:end]))
        yield begin, plain, range(max(0, first - begin - _LONGEST_BEGIN), after + 1)
    left = _MAX_INNER
    classes = text.translate(_RUNS, _BREAKS)
    joined, at = text, 0
    if new and len(classes) < len(text):
        new = len(text[:new].translate(None, _BREAKS))
    while (begin := classes.find(_LEAST_RUN, at)) >= 0:
        if len(joined) > len(classes):
            joined = text.translate(None, _BREAKS)
        at = classes.find(b" ", begin)
        at = len(classes) if at < 0 else at
        if at < new:
            continue
        run = joined[begin:at]
        work.take(10 + len(run) // 50)
        if _HEX.fullmatch(run):
            yield begin, bytes.fromhex(run.decode("ascii")), None
        decoded = binascii.a2b_base64(_padded(run.translate(_FROM_URL_SAFE)))
        yield begin, decoded, None
        if decoded.startswith(_GZIP) and left > 0:
            unpacked: list[bytes] = []
            work.take(100)
            _Zlib(raw=False, most=left).feed(decoded, unpacked.append)
            inner = b"".join(unpacked)
            left -= len(inner)
            yield begin, inner, None


def _padded(encoded: bytes) -> bytes:
    """Returns base64 whose length can be decoded."""
    if len(encoded) % 4 == 1:
        encoded = encoded[:-1]
    return encoded + b"=" * (-len(encoded) % 4)


def unescaped(text: bytes) -> bytes:
    """Returns the text without the escapes of URLs, JSON and HTML."""
    parts = _ESCAPE.split(text)
    parts[1::2] = map(_CHARACTERS.__getitem__, parts[1::2])
    return b"".join(parts)


class _Characters(dict[bytes, bytes]):
    """The character of each escape. Those seen last are kept, because one text has the same ones many times."""

    def __missing__(self, escape: bytes) -> bytes:
        if escape.endswith(b"/"):
            character = b"/"
        elif escape.startswith(b"&#") and escape[2:3] not in b"xX":
            code = int(escape[2:].rstrip(b";").lstrip(b"0") or b"0")
            character = bytes([code]) if code < 256 else b"?"
        else:
            character = bytes([int(escape.rstrip(b";")[-2:], 16)])
        if len(escape) <= _LONGEST_ESCAPE:
            if len(self) >= _MOST_ESCAPES:
                self.clear()
            self[escape] = character
        return character


_LONGEST_ESCAPE, _MOST_ESCAPES = 12, 4096
_CHARACTERS = _Characters()


def _encoded(text: bytes) -> Iterator[tuple[bytes, _Decoder]]:
    """Returns the encoded forms of a literal, each with the decoder of the text around it."""
    for spelling, shift in _base64(text):
        if len(spelling) >= _MIN_BASE64:
            yield spelling, _FROM_BASE64[shift]
        for outer, outer_shift in _base64(spelling):
            if len(outer) >= _MIN_TWICE:
                yield outer, _FROM_BASE64[outer_shift]
    for spelling in {text.hex().encode(), text.hex().upper().encode()}:
        yield spelling, _FROM_HEX
    for form in _ESCAPES:
        yield "".join(form % byte for byte in text).encode(), _FROM_ESCAPES
    for spelling in _with_escaped_signs(text):
        yield spelling, _FROM_ESCAPES
    yield text.decode("latin-1").encode("utf-16-le")[:-1], _FROM_UTF16


def _with_escaped_signs(text: bytes) -> set[bytes]:
    """Returns the forms of a text in which its letters and digits are as they are."""
    kept = ("", "/", "-_.~", "-_.~/")
    forms = {
        "".join(chr(byte) if chr(byte).isalnum() or chr(byte) in safe else form % byte for byte in text).encode()
        for form in ("%%%02X", "%%%02x", "\\u%04x")
        for safe in kept
    }
    return (forms | {text.replace(b"/", b"\\/")}) - {text}


def _base64(text: bytes) -> Iterator[tuple[bytes, int]]:
    """Returns the characters that every base64 of the text has, for the three positions in which it can begin."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + text)
        stable = encoded[(shift * 8 + 5) // 6 : (shift + len(text)) * 8 // 6]
        yield stable, shift
        if (url_safe := stable.translate(_TO_URL_SAFE)) != stable:
            yield url_safe, shift


_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


# From a literal on, so many bytes are decoded at least: of base64, hexadecimal, escapes and UTF-16. Twice as many are
# decoded at once, for the literals that follow in the same text.
_BASE64_AHEAD, _HEX_AHEAD, _ESCAPES_AHEAD, _UTF16_AHEAD = 6000, 4096, 3072, 1024


def _base64_decoder(first: int) -> _Decoder:
    def decode(text: bytes, at: int) -> tuple[bytes, int]:
        # The text is decoded from the group of four characters in which the literal begins, and up to 32 groups before.
        begin = at - first
        if begin < 0:
            begin += 4
        else:
            before = text[max(0, begin - 128) : begin]
            begin -= (len(before) - len(before.rstrip(_BASE64_CHARACTERS))) // 4 * 4
        encoded = text[begin : at + 2 * _BASE64_AHEAD]
        until = 0
        if b"\\" in encoded or b"\n" in encoded or b"%" in encoded:
            encoded = _BASE64_GAPS.sub(b"", encoded).replace(b"\\/", b"/").replace(b"%2F", b"/").replace(b"%2B", b"+")
            until = -1
        found = _BASE64.match(encoded)
        if not found:
            return b"", 0
        if until == 0:
            until = begin + len(found[0]) - (_BASE64_AHEAD if len(found[0]) == len(encoded) else 0)
        return binascii.a2b_base64(_padded(found[0].translate(_FROM_URL_SAFE))), until

    return _Decoder("base64", decode, 4, first)


def _from_hex(text: bytes, at: int) -> tuple[bytes, int]:
    before = text[max(0, at - 512) : at]
    begin = at - (len(before) - len(before.rstrip(_HEX_CHARACTERS))) // 2 * 2
    found = _HEX.match(text, begin, at + 2 * _HEX_AHEAD)
    if not found:
        return b"", 0
    until = found.end() - (_HEX_AHEAD if found.end() >= at + 2 * _HEX_AHEAD - 1 else 0)
    return bytes.fromhex(found[0].decode("ascii")), until


def _from_escapes(text: bytes, at: int) -> tuple[bytes, int]:
    return unescaped(text[max(0, at - 256) : at + 2 * _ESCAPES_AHEAD]), at + _ESCAPES_AHEAD


def _from_utf16(text: bytes, at: int) -> tuple[bytes, int]:
    decoded = text[max(0, at - 64) & ~1 | at & 1 : at + 2 * _UTF16_AHEAD].replace(b"\0", b"")
    return decoded, at + _UTF16_AHEAD


_FROM_BASE64 = [_base64_decoder((shift * 8 + 5) // 6) for shift in range(3)]
_FROM_HEX = _Decoder("hex", _from_hex, 2)
_FROM_ESCAPES = _Decoder("escapes", _from_escapes)
_FROM_UTF16 = _Decoder("utf-16", _from_utf16, 2)


def _of_secret(secret: bytes) -> Iterator[bytes]:
    """Returns the texts by which a secret of the bottle is recognised. Each alone is enough."""
    if len(secret) < _MIN_SECRET:
        return
    run = max((found[0] for found in _RUN.finditer(secret)), key=len, default=b"")
    # A part of it is enough if that can be no word.
    part = run if len(run) >= _MIN_RUN and re.search(rb"[0-9]", run) and re.search(rb"[A-Za-z]", run) else secret
    for text in (part[:_MAX_LITERAL], part[:_MAX_LITERAL].lower(), part[:_MAX_LITERAL].upper()):
        if len(text) >= _MIN_RUN or text == secret:
            yield text
    whole = secret[:_MAX_LITERAL]
    for spelling, _ in _base64(whole):
        yield spelling
        for outer, _ in _base64(spelling):
            yield outer
    yield whole.hex().encode()
    yield whole.hex().upper().encode()
    yield from _with_escaped_signs(whole)
    for form in _ESCAPES:
        yield "".join(form % byte for byte in whole).encode()
    yield whole.decode("latin-1").encode("utf-16-le")[:-1]


def find_in_head(
    detector: Detector, url: bytes, headers: Iterable[tuple[bytes, bytes]], target: Target
) -> Finding | None:
    """Returns the credential in a request's URL or headers, if there is one."""

    work = Work()

    def find(text: bytes, header: str | None = None) -> str | None:
        work.give(len(text) * _WORK_OF_BYTE)
        # A head is small, so that all of it can be decoded several times.
        for _ in range(_MAX_DEPTH):
            if found := detector.find(text, target, header, work=work):
                return found[0]
            text, written = unescaped(text), text
            if text == written:
                break
        return None

    if name := find(url, _URL):
        return Finding(name, "url")
    for header, value in headers:
        key = header.decode("latin-1").lower()
        if name := find(header):
            return Finding(name, "header")
        if name := find(value, key):
            return Finding(name, f"header {key[:64]}")
    return None


class Scan:
    """Search of one body, or of one side of a WebSocket, piece by piece.

    With `hold`, the last word of a piece is kept back until the next one, so that no part of a credential is sent
    before it is complete. Everything else passes at once.
    """

    def __init__(
        self,
        detector: Detector,
        target: Target,
        encoding: str = "",
        place: str = "body",
        *,
        hold: bool = True,
        unpacked_by: "Scan | None" = None,
    ) -> None:
        self._detector = detector
        self._target = target
        self._place = place
        self._hold = hold
        self._encoding = encoding
        self._unpacker: _Unpacker | None = None
        self._started = False
        self._held = b""
        self._tail = b""
        self._seen = 0
        self._new = 0
        self._unpacked: Scan | None = None
        self._packed: _Zlib | None = None
        self._packed_left = _MAX_PACKED
        self._work: Work = unpacked_by._work if unpacked_by else Work()
        self._packing = unpacked_by
        self._uncounted = 0
        """Packed bytes that have added no work yet."""
        self.finding: Finding | None = None

    def feed(self, piece: bytes, *, last: bool = False) -> bytes:
        """Returns what may be sent now. Nothing more is sent after a finding."""
        if self.finding:
            return b""
        data = self._held + piece if self._held else piece
        if not self._started and data:
            if self._hold and not last and len(data) < _MAGIC:
                self._held = data
                return b""
            self._started, self._held = True, b""
            self._unpacker = _unpacker(self._encoding, data)
        if self._unpacker:
            return self._feed_packed(data)
        if self._packing and len(data) > 2 * _OVERLAP and data.count(data[:1]) == len(data):
            # One byte again and again, as in a sparse file, is no credential.
            self._seen += len(data) - _OVERLAP
            data = data[:_OVERLAP]
        keep = 0 if last or not self._hold else _unfinished(data)
        sent, self._held = (data[: len(data) - keep], data[len(data) - keep :]) if keep else (data, b"")
        self._search(sent, last)
        return b"" if self.finding else sent

    def _feed_packed(self, data: bytes) -> bytes:
        if self._unpacked is None:
            self._unpacked = Scan(self._detector, self._target, "identity", self._place, hold=False, unpacked_by=self)
        self._uncounted += len(data) * _UNPACKED_RATIO
        assert self._unpacker is not None
        self._unpacker.feed(data, self._unpacked.feed)
        self.finding = self._unpacked.finding
        return b"" if self.finding else data

    def _search(self, data: bytes, last: bool) -> None:
        text = self._tail + data if self._tail else data
        # A body may come byte by byte.
        self._new += len(data)
        new_hidden = len(text) - self._new
        if hidden := self._new >= _LEAST_NEW or last:
            self._new = 0
        if found := self._find(text, len(data), hidden, max(0, new_hidden)):
            name, at = found
            self.finding = Finding(name, f"{self._place} at byte {self._seen - len(self._tail) + at}")
        if not self.finding:
            self._search_packed(text, len(text) - len(data))
        self._seen += len(data)
        self._tail = text[-_OVERLAP:]

    def _find(self, text: bytes, size: int, hidden: bool, new_hidden: int) -> tuple[str, int] | None:
        """Searches a text whose last bytes are new: `size` of them."""
        try:
            if self._packing is None:
                small = min((len(text) - new_hidden) * _WORK_OF_SMALL, _MOST_OF_SMALL) if hidden else 0
                self._work.give(max(size * _WORK_OF_BYTE, small))
            else:
                counted = min(size, self._packing._uncounted)
                self._packing._uncounted -= counted
                self._work.give(counted * _WORK_OF_BYTE)
                # Few bytes can be unpacked to many, so that even the first pass counts.
                self._work.take(50 + len(text) // 16)
        except _Exceeded:
            return TOO_MUCH, len(text) - size
        new = len(text) - size
        return self._detector.find(text, self._target, hidden=hidden, work=self._work, new=new, new_hidden=new_hidden)

    def _search_packed(self, text: bytes, new: int) -> None:
        """Searches the files of gzip inside a body, such as a part of a form. `new` is where the text is new."""
        at = new
        while True:
            if self._packed is None:
                at = text.find(_GZIP, max(0, at - len(_GZIP) + 1))
                if at < 0 or self._packed_left == 0 or self._place == "packed":
                    return
                self._packed_left -= 1
                self._packed = _Zlib(raw=False, members=False)
                self._unpacked = Scan(self._detector, self._target, "identity", "packed", hold=False, unpacked_by=self)
            assert self._unpacked is not None
            self._uncounted += (len(text) - at) * _UNPACKED_RATIO if self._packed_left == _MAX_PACKED - 1 else 0
            self._packed.feed(text[at:], self._unpacked.feed)
            if self._unpacked.finding:
                self.finding = Finding(self._unpacked.finding.pattern, f"{self._place} at byte {self._seen}")
                return
            if not self._packed.is_over:
                return
            at = max(at + len(_GZIP), len(text) - len(self._packed.rest)) + len(_GZIP) - 1
            self._packed = None


def _unfinished(data: bytes) -> int:
    end = data[-_HELD:]
    return len(end) - len(end.rstrip(_WORD))


class _Unpacker(Protocol):
    def feed(self, data: bytes, take: Callable[[bytes], object]) -> None:
        """Hands over what the data unpacks to, in pieces. Data that cannot be unpacked is ignored."""


def _unpacker(encoding: str, begin: bytes) -> _Unpacker | None:
    """Returns the unpacker for a content encoding, or for a file that is compressed itself."""
    if encoding == "zstd" or (not encoding and begin.startswith(b"\x28\xb5\x2f\xfd")):
        return _Zstd()
    if encoding in ("gzip", "x-gzip", "deflate") or (not encoding and begin.startswith(b"\x1f\x8b\x08")):
        # What has no header of zlib (RFC 1950, section 2.2) is the bare stream that some clients send.
        is_zlib = len(begin) > 1 and begin[0] & 0x0F == 8 and begin[0] < 0x80 and (begin[0] << 8 | begin[1]) % 31 == 0
        return _Zlib(raw=encoding == "deflate" and not is_zlib)
    return None


class _Zlib:
    def __init__(self, *, raw: bool, most: int = _MAX_UNPACKED, members: bool = True) -> None:
        """With `members`, files that follow the first one are unpacked too, as gzip does."""
        self._bits = -15 if raw else 47
        self._object = zlib.decompressobj(self._bits)
        self._left = most
        self._members = members
        self.rest = b""
        """The data after the end, of the last piece that was fed."""

    @property
    def is_over(self) -> bool:
        return self._left <= 0 or self._object.eof

    def feed(self, data: bytes, take: Callable[[bytes], object]) -> None:
        try:
            while data and self._left > 0:
                if self._object.eof:
                    # Zeros may be between two members.
                    if not (data := data.lstrip(b"\0")):
                        return
                    self._object = zlib.decompressobj(self._bits)
                piece = self._object.decompress(data, _UNPACKED_PIECE)
                data = self._object.unconsumed_tail
                self._left -= len(piece)
                if piece:
                    take(piece)
                if self._object.eof:
                    self.rest = self._object.unused_data
                    data = self.rest if self._members else b""
        except zlib.error:
            self.rest, self._left = data, 0


class _Zstd:
    def __init__(self) -> None:
        self._left = _MAX_UNPACKED
        self._take: Callable[[bytes], object] = len
        # The window is what a decoder has to support (RFC 8878, section 3.1.1.1.2).
        unpacker = zstandard.ZstdDecompressor(max_window_size=8 << 20)
        self._writer = unpacker.stream_writer(cast(IO[bytes], self), closefd=False)

    def write(self, piece: bytes) -> int:
        """Takes what was unpacked. The end of the search is an error, because nothing else ends the unpacking."""
        self._left -= len(piece)
        if self._left < 0:
            raise ValueError("too large")
        self._take(bytes(piece))
        return len(piece)

    def feed(self, data: bytes, take: Callable[[bytes], object]) -> None:
        if self._left < 0:
            return
        self._take = take
        try:
            self._writer.write(data)
        except (ValueError, zstandard.ZstdError):
            self._left = -1


class FrameScan:
    """Search of the frames of a WebSocket client."""

    def __init__(self, detector: Detector, target: Target) -> None:
        self._scan = Scan(detector, target, "identity", "message", hold=False)
        self._frames = Frames()

    @property
    def finding(self) -> Finding | None:
        return self._scan.finding

    def feed(self, data: bytes) -> None:
        for piece in self._frames.feed(data):
            if self.finding:
                return
            self._scan.feed(piece.plain())

"""The search for credentials takes time in proportion to the body, whatever the agent sends."""

import base64
import gzip
import json
import random
import time
import unittest
import urllib.parse
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from egress import audit
from egress.dlp import BLOCK, TOO_MUCH, WARN, Detector, Finding, FrameScan, Scan, Target, find_in_head
from egress.guard import Guard
from egress.patterns import PATTERNS
from egress.policy import Refusal

from .dlp_cases import NOW, jwt, large_turn, text, tokens
from .test_mask import frame

DETECTOR = Detector(clock=lambda: NOW)
TARGET = Target("api.allowed.test", "/v1/messages")
SIZE = 1_000_000
# How many times as long as an ordinary body of the same size. The worst of them takes half of it.
MOST_TIMES = 40
# Another program's work slows a single measurement; a search that is too slow is so every time.
TRIES = 3


def repeated(part: bytes, size: int = SIZE) -> bytes:
    return (part * (size // len(part) + 1))[:size]


def adversarial() -> dict[str, bytes]:
    """Bodies of 1 MB that need much work for each byte. None has a credential."""
    r = random.Random(5)
    based = base64.b64encode
    key = b"-----BEGIN PRIVATE" + b" KEY-----"
    aws, header = b"AK" + b"IA ", b"eyJhbG" + b"ciOi"
    bomb = based(gzip.compress(bytes(40_000), mtime=0))
    bodies = {f"begins of {pattern.name} {nth}": pattern.literals[0] + b" " for nth, pattern in enumerate(PATTERNS)}
    bodies |= {f"words of {pattern.name} {nth}": pattern.literals[0] + b"-" for nth, pattern in enumerate(PATTERNS)}
    bodies |= {
        "headers of JWTs": header + b".",
        "headers of JWTs in a word": header + b"-",
        "first lines of keys": key,
        "a key of plus signs": key + b"+" * 24 + b"!",
        "headers of a key": key + b"\n" + b" Version: " * 8 + b"!",
        "an empty key": b"sk-" + b"ant-api03-x ",
        "numbers of Slack": b"xo" + b"xb-1-1-1-1-1-1-1-1-1-1-1-1-",
        "audiences": header
        + b"x."
        + based(json.dumps({"exp": NOW + 9, "aud": ["a.b"] * 99}).encode())
        + b"."
        + b"a" * 40,
        "percent": b"%41",
        "percent, twice": b"%2541",
        "HTML": b"&#65;",
        "JSON": b"\\u0041",
        "backslashes": b"\\" * 400 + b"\\x41",
        "zeros of HTML": b"&#" + b"0" * 400 + b"&#65;",
        "percent of percent": b"%" + b"25" * 200 + b"%41",
        "escapes far apart": b"%41" + b" " * 520,
        "base64 of a begin": based(aws.strip() + b"-")[:4],
        "short runs of base64": based(r.randbytes(30)) + b" ",
        "packed zeros": based(gzip.compress(bytes(200_000), mtime=0)) + b" ",
        "packed zeros in base64": based(b" " + bomb + b" ") + b" ",
        "headers of gzip": b"x\x1f\x8b\x08\0",
        "members of gzip": b"x" + gzip.compress(b"", mtime=0),
    }
    bodies = {name: repeated(part) for name, part in bodies.items()}
    for name, part in {"AWS": aws, "JWT": header + b".", "key": key}.items():
        once = based(repeated(part, SIZE * 3 // 4))
        bodies |= {
            f"{name} in base64": once,
            f"{name} in base64, twice": based(based(repeated(part, SIZE * 9 // 16))),
            f"{name} in base64, lines": base64.encodebytes(repeated(part, SIZE * 3 // 4)),
            f"{name} in hexadecimal": repeated(part, SIZE // 2).hex().encode(),
            f"{name} in UTF-16": repeated(part, SIZE // 2).decode().encode("utf-16-le"),
            f"{name} in escapes": "".join(f"%{byte:02x}" for byte in repeated(part, SIZE // 3)).encode(),
            f"{name} in mixed escapes": b"".join(b"%%%02x" % byte if byte % 3 else bytes([byte]) for byte in part)
            * (SIZE // 3 // len(part)),
        }
    return bodies


def ordinary() -> dict[str, bytes]:
    """Bodies of 1 MB of agents and their tools."""
    r = random.Random(6)
    turn = large_turn(SIZE)
    hashes = b"".join(b"2026-01-01 INFO %s done\n" % r.randbytes(32).hex().encode() for _ in range(SIZE // 90))
    lock = b"".join(b'"integrity": "sha512-%s",\n' % base64.b64encode(r.randbytes(64)) for _ in range(SIZE // 112))
    session = jwt(r, {"sub": "42", "exp": NOW - 9}, "HS256")
    minified = "".join(text(r, r.randint(1, 6)) + r.choice(".(){};,=+-_:") for _ in range(SIZE // 5))
    return {
        "JSON": turn,
        "JSON in JSON": json.dumps(json.dumps(turn.decode()[: SIZE // 2])).encode(),
        "form": urllib.parse.quote_plus(turn.decode()[: SIZE // 2]).encode(),
        "form of Cyrillic": urllib.parse.quote("Привет, мир! " * 9000).encode(),
        "image": base64.b64encode(r.randbytes(SIZE * 3 // 4)),
        "MIME": base64.encodebytes(r.randbytes(SIZE * 3 // 4)),
        "JSON in base64": base64.b64encode(turn[: SIZE * 3 // 4]),
        "hexadecimal": r.randbytes(SIZE // 2).hex().encode(),
        "binary": r.randbytes(SIZE),
        "hashes": hashes,
        "lock file": lock,
        "minified": minified.encode(),
        "HTML": repeated(b"<a href='?q=%20a&amp;b=&#39;c&#39;'>it&#x27;s</a>\n"),
        "JSON of umlauts": repeated(rb'"\u00e9t\u00e9 caf\u00e9 na\u00efve \u003cb\u003e" '),
        "expired sessions": repeated(f'2026-01-01 GET /a {{\\"session\\": \\"{session}\\"}}\n'.encode()),
        "redacted": repeated(
            b"2026-01-01 12:00:00 GET /user 200 Authorization: token ghp_" + b"x" * 36 + b" agent=curl " * 6
        ),
        "connections": repeated(b"2026-01-01 connect postgres://app@db.local:5432/app redis://cache:6379/0 ok\n"),
        "npm": repeated(b"npm_lifecycle_event npm_config_registry npm_package_version=1 "),
    }


class Searched(NamedTuple):
    """The finding of a search, and its time in milliseconds of the processor."""

    total: float
    slowest_piece: float
    finding: Finding | None


def search(body: bytes, size: int = 65_536, encoding: str = "") -> Searched:
    scan = Scan(DETECTOR, TARGET, encoding)
    total = slowest = 0.0
    for at in range(0, len(body) + 1, size):
        began = time.process_time()
        scan.feed(body[at : at + size], last=at + size > len(body))
        took = (time.process_time() - began) * 1000
        total, slowest = total + took, max(slowest, took)
        if scan.finding or total > 60_000:
            break
    return Searched(total, slowest, scan.finding)


def search_head(body: bytes) -> Searched:
    began = time.process_time()
    finding = find_in_head(DETECTOR, b"/", [(b"x-%d" % at, body[:8_000]) for at in range(12)], TARGET)
    took = (time.process_time() - began) * 1000
    return Searched(took, took, finding)


class Adversarial(unittest.TestCase):
    def within(
        self, most: float, most_piece: float, run: Callable[[], Searched], plain: Callable[[], Searched]
    ) -> tuple[float, float]:
        """Compares a search with an ordinary one made right before it, and returns how many times as long it and its
        slowest piece take."""
        for left in reversed(range(TRIES)):
            base = min(plain().total for _ in range(2))
            searched = run()
            total, piece = searched.total / base, searched.slowest_piece / base
            if total < most and piece < most_piece:
                break
            if not left:
                self.fail(f"{total:.1f} times as long, its slowest piece {piece:.1f} times")
        return total, piece

    def test_it_takes_little_more_time_than_an_ordinary_body(self) -> None:
        turn = large_turn(SIZE)
        worst = slowest = 0.0, ""
        for name, body in adversarial().items():
            with self.subTest(name):
                # One piece holds up every other request of the bottle.
                total, piece = self.within(MOST_TIMES, MOST_TIMES / 6, partial(search, body), partial(search, turn))
                worst, slowest = max(worst, (total, name)), max(slowest, (piece, name))
        print(
            f"\n  search: {worst[0]:.1f} times as long as JSON for {worst[1]}; "
            f"a piece {slowest[0]:.1f} for {slowest[1]}"
        )

    def test_small_pieces(self) -> None:
        turn = large_turn(20_000)
        for name, body in adversarial().items():
            with self.subTest(name):
                self.within(MOST_TIMES, MOST_TIMES, partial(search, body[:20_000], 40), partial(search, turn, 40))

    def test_compressed(self) -> None:
        turn = large_turn(SIZE)
        bodies = {name: gzip.compress(body * 4, 1) for name, body in adversarial().items()}
        bodies["members"] = gzip.compress(b" ", mtime=0) * 40_000
        for name, body in bodies.items():
            with self.subTest(name):
                self.within(MOST_TIMES, MOST_TIMES, partial(search, body, encoding="gzip"), partial(search, turn))

    def test_a_head(self) -> None:
        turn = large_turn(SIZE)
        for name, body in adversarial().items():
            with self.subTest(name):
                self.within(MOST_TIMES / 4, MOST_TIMES / 4, partial(search_head, body), partial(search, turn))


class Exceeded(unittest.TestCase):
    BODY = repeated(b"eyJhbG" + b"ciOi.")

    def guard(self, mode: str) -> tuple[Guard, audit.Record]:
        record = audit.Record("POST", "api.allowed.test", 443, "/v1/messages")
        guard = Guard(DETECTOR, TARGET, mode, record)
        guard.head(b"/v1/messages", [], "")
        return guard, record

    def test_block_refuses_the_body_and_names_why(self) -> None:
        guard, record = self.guard(BLOCK)
        answers = [guard.body(self.BODY[at : at + 65_536], last=False) for at in range(0, 262_144, 65_536)]
        refusal = next(answer for answer in answers if isinstance(answer, Refusal))
        self.assertEqual((refusal.status, refusal.rule), (403, "dlp"))
        self.assertIn(TOO_MUCH, refusal.message)
        self.assertEqual(record.finding["pattern"], TOO_MUCH)
        self.assertRegex(record.finding["place"], r"^body at byte \d+$")

    def test_warn_records_it_and_passes_the_body(self) -> None:
        guard, record = self.guard(WARN)
        pieces = [self.BODY[at : at + 65_536] for at in range(0, len(self.BODY), 65_536)]
        self.assertEqual(b"".join(guard.body(piece, last=False) for piece in pieces), self.BODY)
        self.assertEqual(record.finding["pattern"], TOO_MUCH)

    def test_heads_messages_and_compressed_bodies(self) -> None:
        found = find_in_head(DETECTOR, b"/" + self.BODY[:100_000], [], TARGET)
        self.assertEqual((found.pattern, found.place), (TOO_MUCH, "url"))
        found = find_in_head(DETECTOR, b"/", [(b"x-note", self.BODY[:100_000])], TARGET)
        self.assertEqual((found.pattern, found.place), (TOO_MUCH, "header x-note"))
        scan = FrameScan(DETECTOR, TARGET)
        scan.feed(frame(self.BODY[:200_000], 0x81))
        self.assertEqual(scan.finding.pattern, TOO_MUCH)
        self.assertEqual(search(gzip.compress(self.BODY), encoding="gzip").finding.pattern, TOO_MUCH)
        self.assertEqual(search(b"--b\r\n\r\n" + gzip.compress(self.BODY)).finding.pattern, TOO_MUCH)

    def test_a_token_before_it_is_found_itself(self) -> None:
        body = tokens()["GitHub"].encode() + b" " + self.BODY
        self.assertEqual(search(body).finding.pattern, "github-token")


class Ordinary(unittest.TestCase):
    def test_it_is_searched_to_its_end(self) -> None:
        token = tokens()["Anthropic"].encode()
        for name, body in ordinary().items():
            with self.subTest(name):
                self.assertIsNone(search(body).finding)
                self.assertIsNone(search(body[:300_000], 1000).finding)
                self.assertIsNone(search(body[:60_000], 50).finding)
                self.assertEqual(search(body + b" " + token + b" ").finding.pattern, "anthropic-key")

    def test_it_is_searched_to_its_end_when_it_is_compressed(self) -> None:
        for name, body in ordinary().items():
            packed = gzip.compress(body, 6)
            if len(body) < 40 * len(packed):
                with self.subTest(name):
                    self.assertIsNone(search(packed, encoding="gzip").finding)

    def test_large_uploads(self) -> None:
        r = random.Random(8)
        for body in (large_turn(SIZE) * 6, base64.b64encode(r.randbytes(6_000_000))):
            self.assertIsNone(search(body).finding)
            self.assertIsNone(search(gzip.compress(body, 1), encoding="gzip").finding)

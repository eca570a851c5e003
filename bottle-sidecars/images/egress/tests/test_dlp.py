import base64
import gzip
import random
import tracemalloc
import unittest
import urllib.parse
import zlib

import zstandard

from egress.dlp import Detector, FrameScan, Scan, Target, find_in_head
from egress.patterns import PATTERNS

from .dlp_cases import NOW, PLAIN, benign, encodings, further_encodings, jwt, large_turn, median_ms, tokens
from .test_mask import frame

DETECTOR = Detector(clock=lambda: NOW)
TARGET = Target("api.allowed.test", "/v1/messages")


def in_body(
    body: bytes, size: int = 65_536, encoding: str = "", detector: Detector = DETECTOR, target: Target = TARGET
):
    """Returns the finding and what was sent of a body that arrives in pieces."""
    scan = Scan(detector, target, encoding)
    sent = b"".join(scan.feed(body[at : at + size]) for at in range(0, len(body), size))
    sent += scan.feed(b"", last=True)
    return scan.finding, sent


def in_head(path: str, headers: list[tuple[str, str]], target: Target = TARGET):
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return find_in_head(DETECTOR, path.encode(), raw, target)


class Malicious(unittest.TestCase):
    def test_each_format_in_each_encoding_and_place(self) -> None:
        caught, missed = 0, []
        for name, token in tokens().items():
            for encoding, spelled in encodings(token).items():
                one_line = spelled.replace("\n", "\\n")
                places = {
                    "body": in_body(b'{"text": "see ' + spelled.encode() + b' there"}')[0],
                    "form": in_body(b"a=1&b=" + urllib.parse.quote_plus(spelled).encode() + b"&c=2")[0],
                    "gzip": in_body(gzip.compress(b"x" * 999 + b" " + spelled.encode()), 100, "gzip")[0],
                    "query": in_head(f"/v1/x?q={urllib.parse.quote(spelled)}&r=1", []),
                    "path": in_head(f"/v1/{urllib.parse.quote(spelled, safe='')}", []),
                    "header": in_head("/", [("x-note", one_line)]),
                }
                for place, found in places.items():
                    if found:
                        caught += 1
                    else:
                        missed.append((name, encoding, place))
        total = caught + len(missed)
        print(f"\n  credentials: {caught} of {total} cases are found ({len(tokens())} formats)")
        self.assertEqual([case for case in missed if case[1] == PLAIN], [])
        self.assertGreaterEqual(total, 57)
        self.assertGreater(caught / total, 0.94, missed)

    def test_the_name_and_place_and_no_value_are_told(self) -> None:
        token = tokens()["GitHub"]
        found, _ = in_body(b"0123456789 " + token.encode())
        self.assertEqual((found.pattern, found.place), ("github-token", "body at byte 11"))
        self.assertEqual(in_head(f"/x?{token}", []).place, "url")
        self.assertEqual(in_head("/x", [("X-Note", f"a {token}")]).place, "header x-note")
        self.assertEqual(in_head("/x", [(token, "a")]).place, "header")
        self.assertNotIn(token[4:], repr(found))

    def test_wherever_a_body_is_cut_no_part_of_the_token_is_sent(self) -> None:
        for name in ("GitHub", "Anthropic", "AWS id", "database", "JWT", "Slack"):
            token = tokens()[name].encode()
            body = b'{"messages": [{"text": "use ' + token + b' now"}]}' + b" " * 9000
            for size in (1, 2, 7, 31, len(body)):
                found, sent = in_body(body, size)
                self.assertTrue(found, (name, size))
                self.assertNotIn(token[:12], sent, (name, size))

    def test_a_key_is_cut_before_its_second_line(self) -> None:
        lines = tokens()["key, RSA"].splitlines()
        found, sent = in_body("\n".join(lines).encode(), 5)
        self.assertEqual(found.pattern, "private-key")
        self.assertNotIn(lines[1][-8:].encode(), sent)

    def test_compressed_bodies(self) -> None:
        body = b"x" * 70_000 + b" " + tokens()["npm"].encode() + b" "
        raw = zlib.compressobj(wbits=-15)
        small = zlib.compressobj(wbits=13)
        for encoding, packed in {
            "gzip": gzip.compress(body),
            "deflate": zlib.compress(body),
            " deflate": raw.compress(body) + raw.flush(),
            "zstd": zstandard.compress(body),
            "": gzip.compress(body),
            "  deflate": small.compress(body) + small.flush(),
            "  gzip": gzip.compress(b"harmless") + gzip.compress(b"") + b"\0\0" + gzip.compress(body),
        }.items():
            for size in (1, 1000, len(packed)):
                self.assertTrue(in_body(packed, size, encoding.strip())[0], (encoding, size))

    def test_compressed_parts_of_bodies(self) -> None:
        token = tokens()["Anthropic"].encode()
        packed = gzip.compress(b"x" * 999 + b" " + token, mtime=0)
        part = b"--b\r\nContent-Disposition: form-data; name=f\r\n\r\n%b\r\n"
        form = part % gzip.compress(b"harmless") + part % b"\x1f\x8b\x08 by chance" + part % packed + b"--b--\r\n"
        for body in (form, b"x" * 9000 + packed):
            for size in (1, 7, 1000, len(body)):
                self.assertTrue(in_body(body, size)[0], size)
                self.assertTrue(in_body(body, size, "identity")[0], size)
        clean = part % gzip.compress(random.Random(3).randbytes(99_000)) + b"--b--\r\n"
        self.assertEqual(in_body(clean * 3, 1000), (None, clean * 3))

    def test_encodings_in_encodings(self) -> None:
        detector = Detector(OwnSecrets.SECRETS, clock=lambda: NOW)
        for token in (tokens()["Anthropic"], tokens()["GitHub"], OwnSecrets.SECRETS[0].decode()):
            for encoding, spelled in further_encodings(token).items():
                if len(spelled) >= 40:
                    for body in (spelled, b'{"d": "' + spelled + b'"}', b"k=" + spelled + b"&b=2"):
                        for size in (len(body), 90):
                            found, sent = in_body(body, size, detector=detector)
                            self.assertTrue(found, (token, encoding, size))
                            self.assertLess(len(sent), 90 + 20, (encoding, size))

    def test_an_escape_far_away_takes_no_context_away(self) -> None:
        r = random.Random(9)
        signed = (
            b"https://b.s3.amazonaws.com/f?AWSAccessKeyId=AK"
            + b"IA"
            + bytes(r.choices(b"ABCDEFGHIJKLMNOP234567", k=16))
        )
        for distance in range(60):
            body = b"%2Fx" + b"0" * distance + signed + b"&Expires=1" + b"0" * distance + b"%2Fx"
            self.assertIsNone(in_body(b"x" * 2000 + body)[0], distance)

    def test_what_is_packed_many_times_takes_little_time(self) -> None:
        bomb = base64.b64encode(gzip.compress(bytes(8 << 20), mtime=0))
        for body in (b" ".join([bomb] * 20), b"\x1f\x8b\x08\0" * 200_000, b"%41" * 300_000, b"&#65;" * 200_000):
            took = median_ms(lambda body=body: in_body(body), 1)
            self.assertLess(took, 4000, body[:20])

    def test_a_body_that_unpacks_to_too_much_is_not_kept(self) -> None:
        pack = zlib.compressobj(wbits=31)
        bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(300)) + pack.flush()
        for encoding, body in (("gzip", bomb), ("zstd", zstandard.compress(bytes(300 << 20)))):
            tracemalloc.start()
            found, sent = in_body(body, 65_536, encoding)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertEqual((found, sent), (None, body))
            self.assertLess(peak, 16 << 20, encoding)

    def test_messages_of_a_websocket(self) -> None:
        token = tokens()["Stripe"].encode()
        key = b"\x01\x80\xfe\x37"

        def masked(payload: bytes) -> bytes:
            head = bytearray(frame(b"x" * len(payload), 0x81)[: -len(payload)])
            head[1] |= 0x80
            return bytes(head) + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))

        sent = masked(b"hello") + masked(b"y" * 70_000) + masked(b"take " + token)
        for size in (1, 5, 1000, len(sent)):
            scan = FrameScan(DETECTOR, TARGET)
            for at in range(0, len(sent), size):
                scan.feed(sent[at : at + size])
            self.assertEqual(scan.finding.pattern, "stripe-key", size)
        clean = FrameScan(DETECTOR, TARGET)
        clean.feed(masked(b"hello") + masked(token[:10]))
        self.assertIsNone(clean.finding)


class OwnSecrets(unittest.TestCase):
    SECRETS = (b"my-own/Secret+value7", b"Zx9Qw7Rt5Kp2aBcD3eF4", b"tiny")

    def test_in_the_usual_encodings_to_every_host_but_its_own(self) -> None:
        detector = Detector(self.SECRETS, clock=lambda: NOW)
        for secret in self.SECRETS[:2]:
            for encoding, spelled in encodings(secret.decode()).items():
                body = b"'" + spelled.encode() + b"'"
                self.assertTrue(in_body(body, detector=detector)[0], (secret, encoding))
                self.assertIsNone(in_body(body, detector=detector, target=Target("h.test", "/", secret))[0])
        self.assertIsNone(in_body(b"a tiny thing", detector=detector)[0])


class Benign(unittest.TestCase):
    def test_none_of_the_requests_of_agents_is_refused(self) -> None:
        requests = benign()
        wrong = []
        for name, host, path, headers, body in requests:
            target = Target(host, path)
            encoding = dict(headers).get("content-encoding", "")
            found = in_head(path, headers, target) or in_body(body, encoding=encoding, target=target)[0]
            if found:
                wrong.append((name, found))
        size = sum(len(body) for *_, body in requests)
        print(f"\n  agents: {len(requests)} requests ({size / 1e6:.0f} MB), {len(wrong)} refused")
        self.assertGreaterEqual(len(requests), 200)
        self.assertEqual(wrong, [])

    def test_a_token_of_a_service_may_go_to_that_service_only(self) -> None:
        token = tokens()["GitHub"]
        bearer = [("Authorization", f"Bearer {token}")]
        self.assertIsNone(in_head("/", bearer, Target("api.github.com", "/")))
        self.assertTrue(in_head("/", bearer, Target("github.com.evil.test", "/")))
        self.assertTrue(in_head("/", [("x-note", token)], Target("api.github.com", "/")))
        self.assertTrue(in_body(token.encode(), target=Target("api.github.com", "/gists"))[0])

    def test_a_jwt_may_go_where_it_is_meant_for(self) -> None:
        token = jwt(random.Random(1), {"aud": ["https://api.a.test/"], "exp": NOW + 9})
        self.assertIsNone(in_head("/", [("x-note", token)], Target("api.a.test", "/")))
        self.assertTrue(in_head("/", [("x-note", token)], Target("api.b.test", "/")))
        self.assertIsNone(in_head("/", [("Authorization", f"Bearer {token}")], Target("api.b.test", "/")))

    def test_what_passes_in_a_place_of_its_own_is_refused_in_others(self) -> None:
        r = random.Random(4)
        session = jwt(r, {"sub": "42", "exp": NOW + 86_400})
        signed = jwt(r, {"sub": "42", "exp": NOW + 300})
        google, github = tokens()["Google"], tokens()["GitHub"]
        self.assertTrue(in_head("/", [("Mcp-Session-Id", github)]))
        self.assertTrue(in_head("/", [("X-Note", session)]))
        self.assertTrue(in_head(f"/a?jwt={session}", []), "a signed URL does not last for a day")
        self.assertIsNone(in_head(f"/a?jwt={signed}", []))
        self.assertTrue(in_head(f"/a?q={signed}", []))
        self.assertTrue(in_head(f"/a?sig={github}", []))
        self.assertTrue(in_body(f"GEMINI_API_KEY={google} # see sourcemaps".encode())[0])
        self.assertTrue(in_head(f"/a?key={google}", []))
        self.assertTrue(in_body(google.encode(), target=Target("maps.googleapis.com", "/"))[0])

    def test_other_bodies_pass_unchanged_and_at_once(self) -> None:
        for size in (1, 1000, 65_536):
            body = random.Random(size).randbytes(20_000)
            self.assertEqual(in_body(body, size), (None, body))
        scan = Scan(DETECTOR, TARGET)
        self.assertEqual(scan.feed(b'{"event": "one"}'), b'{"event": "one"}')
        self.assertEqual(scan.feed(b"line\n"), b"line\n")
        self.assertEqual(scan.feed(b"a word"), b"a ")
        self.assertEqual(scan.feed(b"s end\n"), b"words end\n")

    def test_the_time_that_it_takes(self) -> None:
        body = large_turn()
        took = median_ms(lambda: in_body(body))
        built = median_ms(lambda: Detector([b"Zx9Qw7Rt5Kp2aBcD3eF4" * 5] * 4), 3)
        print(f"\n  search: {took:.1f} ms for 1 MB of JSON; {built:.0f} ms to build it")
        self.assertLess(took, 60)
        # The worst case of an agent that wants to keep the proxy busy.
        busy = b" ".join(literal for pattern in PATTERNS for literal in pattern.literals)
        busy *= 100_000 // len(busy)
        took = median_ms(lambda: in_body(busy), 3)
        print(f"\n  search: {took:.0f} ms for {len(busy) / 1e3:.0f} KB of begins of tokens")
        self.assertLess(took, 2000)

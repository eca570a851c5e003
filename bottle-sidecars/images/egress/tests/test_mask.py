import base64
import html
import json
import random
import re
import time
import unittest
import urllib.parse

from egress.mask import FrameMask, Mask, Spellings

TOKEN = b"sk/proj-Zx9+Qw_7Rt5Kp2/aB-" + b"cD3eF4gH5iJ6" * 3


def through(text: bytes, size: int, *secrets: bytes) -> bytes:
    mask = Mask(Spellings(secrets))
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    return b"".join(mask.feed(chunk) for chunk in [*chunks, b""])


class Masking(unittest.TestCase):
    def test_wherever_the_chunks_are_cut(self) -> None:
        text = b"a secret, se, secsecret and secret!se"
        for size in range(1, len(text) + 1):
            self.assertEqual(through(text, size, b"secret"), b"a ******, se, sec****** and ******!se", size)

    def test_several(self) -> None:
        text = b"aab abab aabab"
        for size in range(1, len(text) + 1):
            self.assertNotIn(b"aab", through(text, size, b"aab", b"abab"))
            self.assertEqual(len(through(text, size, b"aab", b"abab")), len(text))

    def test_a_secret_that_was_encoded(self) -> None:
        for secret in (TOKEN, b"ghp_16C7e42F292c6912E7710c838347Ae178B4a", b"sk-ant-api03-Q9_x&y+z=="):
            text = secret.decode()
            spelled = {
                "case": text.swapcase(),
                "JSON": json.dumps(text)[1:-1].replace("/", "\\/"),
                "JSON, all": "".join(f"\\u{ord(character):04X}" for character in text),
                "JSON, dash": text.replace("-", "\\u002d").replace("_", "\\u005F"),
                "URL": urllib.parse.quote(text, safe=""),
                "URL, lower case": urllib.parse.quote(text, safe="").lower(),
                "URL, twice": urllib.parse.quote(urllib.parse.quote(text, safe=""), safe=""),
                "URL, all": "".join(f"%{ord(character):02x}" for character in text),
                "HTML": html.escape(text).replace("/", "&#x2F;"),
                "HTML, decimal": text.replace("/", "&#47;").replace("-", "&#45;"),
                "HTML, names": text.replace("/", "&sol;").replace("+", "&plus;").replace("_", "&lowbar;"),
                "HTML, all": "".join(f"&#{ord(character)};" for character in text),
                "HTML, all, hexadecimal": "".join(f"&#X{ord(character):x};" for character in text),
                "HTML, zeros": "".join(f"&#{ord(character):07};" for character in text),
                "HTML, hexadecimal, zeros": "".join(f"&#x{ord(character):08X};" for character in text),
                "HTML, unterminated": "".join(f"&#{ord(character)}" for character in text),
                "HTML, zeros, unterminated": "".join(f"&#{ord(character):07}" for character in text),
                "HTML, signs": re.sub("[^A-Za-z0-9]", lambda sign: f"&#{ord(sign[0]):07}", text),
                "Markdown": text.replace("_", "\\_").replace("-", "\\-"),
                "hexadecimal": secret.hex(),
                "HEXADECIMAL": secret.hex().upper(),
            }
            for name, spelling in spelled.items():
                raw = spelling.encode()
                for size in (1, 3, 7, len(raw) + 9):
                    masked = through(b"'" + raw + b"' and", size, secret)
                    # The end of a reference that came later is no part of the secret.
                    masked = masked.replace(b"*;'", b"**'")
                    self.assertEqual(masked, b"'" + b"*" * len(raw) + b"' and", (name, size))

    def test_a_secret_inside_base64(self) -> None:
        for before in (b"", b"x", b"xy", b"user:", b'{"key": "'):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                for change in (bytes, lambda encoded: encoded.replace(b"/", b"\\/"), urllib.parse.quote_from_bytes):
                    encoded = encode(before + TOKEN + b'"} and more')
                    text = change(encoded)
                    text = text.encode() if isinstance(text, str) else text
                    for size in (1, 5, len(text)):
                        masked = through(b"<" + text + b">", size, TOKEN)
                        self.assertEqual(len(masked), len(text) + 2)
                        # At most one character at each end is also one of what is before or after.
                        left = len(masked) - masked.count(b"*") - 2
                        around = len(encode(before + b'"} and more'))
                        self.assertLessEqual(left, around + 8, (before, masked))
                        self.assertIn(b"*" * (len(TOKEN) * 4 // 3 - 2), masked, (before, size))

    def test_base64_and_hexadecimal_in_lines(self) -> None:
        for columns in (48, 64, 76):
            for line_end in ("\n", "\r\n", "\\r\\n", "\\n", "\n ", "%0A"):
                for before in range(0, 64, 9):
                    for encode in (base64.b64encode, bytes.hex):
                        secret = b"Zx9Qw7Rt5Kp2aBcD3eF4gH5iJ6kL7mN8oP9"
                        clear = b"." * before
                        encoded = encode(clear + secret + b"." * 60)
                        encoded = encoded if isinstance(encoded, str) else encoded.decode()
                        text = "".join(
                            encoded[at : at + columns] + line_end for at in range(0, len(encoded), columns)
                        ).encode()
                        for size in (1, 50, len(text)):
                            masked = through(text, size, secret)
                            left = masked.decode().replace(line_end, "").replace("*", "")
                            around = encode(clear + b"." * 60)
                            case = (columns, line_end, before, size, masked)
                            self.assertEqual(len(masked), len(text), case)
                            self.assertLessEqual(len(left), len(around) + 8, case)

    def test_other_text_is_left_alone(self) -> None:
        generator = random.Random(1)
        spellings = Spellings([TOKEN])
        for text in (
            generator.randbytes(100_000),
            base64.b64encode(generator.randbytes(100_000)),
            b"%2F\\/&#47;" * 9_000,
            b"&#00000" * 9_000,
            b"\r\n" * 9_000,
        ):
            for size in (13, 4096, len(text)):
                mask = Mask(spellings)
                passed = b"".join(mask.feed(text[at : at + size]) for at in range(0, len(text), size)) + mask.feed(b"")
                self.assertEqual(passed, text)

    def test_the_time_that_it_takes(self) -> None:
        binary = random.Random(1).randbytes(8 << 20)
        page = b"<p>It&#39;s a line of a page, and &#8217;more&#8217; of it.</p>\r\n" * 130_000
        for name, text, least in (("binary", binary, 100), ("HTML", page, 50)):
            mask = Mask(Spellings([TOKEN]))
            began = time.process_time()
            for at in range(0, len(text), 1 << 16):
                mask.feed(text[at : at + (1 << 16)])
            rate = len(text) / 1e6 / (time.process_time() - began)
            print(f"\n  masking: {rate:.0f} MB/s of {name}")
            self.assertGreater(rate, least)

    def test_nothing_is_held_without_need(self) -> None:
        mask = Mask(Spellings([b"secret"]))
        self.assertEqual(mask.feed(b"data: 1\n\n"), b"data: 1\n\n")
        self.assertEqual(mask.feed(b"data: sec"), b"data: ")
        self.assertEqual(mask.feed(b"ond\n\n"), b"second\n\n")
        self.assertEqual(mask.feed(b"secret"), b"******")
        self.assertEqual(mask.feed(b"s"), b"")
        self.assertEqual(mask.feed(b""), b"s")


def frame(payload: bytes, first: int = 0x82) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 1 << 16:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


class MaskingFrames(unittest.TestCase):
    FRAMES = (b"", b"a secret", b"s" * 125 + b"secret", b"x" * 70_000 + b"secret", b"secre", b"t")

    def test_wherever_the_chunks_are_cut(self) -> None:
        text = b"".join(map(frame, self.FRAMES))
        masked = b"".join(frame(payload.replace(b"secret", b"******")) for payload in self.FRAMES)
        for size in (1, 2, 3, 7, 130, 65_536, len(text)):
            mask = FrameMask(Spellings([b"secret"]))
            self.assertEqual(
                b"".join(mask.feed(text[at : at + size]) for at in range(0, len(text), size)), masked, size
            )

    def test_a_frame_is_never_held_back(self) -> None:
        mask = FrameMask(Spellings([b"secret"]))
        for payload in (b"it ends with s", b"secre", b"", b"s"):
            self.assertEqual(mask.feed(frame(payload)), frame(payload))

import unittest

from egress.mask import FrameMask, Mask


def through(text: bytes, size: int, *secrets: bytes) -> bytes:
    mask = Mask(secrets)
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

    def test_nothing_is_held_without_need(self) -> None:
        mask = Mask([b"secret"])
        self.assertEqual(mask.feed(b"data: 1\n\n"), b"data: 1\n\n")
        self.assertEqual(mask.feed(b"data: sec"), b"data: ")
        self.assertEqual(mask.feed(b"ond\n\n"), b"second\n\n")
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
            mask = FrameMask([b"secret"])
            self.assertEqual(
                b"".join(mask.feed(text[at : at + size]) for at in range(0, len(text), size)), masked, size
            )

    def test_a_frame_is_never_held_back(self) -> None:
        mask = FrameMask([b"secret"])
        for payload in (b"it ends with s", b"secre", b"", b"s"):
            self.assertEqual(mask.feed(frame(payload)), frame(payload))

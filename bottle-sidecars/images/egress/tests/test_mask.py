import unittest

from egress.mask import Mask


def through(text: bytes, size: int, *secrets: bytes) -> bytes:
    mask = Mask(secrets)
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    return b"".join(mask.feed(chunk) for chunk in [*chunks, b""])


class Masking(unittest.TestCase):
    def test_wherever_the_chunks_are_cut(self):
        text = b"a secret, se, secsecret and secret!se"
        for size in range(1, len(text) + 1):
            self.assertEqual(through(text, size, b"secret"), b"a ******, se, sec****** and ******!se", size)

    def test_several(self):
        text = b"aab abab aabab"
        for size in range(1, len(text) + 1):
            self.assertNotIn(b"aab", through(text, size, b"aab", b"abab"))
            self.assertEqual(len(through(text, size, b"aab", b"abab")), len(text))

    def test_nothing_is_held_without_need(self):
        mask = Mask([b"secret"])
        self.assertEqual(mask.feed(b"data: 1\n\n"), b"data: 1\n\n")
        self.assertEqual(mask.feed(b"data: sec"), b"data: ")
        self.assertEqual(mask.feed(b"ond\n\n"), b"second\n\n")
        self.assertEqual(mask.feed(b"s"), b"")
        self.assertEqual(mask.feed(b""), b"s")

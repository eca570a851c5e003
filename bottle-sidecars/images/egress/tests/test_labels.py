import base64
import random
import unittest

from egress.labels import Names, coded, holds_data

from .dlp_cases import NAMES


def split(text: str, size: int, separator: str) -> str:
    return separator.join(text[at : at + size] for at in range(0, len(text), size))


def spelled(data: bytes) -> dict[str, str]:
    """The ways in which data is written in a name."""
    hexadecimal = data.hex()
    number = str(int.from_bytes(b"\x01" + data))
    base32 = base64.b32encode(data).decode().rstrip("=").lower()
    return {
        "hexadecimal": hexadecimal,
        "hexadecimal, prefix": f"x-{hexadecimal}",
        "hexadecimal, suffix": f"{hexadecimal}-end",
        "hexadecimal, labels of 15": split(hexadecimal, 15, "."),
        "hexadecimal, labels of 4": split(hexadecimal, 4, "."),
        "hexadecimal, words between": split(hexadecimal, 12, "-the-"),
        "hexadecimal, as letters": hexadecimal.translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop")),
        "decimal": number,
        "decimal, labels of 15": split(number, 15, "."),
        "bytes": ".".join(map(str, data)),
        "base32": base32,
        "base32, prefix": f"x-{base32}",
        "base32, labels of 10": split(base32, 10, "."),
    }


class Data(unittest.TestCase):
    def test_data_in_a_name_however_it_is_written(self) -> None:
        generator = random.Random(5)
        tried, missed = 0, []
        for _ in range(200):
            for name, text in spelled(generator.randbytes(24)).items():
                # Labels have at most 63 characters.
                host = f"{'.'.join(split(label, 60, '.') for label in text.split('.'))}.allowed.test"
                tried += 1
                if not holds_data(host):
                    missed.append((name, host))
        print(f"\n  names: {tried - len(missed)} of {tried} with 24 bytes of data are found")
        self.assertLess(len(missed) / tried, 0.02, missed[:9])

    def test_one_label_in_hexadecimal(self) -> None:
        generator = random.Random(5)
        labels = [generator.randbytes(size).hex() for size in (8, 12, 16, 20, 31) for _ in range(200)]
        missed = sum(not holds_data(f"{label}.allowed.test") for label in labels)
        self.assertLess(missed / len(labels), 0.01)

    def test_ordinary_names_pass(self) -> None:
        self.assertGreaterEqual(len(NAMES), 150)
        most = max(NAMES, key=coded)
        print(f"\n  names: of {len(NAMES)} ordinary ones, {most} has the most characters in no word, {coded(most)}")
        self.assertEqual([name for name in NAMES if holds_data(name)], [])


class Many(unittest.TestCase):
    def test_ordinary_names_in_one_hour(self) -> None:
        names = Names()
        self.assertEqual([name for name in NAMES * 3 if names.refuses(name, 0)], [])

    def test_data_in_many_names(self) -> None:
        names, generator = Names(), random.Random(3)
        pieces = [f"x-{generator.randbytes(7).hex()}.allowed.test" for _ in range(100)]
        passed = [piece for second, piece in enumerate(pieces) if not names.refuses(piece, second)]
        self.assertEqual(len(passed), 32)
        self.assertFalse(names.refuses(passed[5], 99), "a name that has passed is not counted again")
        self.assertFalse(names.refuses("x-0a1b2c3d4e.other.test", 99), "each domain has its own number")
        self.assertFalse(names.refuses("docs.allowed.test", 99), "words are not counted")
        self.assertTrue(names.refuses(pieces[-1], 3599))
        self.assertFalse(names.refuses(pieces[-1], 3602), "the first one is an hour ago")

    def test_the_memory_is_bounded(self) -> None:
        names = Names()
        for number in range(2000):
            names.refuses(f"host-12345678.d{number}.test", number)
        self.assertEqual(len(names._domains), 256)

import unittest

from egress.names import canonical_host, join_authority, split_authority


class CanonicalHost(unittest.TestCase):
    def test_one_form(self) -> None:
        for given, form in {
            "API.Example.COM": "api.example.com",
            "xn--bcher-kva.example": "xn--bcher-kva.example",
            "under_score.example": "under_score.example",
            "localhost": "localhost",
            "192.0.2.1": "192.0.2.1",
            "[2001:DB8:0::1]": "2001:db8::1",
        }.items():
            self.assertEqual(canonical_host(given), form)

    def test_what_is_not_plainly_one_host(self) -> None:
        for given in (
            [
                "",
                ".",
                "a..b",
                "api.example.com.",
                ".example.com",
                "a b",
                "a/b",
                "a%2eb",
                "bücher.example",
                "ａpi.example",
            ]
            + [
                "-a.example",
                "a-.example",
                "x" * 64 + ".example",
                "a." * 130 + "b",
                "user@host",
                "a\0b",
                "a\n",
                "*.example",
            ]
            + ["127.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "192.0.2.01", "192.0.2.256", "1.2.3.4.5"]
            + ["2001:db8::1", "[2001:db8::1", "[fe80::1%eth0]", "[]", "[192.0.2.1]"]
        ):
            self.assertIsNone(canonical_host(given), given)


class Authority(unittest.TestCase):
    def test_split(self) -> None:
        self.assertEqual(split_authority("Api.example:8443", 443), ("api.example", 8443))
        self.assertEqual(split_authority("api.example", 443), ("api.example", 443))
        self.assertEqual(split_authority("[::1]:80", None), ("::1", 80))
        self.assertEqual(split_authority("[::1]", 443), ("::1", 443))
        for text in ("api.example", "api.example:", "api.example:0", "api.example:65536", "api.example:+1", "a:b:1"):
            self.assertIsNone(split_authority(text, None), text)
        for text in (
            "api.example:",
            "user@api.example",
            "api.example:443/",
            "[::1]443",
            "[::1]:",
            "",
            ":443",
            "a:443 ",
        ):
            self.assertIsNone(split_authority(text, 443), text)

    def test_join_is_read_back(self) -> None:
        for place in (("api.example", 443), ("api.example", 8443), ("::1", 443), ("::1", 80)):
            self.assertEqual(split_authority(join_authority(*place, 443), 443), place)

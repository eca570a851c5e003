"""What may be proposed, and the form it is queued in."""

import unittest

from supervise.changes import KINDS, MAX_PATCH_BYTES, MAX_REASON, Invalid

_KINDS = {kind.kind: kind for kind in KINDS}


def parse(kind: str, **arguments: object) -> dict:
    return _KINDS[kind].parse({"reason": "why", **arguments})[0]


class ChangesTest(unittest.TestCase):
    def refused(self, kind: str, **arguments: object) -> str:
        with self.assertRaises(Invalid, msg=f"{kind} {arguments}") as caught:
            parse(kind, **arguments)
        return str(caught.exception)

    def test_hosts(self) -> None:
        for given, queued in {
            "a.example": "a.example", "A.Example.": "a.example", "*.a.example": "*.a.example",
            "xn--bcher-kva.example": "xn--bcher-kva.example", "a.xn--p1ai": "a.xn--p1ai",
        }.items():
            self.assertEqual(parse("allow_host", host=given), {"host": queued})
        for host in (
            "localhost", "*.com", "a.*.b", "**.a.b", "1.2.3.4", "0x7f.1", "[::1]", "a.b.1", "a..b", ".a.b", "-a.b",
            "a_b.c", "a.b\n", "a.b/c", "a.b:443", "http://a.b", "é.example", "a b.c", "\u212a.example",
            "a." * 130 + "com",
        ):
            self.refused("allow_host", host=host)

    def test_routes(self) -> None:
        self.assertEqual(
            parse("route", host="a.example", paths=["/b/", "/a", "/a"], methods=["POST", "GET"], credential="T_1"),
            {"host": "a.example", "paths": ["/a", "/b/"], "methods": ["GET", "POST"], "credential": "T_1"},
        )
        self.assertEqual(parse("route", host="a.example", paths=["/"]), {"host": "a.example", "paths": ["/"]})
        for path in ("", "a", "//", "/a//b", "/../a", "/a/.", "/a?b", "/%2e", "/a\\b", "/a b", "/a\n", "/é"):
            self.refused("route", host="a.example", paths=[path])
        self.refused("route", host="a.example", paths=[])
        self.refused("route", host="a.example", paths=["/a"] * 21)
        self.refused("route", host="a.example", methods=["get"])
        self.refused("route", host="a.example", methods=["CONNECT"])

    def test_a_secret_given_for_a_name_is_refused_and_not_repeated(self) -> None:
        for secret in ("sk-live-abcdef0123456789", "xyz_0123456789abcdefABCDEF0123456789", "Bearer abcdef0123456789"):
            self.assertNotIn(secret, self.refused("route", host="a.example", credential=secret))
            self.assertNotIn(secret, self.refused("allow_host", host=secret))
            self.assertNotIn(secret, self.refused("route", host="a.example", methods=[secret]))
            self.assertNotIn(secret, self.refused("allow_host", host="a.example", **{secret: 1}))

    def test_git_upstreams(self) -> None:
        for url in (
            "https://git.example/a/b.git", "https://git.example:8443/a", "ssh://git@git.example:22/a/b",
            "ssh://git.example/~u/a", "git@git.example:a/b.git", "git@git.example:/srv/a.git",
        ):
            self.assertEqual(parse("git_upstream", name="x", url=url), {"name": "x", "url": url})
        for url in (
            "http://git.example/a", "git://git.example/a", "file:///etc/passwd", "ext::sh -c id", "https://u:p@git.example/a",
            "https://u@git.example/a", "ssh://u:p@git.example/a", "https://1.2.3.4/a", "https://git.example/",
            "https://git.example/../a", "https://git.example/a?b", "git@git.example:-oProxyCommand=x",
            "-u@git.example:a", "ssh://-oProxyCommand=x/a", "https://git.example/a//b", "https://git.example/a\n",
        ):
            self.refused("git_upstream", name="x", url=url)
        for name in ("", "A", ".a", "a.", "a..b", "a/b", "-a", "a" * 65):
            self.refused("git_upstream", name=name, url="git@git.example:a")

    def test_image_changes(self) -> None:
        self.assertEqual(parse("image_change", packages=["jq", "g++", "jq"]), {"packages": ["g++", "jq"]})
        self.assertEqual(parse("image_change", dockerfile_patch="RUN true\n"), {"dockerfile_patch": "RUN true\n"})
        for package in ("-y", "a", "a b", "a;b", "a=1", "A1", "a/b", "a\n"):
            self.refused("image_change", packages=[package])
        self.refused("image_change")
        self.refused("image_change", packages=["jq"], dockerfile_patch="RUN true")
        self.refused("image_change", dockerfile_patch="x" * (MAX_PATCH_BYTES + 1))
        self.refused("image_change", dockerfile_patch="é" * (MAX_PATCH_BYTES // 2 + 1))
        self.refused("image_change", dockerfile_patch="RUN true\x1b[2J")

    def test_reasons(self) -> None:
        for reason in (
            "", "  \n", "x" * (MAX_REASON + 1), 5, None,
            "a\x1b[2J", "a\u202eb", "a\u200bb", "a\u2028b", "a\ud800", "a\x00",
        ):
            self.refused("allow_host", host="a.example", reason=reason)
        _change, reason = _KINDS["allow_host"].parse({"host": "a.example", "reason": " two\nlines 😀 "})
        self.assertEqual(reason, "two\nlines 😀")

    def test_the_words_say_what_is_wrong(self) -> None:
        for arguments, words in (
            ({"host": 5}, "`host` must be a JSON string; missing: `reason`"),
            ({}, "missing: `host`, `reason`"),
            ({"host": "a.example", "reason": "x", "y": 1}, "unknown argument; accepted are host, reason"),
            ({"host": "a", "reason": "x"}, "`host` is under its limit of 4"),
        ):
            with self.assertRaises(Invalid) as caught:
                _KINDS["allow_host"].parse(arguments)
            self.assertEqual(sorted(str(caught.exception).split("; ")), sorted(words.split("; ")))


if __name__ == "__main__":
    unittest.main()

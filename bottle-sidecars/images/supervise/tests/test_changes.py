"""Kinds of proposals and the form in which they are queued."""

import json
import unittest
from pathlib import Path

from supervise.changes import KINDS, MAX_PATCH_BYTES, MAX_REASON, Invalid
from supervise.settings import Settings, SettingsError

_KINDS = {kind.kind: kind for kind in KINDS}


def parse(kind: str, **arguments: object) -> dict:
    return _KINDS[kind].parse({"reason": "why", **arguments})[0]


class ChangesTest(unittest.TestCase):
    def refused(self, kind: str, **arguments: object) -> str:
        with self.assertRaises(Invalid, msg=f"{kind} {arguments}") as caught:
            parse(kind, **arguments)
        return str(caught.exception)

    def test_the_table_that_the_host_reads_as_well(self) -> None:
        cases = json.loads(
            (Path(__file__).resolve().parents[2] / "shared/tests/grammar_cases.json").read_text(encoding="utf-8")
        )
        self.assertGreaterEqual(len(cases), 100)
        places = {
            "allowed_host": lambda text: parse("allow_host", host=text),
            "route_host": lambda text: parse("route", host=text),
            "path": lambda text: parse("route", host="a.example", paths=[text]),
            "method": lambda text: parse("route", host="a.example", methods=[text]),
            "credential": lambda text: parse("route", host="a.example", credential=text),
            "upstream": lambda text: parse("git_upstream", name=text, url="https://git.example/a"),
            "git_url": lambda text: parse("git_upstream", name="a", url=text),
            "package": lambda text: parse("image_change", packages=[text]),
            "slug": lambda text: Settings.from_env({"SUPERVISE_BOTTLE_SLUG": text}),
        }
        # No proposal has a header.
        for case in (case for case in cases if case["value"] != "header"):
            with self.subTest(**case):
                try:
                    places[case["value"]](case["text"])
                except (Invalid, SettingsError):
                    accepted = False
                else:
                    accepted = True
                self.assertEqual(accepted, case["accepted"])

    def test_lists_are_sorted_and_bounded(self) -> None:
        self.assertEqual(
            parse("route", host="a.example", paths=["/b/", "/a", "/a"], methods=["POST", "GET"], credential="T_1"),
            {"host": "a.example", "paths": ["/a", "/b/"], "methods": ["GET", "POST"], "credential": "T_1"},
        )
        self.refused("route", host="a.example", paths=[])
        self.refused("route", host="a.example", paths=["/a"] * 21)

    def test_a_secret_given_for_a_name_is_refused_and_not_repeated(self) -> None:
        for secret in ("sk-live-abcdef0123456789", "xyz_0123456789abcdefABCDEF0123456789", "Bearer abcdef0123456789"):
            self.assertNotIn(secret, self.refused("route", host="a.example", credential=secret))
            self.assertNotIn(secret, self.refused("allow_host", host=secret))
            self.assertNotIn(secret, self.refused("route", host=secret))
            self.assertNotIn(secret, self.refused("route", host="a.example", methods=[secret]))
            self.assertNotIn(secret, self.refused("allow_host", host="a.example", **{secret: 1}))

    def test_image_changes(self) -> None:
        self.assertEqual(parse("image_change", packages=["jq", "g++", "jq"]), {"packages": ["g++", "jq"]})
        self.assertEqual(parse("image_change", dockerfile_patch="RUN true\n"), {"dockerfile_patch": "RUN true\n"})
        self.refused("image_change")
        self.refused("image_change", packages=["jq"], dockerfile_patch="RUN true")
        self.refused("image_change", dockerfile_patch="x" * (MAX_PATCH_BYTES + 1))
        self.refused("image_change", dockerfile_patch="é" * (MAX_PATCH_BYTES // 2 + 1))
        self.refused("image_change", dockerfile_patch="RUN true\x1b[2J")

    def test_reasons(self) -> None:
        for reason in (
            "",
            "  \n",
            "x" * (MAX_REASON + 1),
            5,
            None,
            "a\x1b[2J",
            "a\u202eb",
            "a\u200bb",
            "a\u2028b",
            "a\ud800",
            "a\x00",
        ):
            self.refused("allow_host", host="a.example", reason=reason)
        _change, reason = _KINDS["allow_host"].parse({"host": "a.example", "reason": " two\nlines 😀 "})
        self.assertEqual(reason, "two\nlines 😀")

    def test_the_words_say_what_is_wrong(self) -> None:
        for arguments, words in (
            ({"host": 5}, "`host` must be a JSON string; missing: `reason`"),
            ({}, "missing: `host`, `reason`"),
            ({"host": "a.example", "reason": "x", "y": 1}, "unknown argument; accepted are host, reason"),
            ({"host": "", "reason": "x"}, "`host` is under its limit of 1"),
        ):
            with self.assertRaises(Invalid) as caught:
                _KINDS["allow_host"].parse(arguments)
            self.assertEqual(sorted(str(caught.exception).split("; ")), sorted(words.split("; ")))


if __name__ == "__main__":
    unittest.main()

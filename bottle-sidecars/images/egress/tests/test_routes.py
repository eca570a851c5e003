import base64
import json
import unittest
from pathlib import Path

from egress.routes import RoutesError, parse

TOKENS = {
    "EGRESS_TOKEN_A": "token-a",
    "EGRESS_TOKEN_B": "token-b",
}


def table(*routes: str):
    listed = "".join("\n  - {" + route + "}" for route in routes)
    return parse(f"version: 1\nroutes:{listed or ' []'}\n")


def chosen(table, host, path="/", method="GET", port=443):
    found = table.lookup(host).choose(port, path, method)
    return found and found.name


class Grammar(unittest.TestCase):
    def test_the_table_that_manifest_and_proposal_read_as_well(self) -> None:
        cases = json.loads((Path(__file__).resolve().parents[2] / "shared/tests/grammar_cases.json").read_text())
        places = {
            "route_host": lambda text: {"host": text},
            "path": lambda text: {"host": "a.example", "paths": [text]},
            "method": lambda text: {"host": "a.example", "methods": [text]},
            "header": lambda text: {
                "host": "a.example",
                "inject": {"header": text, "template": "{token}", "slot": "EGRESS_TOKEN_A"},
            },
        }
        checked = [case for case in cases if case["value"] in places]
        self.assertGreater(len(checked), 80)
        for case in checked:
            route = {"name": "a", **places[case["value"]](case["text"])}
            with self.subTest(**case):
                try:
                    parse(json.dumps({"version": 1, "routes": [route]}))
                    accepted = True
                except RoutesError:
                    accepted = False
                self.assertEqual(accepted, case["accepted"])


class Ports(unittest.TestCase):
    def test_what_is_no_mapping_from_hosts_to_ports_is_refused(self) -> None:
        for ports in (
            "[]",
            "{a.test: 8443}",
            "{a.test: []}",
            "{a.test: [0]}",
            "{a.test: ['80']}",
            "{A.test: [80]}",
            "x",
        ):
            with self.subTest(ports=ports), self.assertRaisesRegex(RoutesError, "^ports"):
                parse(f"version: 1\nroutes: []\nports: {ports}\n")
        table = parse("version: 1\nroutes: []\nports: {'*.a.test': [80, 8443]}\n")
        self.assertEqual((table.ports("x.a.test"), table.ports("b.test")), ({80, 8443}, {80, 443}))


class Choice(unittest.TestCase):
    def test_exact_host_hides_the_wildcard(self) -> None:
        t = table("name: wild, host: '*.example.com'", "name: exact, host: api.example.com, paths: [/v1/]")
        self.assertEqual(chosen(t, "other.example.com", "/x"), "wild")
        self.assertEqual(chosen(t, "api.example.com", "/v1/x"), "exact")
        self.assertIsNone(chosen(t, "api.example.com", "/x"))

    def test_a_wildcard_is_one_label(self) -> None:
        t = table("name: wild, host: '*.example.com'")
        self.assertIsNone(t.lookup("example.com"))
        self.assertIsNone(t.lookup("a.b.example.com"))
        self.assertIsNone(t.lookup("aexample.com"))
        self.assertIsNone(t.lookup(".example.com"))

    def test_longest_prefix_then_methods(self) -> None:
        t = table(
            "name: all, host: a.example",
            "name: v1, host: a.example, paths: [/v1]",
            "name: v1-below, host: a.example, paths: [/v1/, /v2]",
            "name: v1-post, host: a.example, paths: [/v1], methods: [POST]",
        )
        self.assertEqual(chosen(t, "a.example", "/v1"), "v1")
        self.assertEqual(chosen(t, "a.example", "/v1", "POST"), "v1-post")
        self.assertEqual(chosen(t, "a.example", "/v1/x", "POST"), "v1-below")
        self.assertEqual(chosen(t, "a.example", "/v10"), "all")
        self.assertEqual(chosen(t, "a.example", "/v2/x"), "v1-below")

    def test_methods_are_compared_as_they_are(self) -> None:
        t = table("name: r, host: a.example, methods: [GET]")
        self.assertIsNone(chosen(t, "a.example", method="get"))
        self.assertIsNone(chosen(t, "a.example", method="HEAD"))

    def test_ports(self) -> None:
        t = table("name: r, host: a.example, port: 8443")
        self.assertIsNone(chosen(t, "a.example"))
        self.assertEqual(chosen(t, "a.example", port=8443), "r")


class Dlp(unittest.TestCase):
    def test_the_route_then_the_host_then_the_longest_domain(self) -> None:
        modes = parse(
            "version: 1\ndlp: block\nhosts: [{host: '*.a.example', dlp: off}, {host: '*.b.a.example', dlp: warn}, "
            "{host: c.b.a.example, dlp: block}]\nroutes: [{name: r, host: x.a.example, dlp: 'off'}]\n"
        )
        for host, mode in {
            "example": "block",
            "a.example": "off",
            "y.a.example": "off",
            "b.a.example": "warn",
            "y.x.b.a.example": "warn",
            "c.b.a.example": "block",
        }.items():
            self.assertEqual(modes.dlp(host, None), mode, host)
        self.assertEqual(modes.dlp("x.a.example", modes.routes[0]), "off")

    def test_without_a_mode_nothing_is_searched(self) -> None:
        self.assertFalse(table("name: r, host: a.example").searches)
        self.assertTrue(table("name: r, host: a.example, dlp: warn").searches)


class Inject(unittest.TestCase):
    def test_template_and_basic(self) -> None:
        t = table(
            "name: a, host: a.example,"
            " inject: {header: authorization, template: 'Bearer {token}', slot: EGRESS_TOKEN_A}",
            "name: b, host: b.example, inject: {header: authorization, basic_username: u, slot: EGRESS_TOKEN_B}",
        )
        bearer, basic = (route.injection.fill(TOKENS[route.injection.slot]) for route in t.routes)
        self.assertEqual(bearer.header, (b"authorization", b"Bearer token-a"))
        self.assertEqual(base64.b64decode(basic.header[1].removeprefix(b"Basic ")), b"u:token-b")
        self.assertNotIn("token-a", repr(bearer))
        self.assertEqual(t.routes[0].injection.fill("next").header[1], b"Bearer next")
        self.assertEqual(t.slots(), {"EGRESS_TOKEN_A", "EGRESS_TOKEN_B"})

    def test_the_headers_that_are_injected_for_a_host(self) -> None:
        t = table(
            "name: a, host: a.example, inject: {header: my-key, template: '{token}', slot: EGRESS_TOKEN_A}",
            "name: b, host: b.example",
        )
        self.assertEqual(t.lookup("a.example").injected(), {"my-key"})
        self.assertEqual(t.lookup("b.example").injected(), frozenset())


class Errors(unittest.TestCase):
    def check(self, text: str, *said: str):
        with self.assertRaises(RoutesError) as caught:
            parse(text)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        for part in said:
            self.assertIn(part, message)

    def check_route(self, route: str, *said: str):
        self.check("version: 1\nroutes:\n  - {" + route + "}\n", *said)

    def test_the_file(self) -> None:
        self.check("", "mapping")
        self.check("version: 1\nroutes: [\n", "line")
        self.check("version: 1\nroutes: []\n---\nversion: 1\n", "document")
        self.check("version: 1\nversion: 1\nroutes: []\n", "duplicate key")
        self.check("version: 2\nroutes: []\n", "version")
        self.check("version: true\nroutes: []\n", "version")
        self.check("version: '1'\nroutes: []\n", "version")
        self.check("routes: []\n", "`version` is missing")
        self.check("version: 1\n", "`routes` is missing")
        self.check("version: 1\nroutes: {}\n", "routes: must be a list")
        self.check("version: 1\nroutes: []\nextra: 1\n", "unknown key", "extra")
        self.check("version: 1\nroutes: []\ndlp: true\n", "dlp: must be off, warn, block")
        self.check("version: 1\nroutes: []\nhosts: {}\n", "hosts: must be a list")
        self.check("version: 1\nroutes: []\nhosts: [{host: a.example}]\n", "`dlp` is missing")
        self.check("version: 1\nroutes: []\nhosts: [{host: 'A.example', dlp: off}]\n", "hosts[0].host")
        self.check("version: 1\nroutes: [x]\n", "routes[0]: must be a mapping")
        self.check("version: 1\nroutes: !!python/object:os.system []\n")
        self.check("\tversion: 1")

    def test_a_route(self) -> None:
        self.check_route("host: a.example", "`name` is missing")
        self.check_route("name: a", "`host` is missing")
        self.check_route("name: a, host: a.example, path: [/v1]", "unknown key", "path")
        self.check_route("name: 'a b', host: a.example", "routes[0].name")
        self.check_route("name: 1, host: a.example", "routes[0].name")
        for host in (
            "A.example",
            "a.example.",
            "'*'",
            "'*.example'",
            "'a.*.example'",
            "'*.*.example'",
            "1",
            "127.1",
            "a:1",
        ):
            self.check_route(f"name: a, host: {host}", "routes[0].host")
        for port in ("0", "65536", "'443'", "true", "443.0", "null"):
            self.check_route(f"name: a, host: a.example, port: {port}", "routes[0].port")
        for paths in (
            "[]",
            "/v1",
            "[v1]",
            "['/v1?x']",
            "['/v1#x']",
            "['/%76']",
            "[/a/../b]",
            "[/a//b]",
            "[1]",
            "[/a, /a]",
        ):
            self.check_route(f"name: a, host: a.example, paths: {paths}", "routes[0].paths")
        for methods in ("[]", "GET", "[get]", "[1]", "[CONNECT]", "[TRACE]", "[GET, GET]", "['GET ']"):
            self.check_route(f"name: a, host: a.example, methods: {methods}", "routes[0].methods")

    def test_an_injection(self) -> None:
        def check(inject: str, *said: str):
            self.check_route("name: a, host: a.example, inject: {" + inject + "}", "routes[0].inject", *said)

        ok = "slot: EGRESS_TOKEN_A, template: '{token}'"
        check("slot: EGRESS_TOKEN_A, template: '{token}'", "`header` is missing")
        check(f"header: Authorization, {ok}", "header")
        check(f"header: 'a:b', {ok}", "header")
        for header in ("host", "content-length", "transfer-encoding", "content_length", "connection"):
            check(f"header: {header}, {ok}", "inject.header: must be", "no header that frames or routes")
        check(f"header: h, {ok}, more: 1", "unknown key")
        check("header: h, slot: EGRESS_TOKEN_A", "either")
        check(f"header: h, {ok}, basic_username: u", "either")
        check("header: h, slot: EGRESS_TOKEN_A, template: token", "template")
        check("header: h, slot: EGRESS_TOKEN_A, template: '{token}{token}'", "template")
        check('header: h, slot: EGRESS_TOKEN_A, template: "{token}\\r\\nx: y"', "template")
        check("header: h, slot: EGRESS_TOKEN_A, basic_username: 'u:v'", "colon")
        check("header: h, slot: PATH, template: '{token}'", "slot")
        check("header: h, slot: EGRESS_TOKEN_a-b, template: '{token}'", "slot")

    def test_names_and_claims_are_unique(self) -> None:
        def check(one: str, other: str, *said: str):
            self.check(f"version: 1\nroutes:\n  - {{{one}}}\n  - {{{other}}}\n", *said)

        check("name: a, host: a.example", "name: a, host: b.example", "routes[1].name", "routes[0]")
        check("name: a, host: a.example", "name: b, host: a.example", "both claim a.example:443")
        check(
            "name: a, host: a.example, paths: [/v1, /v2]",
            "name: b, host: a.example, paths: [/v2]",
            "both claim a.example:443/v2",
        )
        check(
            "name: a, host: a.example, methods: [GET, POST]",
            "name: b, host: a.example, methods: [POST]",
            "both claim POST a.example:443",
        )
        table("name: a, host: a.example, methods: [GET]", "name: b, host: a.example, methods: [POST]")
        table("name: a, host: a.example, methods: [GET]", "name: b, host: a.example")
        table("name: a, host: a.example", "name: b, host: a.example, port: 8443")

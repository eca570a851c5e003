"""The whole proxy, driven over sockets as a client would, or as no decent client would."""

import json
import socket
import ssl
import stat
import tempfile
import threading
import time
import unittest
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .support import REFUSALS, Answer, Authority, Egress, Outer, ask, until

TOKENS = {
    "EGRESS_TOKEN_API": "sk-real-1f0c",
    "EGRESS_TOKEN_GIT": "ghp-real-77aa",
}
ROUTES = """
version: 1
routes:
  - name: api
    host: api.test
    paths: [/v1/]
    methods: [GET, POST]
    inject: {header: x-api-key, template: "{token}", slot: EGRESS_TOKEN_API}
  - name: git
    host: "*.git.test"
    inject: {header: authorization, basic_username: x-access-token, slot: EGRESS_TOKEN_GIT}
  - name: open
    host: open.test
    paths: [/open]
  - name: blocked
    host: blocked.test
    inject: {header: x-api-key, template: "{token}", slot: EGRESS_TOKEN_API}
"""


def get(path: str, host: str, *headers: str, method: str = "GET", body: str = "") -> str:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, *length, "", body])


class Proxy(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.outer = Outer(Authority("outer"))
        cls.egress = Egress(cls.outer.port, cls.outer.authority, ROUTES, TOKENS, cls.outer.origins).start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.egress.close()
        cls.outer.close()

    def setUp(self) -> None:
        self.outer.forget()
        time.sleep(0.005)  # lines tell their time in milliseconds
        self.began = datetime.now(UTC) - timedelta(milliseconds=2)

    def lines(self, count: int) -> list[dict]:
        """The lines of requests that this test has made, once there are so many."""

        def ours(line: dict) -> bool:
            return datetime.fromisoformat(line["ts"]) - timedelta(milliseconds=line["ms"]) >= self.began

        return until(lambda: (found := [line for line in self.egress.requests() if ours(line)])[count - 1 :] and found)

    def line(self, nth: int = 1) -> dict:
        return self.lines(nth)[nth - 1]

    def refused_in_tunnel(self, request: str | bytes, status: int, rule: str, target="api.test:443", name=None):
        with self.egress.tunnel(target, name) as tunnel:
            answer = ask(tunnel, request)
            self.assertEqual((answer.status, answer.rule()), (status, rule))
        self.assertEqual((self.outer.connects, self.outer.heads), ([], []), "something was sent on")


class Passing(Proxy):
    def test_the_credential_is_replaced(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            for _ in range(2):  # twice on one connection
                answer = ask(
                    tunnel,
                    get("/v1/x?key=in-query&a=in-query", "api.test", "X-API-Key: dummy", "Accept-Encoding: gzip"),
                )
                answer.body()
                head = self.outer.heads[-1].decode().lower()
                self.assertIn("x-api-key: sk-real-1f0c\r\n", head)
                self.assertEqual(head.count("x-api-key"), 1)
                self.assertIn("accept-encoding: identity\r\n", head)
                self.assertTrue(head.startswith("get /v1/x?a=in-query http/1.1\r\nhost: api.test\r\n"))
                self.assertNotIn("dummy", head)
        self.assertEqual(self.outer.connects, ["api.test:443"])
        line = self.line()
        self.assertLessEqual({"ts", "ms", "bytes_up", "bytes_down"}, line.keys())
        self.assertEqual(
            {key: line[key] for key in ("method", "host", "port", "path", "route", "injected", "status", "outcome")},
            {
                "method": "GET",
                "host": "api.test",
                "port": 443,
                "path": "/v1/x",
                "route": "api",
                "injected": True,
                "status": 200,
                "outcome": "done",
            },
        )
        self.assertNotIn("in-query", json.dumps(line))

    def test_a_removed_header_is_named_once(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            for _ in range(2):
                own = ("Cookie: session=own", "X-Own: own", f"X-{'a' * 100}: own", "X-Api-Key: own", "X-Request-Id: 1")
                head = ask(tunnel, get("/v1/x", "api.test", *own)).json()["head"]
                self.assertNotIn("own", head)
                self.assertIn("X-Request-Id: 1\r\n", head)
        lines = [line for line in self.egress.lines() if line["event"] == "header-removed"]
        told = [(line["host"], line["header"]) for line in lines]
        self.assertEqual(told, [("api.test", name) for name in ("cookie", "x-own", f"x-{'a' * 62}")])
        self.assertNotIn("own", [value for line in lines for value in line.values()])

    def test_a_removed_parameter_is_named_once(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            for _ in range(2):
                sent = ask(tunnel, get("/v1/x?a=1&Private_Token=own&b=2", "api.test")).json()["head"]
                self.assertIn("/v1/x?a=1&b=2 HTTP", sent)
        told = [line for line in self.egress.lines() if line["event"] == "parameter-removed"]
        self.assertEqual([(line["host"], line["parameter"]) for line in told], [("api.test", "privatetoken")])

    def test_basic_on_a_wildcard(self) -> None:
        with self.egress.tunnel("one.git.test:443") as tunnel:
            ask(tunnel, get("/x", "one.git.test", "Authorization: Basic ZHVtbXk=")).body()
        head = self.outer.heads[-1].decode()
        self.assertIn("authorization: Basic eC1hY2Nlc3MtdG9rZW46Z2hwLXJlYWwtNzdhYQ==", head)
        self.assertNotIn("ZHVtbXk=", head)

    def test_an_echoed_credential_is_masked(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/x", "api.test", "X-Api-Key: dummy"))
            body = answer.body()
            self.assertIn(b"x-api-key: " + b"*" * len(TOKENS["EGRESS_TOKEN_API"]), body)
            self.assertNotIn(b"sk-real-1f0c", answer.head + body)
            answer = ask(tunnel, get("/v1/echo", "api.test"))
            self.assertIn(b"200 ************\r\n", answer.head)
            self.assertIn(b"\r\nX-Echo: ************\r\nX-************: 1\r\n", answer.head)
            self.assertEqual(answer.body(), b"")
            answer = ask(tunnel, get("/v1/torn", "api.test"))
            seen = answer._rest
            while not seen.endswith(b"0\r\n\r\n"):
                seen += tunnel.recv(65536)
            self.assertEqual(seen, b"c\r\n************\r\n1\r\n!\r\n0\r\n\r\n")
        with self.egress.tunnel("one.git.test:443") as tunnel:
            body = ask(tunnel, get("/x", "one.git.test")).body()
            self.assertIn(b"authorization: Basic ****", body)
        sent = b"".join(self.outer.heads)
        self.assertEqual(sent.count(b"sk-real-1f0c"), 3)

    def test_an_unrouted_host_goes_on_untouched(self) -> None:
        with self.egress.tunnel("else.test:80") as tunnel:
            head = ask(tunnel, get("/a/../b?c", "else.test:80", "Authorization: own", "X-Odd_Name:  1 ")).json()["head"]
        self.assertIn("GET /a/../b?c HTTP/1.1\r\nHost: else.test:80\r\nAuthorization: own\r\nX-Odd_Name: 1\r\n", head)
        self.assertEqual(self.outer.connects, ["else.test:80"])
        self.assertIsNone(self.line()["route"])

    def test_compression_where_nothing_is_read(self) -> None:
        for host, path, sent in (
            ("else.test", "/x", "gzip, br"),
            ("open.test", "/open", "gzip, br"),
            ("content.test", "/x", "identity"),
            ("api.test", "/v1/x", "identity"),
        ):
            with self.egress.tunnel(f"{host}:443") as tunnel:
                for _ in range(2):
                    head = ask(tunnel, get(path, host, "accept-encoding: gzip, br")).json()["head"]
                    self.assertIn(f"\r\nAccept-Encoding: {sent}\r\n", head, host)
                    self.assertEqual(head.lower().count("accept-encoding"), 1)
        with self.egress.dial() as plain:
            head = ask(plain, get("http://else.test/x", "else.test", "Accept-Encoding: gzip")).json()["head"]
        self.assertIn("\r\nAccept-Encoding: identity\r\n", head)

    def test_plain_http_goes_on_in_absolute_form(self) -> None:
        with self.egress.dial() as plain:
            head = ask(plain, get("http://else.test/x", "else.test", "Proxy-Authorization: Basic eA==")).json()["head"]
        self.assertTrue(head.startswith("GET http://else.test/x HTTP/1.1\r\nHost: else.test\r\n"), head)
        self.assertNotIn("Proxy-Authorization", head)

    def test_bodies_both_ways(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/x", "api.test", method="POST", body="hello"))
            self.assertEqual(answer.json()["body"], 5)
            chunked = get("/v1/x", "api.test", "Transfer-Encoding: chunked", method="POST")
            answer = ask(tunnel, chunked + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            self.assertEqual(answer.json()["body"], 5)
        self.assertEqual(self.line(1)["bytes_up"], 5)
        self.assertEqual(self.line(2)["bytes_up"], 5)
        self.assertGreater(self.line(2)["bytes_down"], 100)

    def test_odd_blanks_are_not_sent_on(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            head = ask(tunnel, " GET\t/v1/x \x0b HTTP/1.1\nHost:api.test\n\n").json()["head"]
            self.assertTrue(head.startswith("GET /v1/x HTTP/1.1\r\nHost: api.test\r\n"), head)
            request = get("/v1/x", "api.test", "Transfer-Encoding:\t\x0bchunked ", method="POST")
            answer = ask(tunnel, request + "1\r\na\r\n0\r\n\r\n").json()
        self.assertEqual(answer["body"], 1)
        self.assertIn("\r\nTransfer-Encoding: chunked\r\n", answer["head"])

    def test_expect_continue(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            request = get("/v1/x", "api.test", "Expect: 100-continue", "Content-Length: 5", method="POST")
            self.assertEqual(ask(tunnel, request).status, 100)
            self.assertEqual(ask(tunnel, "hello").json()["body"], 5)

    def test_events_arrive_as_they_are_sent(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            tunnel.sendall(get("/v1/sse", "api.test").encode())
            lags = []
            seen = b""
            while b"\r\n0\r\n\r\n" not in seen:
                chunk = tunnel.recv(65536)
                arrived = time.monotonic()
                seen += chunk
                for event in chunk.split(b"data: ")[1:]:
                    lags.append(arrived - float(event.split()[1]))
        self.assertEqual(len(lags), 5)
        self.assertLess(max(lags), 0.15, "an event was held back")
        print(f"\n  event lag, ms: first {lags[0] * 1000:.1f}, worst {max(lags) * 1000:.1f}")

    def test_large_bodies_are_not_held(self) -> None:
        size = 200 * 1024 * 1024
        with self.egress.tunnel("api.test:443") as tunnel:
            ask(tunnel, get("/v1/x", "api.test")).body()
            before = self.egress.resident_kib()
            began = time.monotonic()
            answer = ask(tunnel, get(f"/v1/big/{size}", "api.test"))
            left, peak = size - len(answer._rest), before
            while left:
                left -= len(tunnel.recv(1 << 20))
                if not left >> 14 & 63:
                    peak = max(peak, self.egress.resident_kib())
            down = time.monotonic() - began
            began = time.monotonic()
            tunnel.sendall(get("/v1/x", "api.test", f"Content-Length: {size}", method="POST").encode())
            block = bytes(1 << 20)
            for _ in range(size >> 20):
                tunnel.sendall(block)
                peak = max(peak, self.egress.resident_kib())
            self.assertEqual(Answer(tunnel).json()["body"], size)
            up = time.monotonic() - began
        self.assertLess(peak - before, 24 * 1024, "kibibytes that a large body cost")
        rate = size / 1e6
        print(f"\n  200 MiB: +{peak - before} KiB over {before}; down {rate / down:.0f} MB/s, up {rate / up:.0f} MB/s")

    def test_a_slow_reader_holds_the_sender(self) -> None:
        size = 200 * 1024 * 1024
        with self.egress.tunnel("api.test:443") as tunnel:
            before = self.egress.resident_kib()
            tunnel.sendall(get(f"/v1/big/{size}", "api.test").encode())
            time.sleep(1)
            self.assertLess(self.egress.resident_kib() - before, 24 * 1024)

    def test_trailers_are_dropped_both_ways(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            tunnel.sendall(get("/v1/trailers", "api.test").encode())
            seen = b""
            while not seen.endswith(b"0\r\n\r\n"):
                seen += tunnel.recv(65536)
            self.assertTrue(seen.endswith(b"2\r\nok\r\n0\r\n\r\n"))
            request = get("/v1/x", "api.test", "Transfer-Encoding: chunked", method="POST")
            answer = ask(tunnel, request + "1\r\na\r\n0\r\nX-Api-Key: dummy\r\n\r\n")
            self.assertEqual(answer.json()["body"], 1)

    def test_interim_answers_are_passed_over(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            for _ in range(2):
                answer = ask(tunnel, get("/v1/interim", "api.test"))
                self.assertEqual((answer.status, answer.body()), (200, b"ok"))

    def test_only_http_1_is_offered(self) -> None:
        with self.egress.tunnel("api.test:443", alpn=["h2", "http/1.1"]) as tunnel:
            self.assertEqual(tunnel.selected_alpn_protocol(), "http/1.1")

    def test_strict_verification_of_the_agents_side(self) -> None:
        with self.egress.dial() as plain:
            plain.sendall(b"CONNECT api.test:443 HTTP/1.1\r\n\r\n")
            plain.recv(4096)
            context = ssl.create_default_context(cadata=self.egress.inner.certificate_pem().decode())
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            with context.wrap_socket(plain, server_hostname="api.test") as tunnel:
                self.assertEqual(ask(tunnel, get("/v1/x", "api.test")).status, 200)

    def test_health(self) -> None:
        with self.egress.dial() as plain:
            self.assertEqual(ask(plain, get("/.egress/health", "egress")).body(), b"ok\n")
            self.assertEqual(ask(plain, get("/other", "egress")).status, 400)
        self.assertEqual(self.line()["path"], "/other", "the health check has no line")


class Refusing(Proxy):
    def test_limits(self) -> None:
        self.refused_in_tunnel(get("/v2/x", "api.test"), 403, "path")
        self.refused_in_tunnel(get("/v1/x", "api.test", method="DELETE"), 403, "method")
        self.refused_in_tunnel(get("/v1/../v2", "api.test"), 400, "path")
        self.refused_in_tunnel(get("/v1/%2e%2e/v2", "api.test"), 400, "path")
        self.refused_in_tunnel(get("/v1/x", "api.test:8443"), 403, "port", target="api.test:8443")
        line = self.line(1)
        self.assertEqual((line["status"], line.get("reason"), line["injected"]), (403, "path", False))
        self.assertGreater(line["bytes_down"], 50)

    def test_plain_http_to_a_routed_host(self) -> None:
        with self.egress.dial() as plain:
            answer = ask(plain, get("http://api.test/v1/x", "api.test"))
            self.assertEqual((answer.status, answer.rule()), (403, "https-only"))
            answer = ask(plain, get("http://api.test:443/v1/x", "api.test:443"))
            self.assertEqual((answer.status, answer.rule()), (403, "https-only"))
        self.assertEqual(self.outer.heads, [])

    def test_disagreeing_names(self) -> None:
        self.refused_in_tunnel(get("/v1/x", "else.test"), 421, "host-mismatch")
        self.refused_in_tunnel(get("/v1/x", "api.test"), 421, "host-mismatch", target="else.test:443")
        self.refused_in_tunnel(
            get("/x", "else.test"), 421, "server-name-mismatch", target="else.test:443", name="api.test"
        )
        self.refused_in_tunnel(get("/v1/x", "api.test"), 421, "server-name-mismatch", name="else.test")
        self.refused_in_tunnel(get("https://else.test/v1/x", "api.test"), 400, "target")
        self.refused_in_tunnel(get("https://api.test/v1/x", "api.test"), 400, "target")
        self.refused_in_tunnel("GET /v1/x HTTP/1.1\r\n\r\n", 421, "host-mismatch")
        self.refused_in_tunnel("GET /v1/x HTTP/1.1\r\nHost: api.test\r\nHost: else.test\r\n\r\n", 400, "header")
        with self.egress.dial() as plain:
            answer = ask(plain, "GET http://else.test/x HTTP/1.1\r\nHost: api.test\r\n\r\n")
            self.assertEqual((answer.status, answer.rule()), (400, "host-mismatch"))
            answer = ask(plain, "GET https://api.test/v1/x HTTP/1.1\r\nHost: api.test\r\n\r\n")
            self.assertEqual((answer.status, answer.rule()), (400, "scheme"))

    def test_connect(self) -> None:
        for head in (
            "CONNECT api.test:443 HTTP/1.1\r\nHost: else.test:443\r\n\r\n",
            "CONNECT api.test.:443 HTTP/1.1\r\n\r\n",
            "CONNECT u@api.test:443 HTTP/1.1\r\n\r\n",
            "CONNECT api.test HTTP/1.1\r\n\r\n",
            "CONNECT 127.1:443 HTTP/1.1\r\n\r\n",
        ):
            with self.egress.dial() as plain:
                self.assertEqual(ask(plain, head).status, 400, head)
        # What names no host and port has none in its line.
        told = [(line["host"], line["port"]) for line in self.lines(5)]
        self.assertEqual(told[:1] + told[3:4], [("api.test", 443), (None, None)])
        self.refused_in_tunnel("CONNECT else.test:443 HTTP/1.1\r\nHost: else.test:443\r\n\r\n", 400, "malformed")
        self.assertEqual(self.outer.connects, [])

    def test_smuggling(self) -> None:
        both = get("/v1/x", "api.test", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST")
        self.refused_in_tunnel(both + "0\r\n\r\n", 400, "malformed")
        two = get("/v1/x", "api.test", "Content-Length: 5", "Content-Length: 6", method="POST")
        self.refused_in_tunnel(two + "hello", 400, "malformed")
        for header in (
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked, identity",
            "Content-Length: +5",
            "Content-Length: 5, 5",
            "Content-Length: 0x5",
            "X Y: 1",
            "Host : api.test",
            "no colon",
        ):
            self.refused_in_tunnel(get("/v1/x", "api.test", header, method="POST"), 400, "malformed")
        for header, rule in (
            ("Content_Length: 5", "header"),
            ("Transfer_Encoding: chunked", "header"),
            ("host: api.test", "header"),
            ("X: a\r\n folded", "header"),
            ("X: a\rHost: else.test", "header"),
            ("X: a\0", "header"),
        ):
            self.refused_in_tunnel(get("/v1/x", "api.test", header), 400, rule)
        self.refused_in_tunnel("GET  /v1/x y HTTP/1.1\r\nHost: api.test\r\n\r\n", 400, "malformed")
        self.refused_in_tunnel("GET /v1/x HTTP/2.0\r\nHost: api.test\r\n\r\n", 505, "version")
        self.refused_in_tunnel("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version")

    def test_a_second_request_is_judged_too(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            tunnel.sendall((get("/v1/x", "api.test") + get("/v2/x", "api.test") + get("/v1/x", "else.test")).encode())
            self.assertEqual(ask(tunnel, b"").status, 200)
        self.assertEqual(self.line()["status"], 200)
        self.assertEqual(len(self.outer.heads), 1)

    def test_trace_and_upgrades(self) -> None:
        self.refused_in_tunnel(get("/v1/x", "api.test", method="TRACE"), 405, "trace")
        with self.egress.tunnel("api.test:443") as tunnel, self.assertRaises(EOFError):
            ask(tunnel, get("/v1/switch", "api.test"))
        self.assertEqual(self.line(2).get("reason"), "upstream-switched-protocols")

    def test_a_method_is_judged_in_the_case_it_is_sent_in(self) -> None:
        self.refused_in_tunnel(get("/v1/x", "api.test", method="get"), 403, "method")
        self.refused_in_tunnel(get("/x", "else.test", method="head"), 400, "method", target="else.test:443")
        for target in ("/x", "https://else.test/x", "else.test:443"):
            self.refused_in_tunnel(get(target, "else.test", method="Connect"), 400, "malformed", target="else.test:443")
        with self.egress.dial() as plain:
            answer = ask(plain, get("http://else.test:443/", "else.test:443", method="Connect"))
            self.assertEqual((answer.status, answer.rule()), (400, "connect"))

    def test_what_a_connect_names_in_place_of_a_host_is_in_its_line(self) -> None:
        with self.egress.dial() as plain:
            answer = ask(plain, "CONNECT api.test.:443 HTTP/1.1\r\n\r\n")
            self.assertEqual((answer.status, answer.rule()), (400, "connect"))
        line = self.line()
        self.assertEqual((line["host"], line.get("port")), ("api.test.:443", None))

    def test_a_tunnel_holds_tls_or_nothing(self) -> None:
        for first in (b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", b"\x16\x09\x00"):
            with self.egress.dial() as plain:
                plain.sendall(b"CONNECT api.test:443 HTTP/1.1\r\n\r\n")
                self.assertTrue(plain.recv(4096).startswith(b"HTTP/1.1 200"))
                plain.sendall(first)
                received = b"".join(iter(lambda: plain.recv(4096), b""))
                if first.startswith(b"GET"):
                    # An HTTP client, such as one of a WebSocket without TLS, is told why.
                    self.assertTrue(received.startswith(b"HTTP/1.1 403 ") and b"X-Egress-Refused: not-tls" in received)
                else:
                    self.assertEqual(received, b"")
        self.assertEqual(self.line().get("reason"), "not-tls")
        self.assertEqual(self.outer.connects, [])

    def test_tls_in_the_place_of_http(self) -> None:
        with self.egress.dial() as plain, self.assertRaises(ssl.SSLEOFError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="api.test")
        self.assertEqual(self.line().get("reason"), "not-http")

    def test_a_refused_body_is_read_and_dropped(self) -> None:
        size = 100 * 1024 * 1024
        with self.egress.tunnel("api.test:443") as tunnel:
            before = self.egress.resident_kib()
            tunnel.sendall(get("/v2/x", "api.test", f"Content-Length: {size}", method="POST").encode())
            for _ in range(size >> 20):
                tunnel.sendall(bytes(1 << 20))
            answer = Answer(tunnel)
            self.assertEqual((answer.status, answer.rule()), (403, "path"))
            self.assertLess(self.egress.resident_kib() - before, 24 * 1024)
            self.assertEqual(ask(tunnel, get("/v1/x", "api.test")).status, 200)

    def test_heads_are_bounded(self) -> None:
        with self.egress.dial() as plain:
            plain.sendall(b"GET http://else.test/ HTTP/1.1\r\n" + b"X: " + b"a" * 200_000)
            self.assertEqual(Answer(plain).status, 431)


class Failing(Proxy):
    def test_what_the_next_proxy_refuses(self) -> None:
        cases = (
            ("blocked.test", 403, "upstream-refused", "does not allow this host"),
            ("odd.test", 403, "upstream-refused", "refused this request (status 403)"),
            ("nameless.test", 502, "upstream-name", "name could not be resolved"),
            ("inside.test", 403, "upstream-address", "does not allow the address"),
            ("dead.test", 502, "upstream-unreachable", "no connection could be made"),
            ("limited.test", 429, "upstream-rate", "too many requests"),
            ("gone.test", 502, "upstream", "no answer"),
            ("untrusted.test", 502, "upstream-certificate", "certificate"),
        )
        # In plain HTTP, a text that is not one of pipelock's is the host's own. The routed host needs TLS.
        plain = [case for case in cases if case[0] in REFUSALS and case[0] not in ("odd.test", "blocked.test")]
        for host, status, rule, said, opened in [(*case, True) for case in cases] + [(*case, False) for case in plain]:
            with self.egress.tunnel(f"{host}:443") if opened else self.egress.dial() as tunnel:
                answer = ask(tunnel, get("/v1/x" if opened else f"http://{host}/v1/x", host))
                body = answer.body()
                self.assertEqual((answer.status, json.loads(body)["error"]["rule"]), (status, rule), host)
                self.assertIn(said, json.loads(body)["error"]["message"], host)
                for inside in (
                    b"10.1.2.3",
                    b"127.0.0.1",
                    str(self.outer.port).encode(),
                    b"secret",
                    b"mitm",
                    b"sk-real",
                ):
                    self.assertNotIn(inside, answer.head + body)
        lines = self.lines(len(cases) + len(plain))
        self.assertEqual([line["status"] for line in lines], [case[1] for case in (*cases, *plain)])
        self.assertEqual(lines[7].get("reason"), "upstream-certificate")
        self.assertIs(lines[0]["injected"], True)

    def test_broken_answers(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/garbage", "api.test"))
            self.assertEqual((answer.status, answer.rule()), (502, "upstream"))
        with self.egress.tunnel("api.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/cut", "api.test"))
            self.assertEqual((answer.status, answer.body()), (200, b"short"))
        self.assertEqual(self.line(1).get("reason"), "upstream")
        self.assertEqual((self.line(2)["status"], self.line(2).get("reason")), (200, "upstream"))

    def test_an_agent_that_does_not_trust_it(self) -> None:
        with self.egress.dial() as plain:
            plain.sendall(b"CONNECT api.test:443 HTTP/1.1\r\n\r\n")
            plain.recv(4096)
            with self.assertRaises(ssl.SSLCertVerificationError):
                ssl.create_default_context().wrap_socket(plain, server_hostname="api.test")
        line = self.line()
        self.assertEqual((line["host"], line["port"], line.get("reason")), ("api.test", 443, "client-tls"))

    def test_an_agent_that_leaves(self) -> None:
        tunnel = self.egress.tunnel("api.test:443")
        tunnel.sendall(get("/v1/sse", "api.test").encode())
        Answer(tunnel)
        tunnel.close()
        self.assertEqual(self.line().get("reason"), "client-gone")

    def test_an_answer_before_the_body_is_read(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            tunnel.sendall(get("/v1/early", "api.test", "Content-Length: 100000", method="POST").encode() + b"x")
            self.assertEqual(Answer(tunnel).status, 200)


class Alone(unittest.TestCase):
    """Tests that need a proxy of their own."""

    def egress(self, routes: str = ROUTES, port: int = 1, tokens: dict[str, str] = TOKENS, **extra: str) -> Egress:
        made = Egress(port, Authority("outer"), routes, tokens, **extra)
        self.addCleanup(made.close)
        return made

    def test_the_next_proxy_is_down(self) -> None:
        egress = self.egress().start()
        with egress.tunnel("api.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/x", "api.test"))
            self.assertEqual((answer.status, answer.rule()), (502, "upstream"))
        line = until(egress.requests)[0]
        self.assertEqual((line["status"], line.get("reason")), (502, "upstream"))

    def test_extra_certificates_are_trusted(self) -> None:
        outer = Outer(Authority("outer"))
        self.addCleanup(outer.close)
        with tempfile.NamedTemporaryFile() as extra:
            extra.write(b"a comment\n" + outer.untrusted.certificate_pem())
            extra.flush()
            egress = Egress(outer.port, outer.authority, ROUTES, TOKENS, EGRESS_EXTRA_CA=extra.name)
            self.addCleanup(egress.close)
            egress.start()
        for host in ("untrusted.test", "content.test"):
            with egress.tunnel(f"{host}:443") as tunnel:
                self.assertEqual(ask(tunnel, get("/x", host)).status, 200)

    def test_reload(self) -> None:
        outer = Outer(Authority("outer"))
        self.addCleanup(outer.close)
        egress = Egress(outer.port, outer.authority, ROUTES, TOKENS, outer.origins)
        self.addCleanup(egress.close)
        egress.start()
        first = json.loads(Path("/tmp/egress-status.json").read_text())
        self.assertIsNone(first["error"])
        with egress.tunnel("api.test:443") as tunnel:
            self.assertEqual(ask(tunnel, get("/v2/x", "api.test")).rule(), "path")

            egress.routes.write_text(ROUTES.replace("[/v1/]", "[/v1/, /v2/]"))
            second = egress.reload()
            self.assertNotEqual(second["routes_sha256"], first["routes_sha256"])
            self.assertEqual((second["error"], second["seen_sha256"]), (None, second["routes_sha256"]))
            self.assertEqual(ask(tunnel, get("/v2/x", "api.test")).json()["body"], 0, "the connection stays open")

            for broken in ("version: 1\nroutes: [", ROUTES.replace("EGRESS_TOKEN_API", "EGRESS_TOKEN_NEW")):
                egress.routes.write_text(broken)
                third = egress.reload()
                self.assertEqual(third["routes_sha256"], second["routes_sha256"])
                self.assertNotEqual(third["seen_sha256"], second["routes_sha256"])
                self.assertIn("routes.yaml: ", third["error"])
                self.assertEqual(ask(tunnel, get("/v2/x", "api.test")).json()["body"], 0, "the old table stays")
            self.assertIn("EGRESS_TOKEN_NEW has no value", third["error"])
            egress.routes.unlink()
            self.assertIn("cannot read", egress.reload()["error"])

    def test_refusals_to_start(self) -> None:
        for change, said in (
            ({"EGRESS_UPSTREAM_PROXY": ""}, "EGRESS_UPSTREAM_PROXY"),
            ({"EGRESS_UPSTREAM_PROXY": "https://pipelock:8888"}, "EGRESS_UPSTREAM_PROXY"),
            ({"EGRESS_UPSTREAM_CA": ""}, "EGRESS_UPSTREAM_CA"),
            ({"EGRESS_MAX_INSPECTED": "0"}, "EGRESS_MAX_INSPECTED"),
            ({"EGRESS_UPSTREAM_CA": "/nowhere"}, "/nowhere: cannot read"),
            ({"EGRESS_UPSTREAM_CA": "/etc/passwd"}, "holds no certificate"),
            ({"EGRESS_EXTRA_CA": "/nowhere"}, "/nowhere"),
            ({"EGRESS_CA": "/etc/passwd"}, "private key"),
            ({"EGRESS_TOKEN_API": ""}, "EGRESS_TOKEN_API is empty"),
            ({"EGRESS_TOKEN_API": "a\nb"}, "EGRESS_TOKEN_API has characters that no header can carry"),
            ({"EGRESS_ROUTES": "/nowhere"}, "/nowhere"),
        ):
            egress = self.egress(**change)
            self.assertEqual(egress.run_to_end(), 2, change)
            (line,) = egress.lines()
            self.assertEqual(line["event"], "refused-to-start")
            self.assertIn(said, line.get("reason"))

    def test_tokens_of_the_environment(self) -> None:
        outer = Outer(Authority("outer"))
        self.addCleanup(outer.close)
        egress = Egress(outer.port, outer.authority, ROUTES, {}, outer.origins, **TOKENS)
        self.addCleanup(egress.close)
        egress.start()
        # The count of the budget lies beside them.
        paths = list(egress.credentials.glob("[!.]*"))
        self.assertEqual({path.name: path.read_text() for path in paths}, TOKENS)
        for path in paths:
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)
        with egress.tunnel("api.test:443") as tunnel:
            self.assertEqual(ask(tunnel, get("/v1/x", "api.test")).status, 200)
        self.assertIn(b"x-api-key: " + TOKENS["EGRESS_TOKEN_API"].encode(), outer.heads[-1])

    def test_a_token_that_arrives_late_or_changes(self) -> None:
        outer = Outer(Authority("outer"))
        self.addCleanup(outer.close)
        egress = Egress(outer.port, outer.authority, ROUTES, {}, outer.origins, {"addon.WAIT_SECONDS": 1.0})
        self.addCleanup(egress.close)
        egress.start()
        file = egress.credentials / "EGRESS_TOKEN_API"
        with egress.tunnel("api.test:443") as tunnel:
            began = time.monotonic()
            answer = ask(tunnel, get("/v1/x", "api.test"))
            self.assertEqual((answer.status, answer.rule()), (503, "credential"))
            self.assertGreaterEqual(time.monotonic() - began, 1)
            line = until(egress.requests)[0]
            self.assertEqual((line["outcome"], line["reason"], line["injected"]), ("refused", "credential", False))
            self.assertEqual((outer.connects, outer.heads), ([], []))

            threading.Timer(0.3, file.write_text, ["late-token"]).start()
            for token in ("late-token", "next-token"):
                self.assertEqual(ask(tunnel, get("/v1/x", "api.test")).json()["body"], 0)
                self.assertIn(f"x-api-key: {token}\r\n".encode(), outer.heads[-1])
                file.write_text("next-token")

    def test_a_port_in_use(self) -> None:
        egress = self.egress()
        with socket.create_server(("0.0.0.0", egress.port)):
            self.assertEqual(egress.run_to_end(), 1)
        self.assertIn("cannot listen", egress.lines()[-1].get("reason"))

    def test_its_files_are_its_own(self) -> None:
        self.egress().start()
        for path in Path("/tmp/egress").rglob("*"):
            if path.is_file() and path.name != "mitmproxy-dhparam.pem":
                self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)

    def test_it_ends_at_once(self) -> None:
        egress = self.egress().start()
        began = time.monotonic()
        egress.process.terminate()
        self.assertEqual(egress.process.wait(5), 0)
        # Far below what an engine waits before it kills, and far above what a busy machine takes.
        self.assertLess(time.monotonic() - began, 3)
        print(f"\n  start to listening: {egress.start_seconds * 1000:.0f} ms")


if __name__ == "__main__":
    unittest.main()

import unittest

from egress.names import join_authority
from egress.policy import Head, Passage, Refusal, Tunnel, judge, judge_connect
from egress.routes import Table

from .test_routes import TOKENS, table

TABLE = table(
    "name: api, host: api.example, paths: [/v1/], methods: [GET, POST],"
    " inject: {header: x-api-key, template: '{token}', slot: EGRESS_TOKEN_A}",
    "name: admin, host: api.example, paths: [/v1/admin], methods: [GET],"
    " inject: {header: authorization, template: 'Bearer {token}', slot: EGRESS_TOKEN_B}",
    "name: limited, host: limited.example, paths: [/open]",
)


def head(path="/v1/x", method="GET", headers=(), host="api.example", scheme="https", authority="", version="HTTP/1.1"):
    hosts = ((b"Host", host.encode()),) if host is not None else ()
    return Head(method, scheme, authority, path, version, hosts + tuple(headers))


def through(request: Head, host="api.example", port=443, server_name="api.example"):
    return judge(request, Tunnel(host, port, server_name), TABLE)


class Claimed(unittest.TestCase):
    def test_a_wildcards_domain_is_closed_where_no_route_is(self) -> None:
        wild = table("name: wild, host: '*.wild.example', paths: [/v1]", "name: own, host: own.wild.example")
        for host, path, expected in (
            ("a.wild.example", "/v1", Passage),
            ("own.wild.example", "/x", Passage),
            ("notwild.example", "/x", Passage),
            ("example", "/x", Passage),
            ("a.wild.example", "/x", "path"),
            ("wild.example", "/v1", "host"),
            ("a.b.wild.example", "/v1", "host"),
            ("a.own.wild.example", "/v1", "host"),
        ):
            verdict = judge(head(path, host=host), Tunnel(host, 443, host), wild)
            if expected is Passage:
                self.assertIsInstance(verdict, Passage, host)
            else:
                self.assertEqual((verdict.status, verdict.rule), (403, expected), host)
            opened = judge(head(path, host=host, scheme="http", authority=host), None, wild)
            self.assertEqual(isinstance(opened, Passage), host in ("notwild.example", "example"), host)


class Base(unittest.TestCase):
    def passes(self, verdict) -> dict[str, list[bytes]]:
        self.assertIsInstance(verdict, Passage, verdict)
        self.assertNotIn("token-", repr(verdict))
        sent: dict[str, list[bytes]] = {}
        injection = verdict.route.injection if verdict.route else None
        added = (injection.fill(TOKENS[injection.slot]).header,) if injection else ()
        for name, value in (*verdict.headers, *added):
            sent.setdefault(name.decode().lower(), []).append(value)
        return sent

    def refused(self, verdict, status: int, rule: str):
        self.assertIsInstance(verdict, Refusal)
        self.assertEqual((verdict.status, verdict.rule), (status, rule))
        for token in ("token-a", "token-b"):
            self.assertNotIn(token, verdict.message)


class Injecting(Base):
    def test_the_agents_credentials_are_replaced_whatever_their_spelling(self) -> None:
        sent = self.passes(
            through(
                head(
                    headers=[
                        (b"x-api-key", b"dummy"),
                        (b"X-API-Key", b"dummy"),
                        (b"X_Api_Key", b"dummy"),
                        (b"AUTHORIZATION", b"Bearer dummy"),
                        (b"Proxy-Authorization", b"Basic dummy"),
                        (b"X-Goog-Api-Key", b"dummy"),
                        (b"X-Stainless-Lang", b"1"),
                    ]
                )
            )
        )
        self.assertEqual(sent["x-api-key"], [b"token-a"])
        self.assertEqual(sent["x-stainless-lang"], [b"1"])
        self.assertFalse([value for values in sent.values() for value in values if b"dummy" in value])

    def test_no_other_credential_passes(self) -> None:
        names = """
            Authentication Cookie Cookie2 X-Auth-Token X-Access-Token X-Api-Token X-Apikey ApiKey X-Auth-Key
            X-Auth-Email Private-Token Job-Token Deploy-Token X-Vault-Token X-Amz-Security-Token
            X-Goog-Iam-Authorization-Token X-Goog-Authenticated-User-Email X-Github-Token X-Github-Otp Npm-Otp
            X-Shopify-Access-Token DD-Api-Key Ocp-Apim-Subscription-Key X-MS-Access-Token X-Litellm-Api-Key
            X-Forwarded-Access-Token X-Csrf-Token X-Registry-Auth Xi-Api-Key Sudo Openai-Api-Key Anthropic-Auth-Token
            X-Forwarded-For X_Auth_Token Destination X-Whatever
        """.split()
        verdict = through(head(headers=[(name.encode(), b"dummy") for name in names]))
        sent = self.passes(verdict)
        self.assertEqual(sent.keys(), {"host", "accept-encoding", "x-api-key"})
        self.assertEqual(verdict.removed, tuple(name.lower().replace("_", "-") for name in names))
        request = head("/open/x", headers=[(b"Cookie", b"own"), (b"X-Whatever", b"own")], host="limited.example")
        verdict = through(request, "limited.example", server_name="limited.example")
        self.assertEqual((self.passes(verdict)["cookie"], verdict.removed), ([b"own"], ()))

    def test_a_route_lets_further_headers_pass_but_no_injected_one(self) -> None:
        inject = "inject: {header: x-api-key, template: '{token}', slot: EGRESS_TOKEN_A}"
        two = table(
            f"name: api, host: api.example, paths: [/v1/], headers: [x-tenant, cookie, x-api-key], {inject}",
            f"name: other, host: api.example, paths: [/v2/], {inject}",
        )
        sent = [(name, b"own") for name in (b"X-Tenant", b"x_tenant", b"Cookie", b"X-Api-Key", b"X-Other")]
        for path, kept in (("/v1/x", {"x-tenant", "x_tenant", "cookie"}), ("/v2/x", set())):
            verdict = judge(head(path, headers=sent), Tunnel("api.example", 443, "api.example"), two)
            passed = self.passes(verdict)
            self.assertEqual({name for name, values in passed.items() if b"own" in values}, kept)
            self.assertEqual(passed["x-api-key"], [b"token-a"])

    def test_no_other_credential_passes_in_the_query(self) -> None:
        for written, kept, removed in (
            ("?private_token=own&page=2", "?page=2", ("privatetoken",)),
            ("?page=2&access_token=own", "?page=2", ("accesstoken",)),
            ("?a=1&api_key=own&b=2&b=3", "?a=1&b=2&b=3", ("apikey",)),
            ("?key=own", "", ("key",)),
            ("?a=1;KEY=own;b=2", "?a=1;b=2", ("key",)),
            ("?%70rivate%5Ftoken=own&x", "?x", ("privatetoken",)),
            (
                "?+private.token[]=own&x-goog-api-key=own&X-Amz-Signature=own&&c",
                "?c",
                ("privatetoken", "xgoogapikey", "xamzsignature"),
            ),
            ("?token&password=own?key=own", "", ("token", "password")),
            ("?%6Bey=own&a=%26key%3Downs", "?a=%26key%3Downs", ("key",)),
        ):
            verdict = through(head("/v1/x" + written))
            self.passes(verdict)
            self.assertEqual((verdict.target, verdict.removed_parameters), ("/v1/x" + kept, removed), written)
        others = "?page_token=a&next_token=b&sort_key=c&author=d&max_tokens=5&keys=1&tokenizer=g&projectKey=h&key2=j"
        for written in (others, "", "?", "?a=b&=&;", "?q=key=own"):
            self.assertEqual(through(head("/v1/x" + written)).target, "/v1/x" + written)
        request = head("/open/x?key=own", host="limited.example")
        self.assertEqual(through(request, "limited.example", server_name="limited.example").target, "/open/x?key=own")
        inject = "inject: {header: x-api-key, template: '{token}', slot: EGRESS_TOKEN_A}"
        cache = table(f"name: api, host: api.example, headers: [key, deploy-token], {inject}")
        verdict = judge(head("/x?key=a&deploy_token=b&token=own"), Tunnel("api.example", 443, "api.example"), cache)
        self.assertEqual(verdict.target, "/x?key=a&deploy_token=b")

    def test_an_answer_is_not_cut_where_the_credential_is_masked(self) -> None:
        verdict = through(head(headers=[(b"Range", b"bytes=0-9"), (b"If-Range", b"x")]))
        self.assertNotIn("range", self.passes(verdict))
        self.assertIn("range", verdict.removed)

    def test_what_clients_send_passes(self) -> None:
        names = """
            Accept Accept-Language Content-Type Content-Encoding User-Agent If-None-Match If-Modified-Since
            Expect Origin Referer Cache-Control Pragma Prefer Priority Sec-Fetch-Mode Sec-CH-UA Traceparent Tracestate
            Baggage Sentry-Trace X-Request-Id Idempotency-Key anthropic-version anthropic-beta x-app
            anthropic-dangerous-direct-browser-access X-Claude-Code-Session-Id x-stainless-retry-count
            x-stainless-helper-method OpenAI-Beta OpenAI-Organization OpenAI-Project originator version session_id
            conversation_id x-codex-turn-metadata x-client-request-id x-goog-api-client x-goog-user-project
            X-GitHub-Api-Version GraphQL-Features Time-Zone Git-Protocol npm-command npm-session npm-auth-type
            pacote-version pacote-req-type Docker-Distribution-Api-Version Mcp-Session-Id Mcp-Protocol-Version
            Last-Event-Id Notion-Version Stripe-Version X-Amz-Target amz-sdk-invocation-id x-ms-version HTTP-Referer
            X-Title Connect-Protocol-Version Grpc-Timeout X-Atlassian-Token X-Requested-With
        """.split()
        verdict = through(head(headers=[(name.encode(), b"1") for name in names]))
        sent = self.passes(verdict)
        self.assertEqual({name for name, values in sent.items() if values == [b"1"]}, {name.lower() for name in names})
        self.assertEqual(verdict.removed, ())

    def test_the_most_specific_route_decides_the_credential(self) -> None:
        sent = self.passes(through(head("/v1/admin/x", headers=[(b"x-api-key", b"dummy")])))
        self.assertEqual(sent["authorization"], [b"Bearer token-b"])
        self.assertNotIn("x-api-key", sent)

    def test_a_host_without_injection_keeps_the_agents_own(self) -> None:
        request = head("/open/x", headers=[(b"Authorization", b"own")], host="limited.example")
        sent = self.passes(through(request, "limited.example", server_name="limited.example"))
        self.assertEqual(sent["authorization"], [b"own"])

    def test_an_unrouted_host_is_passed_with_what_the_agent_sent(self) -> None:
        request = head("/any/../thing?x", "PURGE", headers=[(b"x-api-key", b"own")], host="else.example")
        verdict = through(request, "else.example", server_name="else.example")
        self.assertEqual(self.passes(verdict)["x-api-key"], [b"own"])
        self.assertIsNone(verdict.route)

    def test_one_hop_headers_end_here(self) -> None:
        sent = self.passes(
            through(
                head(
                    headers=[
                        (b"Connection", b"x-api-key, close"),
                        (b"Keep-Alive", b"timeout=5"),
                        (b"TE", b"trailers"),
                        (b"Upgrade", b"h2c"),
                        (b"Accept-Encoding", b"gzip"),
                    ]
                )
            )
        )
        self.assertEqual(sent["connection"], [b"close"])
        self.assertEqual(sent["accept-encoding"], [b"identity"])
        self.assertEqual(sent["x-api-key"], [b"token-a"])
        for name in ("keep-alive", "te", "upgrade"):
            self.assertNotIn(name, sent)


class Limits(Base):
    def test_path_and_method(self) -> None:
        self.refused(through(head("/v2/x")), 403, "path")
        self.refused(through(head("/v1")), 403, "path")
        self.refused(through(head("/v10/x")), 403, "path")
        self.refused(through(head("/v1/x", "DELETE")), 403, "method")
        self.refused(through(head("/v1/x", "get")), 403, "method")
        self.passes(through(head("/v1/admin", "POST")))  # the wider route allows it
        self.assertIn("api", through(head("/v1/x", "DELETE")).message)

    def test_spellings_of_a_path(self) -> None:
        for path in [
            "/v1/../v2",
            "/v1/%2e%2e/v2",
            "/v1/..%2fv2",
            "/v1\\..\\v2",
            "//v1/x",
            "/%761/x",
            "/v1%2fx",
            "/v1/%61dmin/x",
        ] + ["/v1//admin/x", "/v1/;a/admin", "/v1/admin;x", "/v1/admi%256e", "/v1/\\admin"]:
            self.refused(through(head(path)), 400, "path")
        self.passes(through(head("/v1/group%2Fproject")))
        self.passes(through(head("/v1/x;v=1")))
        self.passes(through(head("/v1/x?next=/../../admin&u=http://a//b")))

    def test_a_query_or_fragment_is_no_path(self) -> None:
        self.refused(through(head("/?/v1/x")), 403, "path")
        self.refused(through(head("/v1/x#y")), 400, "target")

    def test_overrides(self) -> None:
        for name in (b"X-HTTP-Method-Override", b"x_http_method_override", b"X-Original-URL", b"X-Rewrite-Url"):
            self.refused(through(head(headers=[(name, b"DELETE")])), 403, "override")

    def test_only_https_and_the_routes_port(self) -> None:
        plain = head(host="api.example", scheme="http", authority="api.example")
        self.refused(judge(plain, None, TABLE), 403, "https-only")
        other = head(host="api.example:8443")
        self.refused(through(other, port=8443), 403, "port")

    def test_a_host_without_a_route_has_the_default_ports_or_those_that_are_written(self) -> None:
        ports = {"a.test": frozenset({8443}), "*.b.test": frozenset({80, 443}), "x.b.test": frozenset({9000})}
        table = Table([], ports=ports)
        for host, open_ports in (
            ("a.test", {8443}),
            ("sub.a.test", {80, 443}),
            ("b.test", {80, 443}),
            ("x.b.test", {80, 443, 9000}),
            ("y.x.b.test", {80, 443}),
            ("else.test", {80, 443}),
        ):
            for port in (22, 80, 443, 8443, 9000):
                for tunnel in (Tunnel(host, port, host), None):
                    authority = join_authority(host, port, 443 if tunnel else 80)
                    request = head(host=authority)
                    if tunnel is None:
                        request = head(host=authority, scheme="http", authority=authority)
                    verdict = judge(request, tunnel, table)
                    with self.subTest(host=host, port=port, tunnel=tunnel):
                        if port in open_ports:
                            self.passes(verdict)
                        else:
                            self.refused(verdict, 403, "port")

    def test_trace(self) -> None:
        self.refused(through(head(method="TRACE")), 405, "trace")
        self.refused(through(head(method="trace")), 405, "trace")
        for method in ("CONNECT", "Connect", "head", "Head"):
            self.refused(through(head(method=method)), 400, "method")

    def test_a_websocket_handshake(self) -> None:
        whole = {
            b"Upgrade": b"WebSocket",
            b"Connection": b"keep-alive, Upgrade",
            b"Sec-WebSocket-Key": b"eA==",
            b"Sec-WebSocket-Version": b"13",
            b"Sec-WebSocket-Extensions": b"permessage-deflate",
            b"X-Api-Key": b"own",
        }

        def handshake(**changed: bytes | None):
            fields = whole | {name.replace("_", "-").encode(): value for name, value in changed.items()}
            return [(name, value) for name, value in fields.items() if value is not None]

        passage = through(head(headers=handshake()))
        self.passes(passage)
        self.assertTrue(passage.websocket)
        sent = dict(passage.headers)
        self.assertEqual((sent[b"Upgrade"], sent[b"Connection"]), (b"websocket", b"Upgrade"))
        self.assertEqual(sent[b"Sec-WebSocket-Key"], b"eA==")
        self.assertNotIn(b"Sec-WebSocket-Extensions", sent, "a compressed credential could not be seen")
        self.assertNotIn(b"own", sent.values())
        self.refused(through(head("/elsewhere", headers=handshake())), 403, "path")
        for protocols, kept in (
            (b"realtime, openai-insecure-api-key.sk-own", b"realtime"),
            (b"base64url.bearer.authorization.k8s.io.own", None),
            (b"graphql-transport-ws,graphql-ws", b"graphql-transport-ws, graphql-ws"),
        ):
            chosen = through(head(headers=handshake(Sec_WebSocket_Protocol=protocols)))
            self.assertEqual(dict(chosen.headers).get(b"Sec-WebSocket-Protocol"), kept)
        for broken in (
            handshake(Upgrade=b"h2c, websocket"),
            handshake(Connection=b"keep-alive"),
            handshake(Connection=None),
            handshake(Sec_WebSocket_Key=None),
            handshake(Sec_WebSocket_Version=None),
            [*handshake(), (b"Upgrade", b"websocket")],
            [*handshake(), (b"Sec-WebSocket-Key", b"eQ==")],
            [*handshake(), (b"Content-Length", b"5")],
            [*handshake(), (b"Transfer-Encoding", b"chunked")],
        ):
            self.refused(through(head(headers=broken)), 400, "websocket")
        self.refused(through(head(method="POST", headers=handshake())), 400, "websocket")
        self.refused(through(head(version="HTTP/1.0", headers=handshake())), 400, "websocket")
        other = through(head(headers=[(b"Upgrade", b"h2c"), (b"Connection", b"Upgrade")]))
        self.passes(other)
        self.assertFalse({b"Upgrade", b"Connection"} & dict(other.headers).keys())


class Agreement(Base):
    def test_server_name(self) -> None:
        for name in (None, "", "other.example", "api.example."):
            self.refused(through(head(), server_name=name), 421, "server-name-mismatch")
        self.passes(through(head(), server_name="API.example"))
        self.refused(
            through(head(host="192.0.2.1"), host="192.0.2.1", server_name="api.example"), 421, "server-name-mismatch"
        )
        self.passes(through(head(host="192.0.2.1"), host="192.0.2.1", server_name=None))

    def test_host_header(self) -> None:
        for host in (
            "other.example",
            "api.example:8443",
            "api.example.",
            "",
            "api.example, other.example",
            "a@api.example",
        ):
            self.refused(through(head(host=host)), 421, "host-mismatch")
        self.refused(through(head(host=None)), 421, "host-mismatch")
        for host in ("API.example", "api.example:443"):
            self.assertEqual(self.passes(through(head(host=host)))["host"], [b"api.example"])

    def test_absolute_target(self) -> None:
        for authority in ("api.example", "other.example", "api.example:443"):
            self.refused(through(head(authority=authority)), 400, "target")
        plain = head(host="else.example", scheme="http", authority="else.example:80")
        self.assertEqual(self.passes(judge(plain, None, TABLE))["host"], [b"else.example"])
        for host, authority in (("a.example", "b.example"), ("a.example", "a.example:81"), (None, "a.example")):
            mismatch = head(host=host, scheme="http", authority=authority)
            self.refused(judge(mismatch, None, TABLE), 400, "host-mismatch")
        self.refused(judge(head(scheme="https", authority="api.example"), None, TABLE), 400, "scheme")
        self.refused(judge(head(), None, TABLE), 400, "target")
        self.refused(judge(head(scheme="http", authority="u@a.example"), None, TABLE), 400, "target")

    def test_connect(self) -> None:
        self.assertEqual(judge_connect("CONNECT", "API.example:443", ()), ("api.example", 443))
        self.assertEqual(
            judge_connect("CONNECT", "api.example:443", ((b"Host", b"api.example"),)), ("api.example", 443)
        )
        self.assertEqual(judge_connect("CONNECT", "[::1]:443", ((b"host", b"[::1]:443"),)), ("::1", 443))
        for authority in (
            "api.example",
            "api.example.:443",
            "u@api.example:443",
            "api.example:0",
            "xn--\u00fc:443",
            "127.1:1",
        ):
            self.refused(judge_connect("CONNECT", authority, ()), 400, "connect")
        self.refused(judge_connect("Connect", "api.example:443", ()), 400, "connect")
        for headers in (
            ((b"Host", b"other.example:443"),),
            ((b"Host", b"api.example:8443"),),
            ((b"Host", b"api.example:443"), (b"host", b"api.example:443")),
        ):
            self.refused(judge_connect("CONNECT", "api.example:443", headers), 400, "host-mismatch")


class Smuggling(Base):
    def test_headers(self) -> None:
        self.refused(through(head(headers=[(b"host", b"api.example")])), 400, "header")
        self.refused(through(head(headers=[(b"Content_Length", b"5")])), 400, "header")
        self.refused(through(head(headers=[(b"Transfer_Encoding", b"chunked")])), 400, "header")
        self.refused(through(head(headers=[(b"Content-Length", b"5"), (b"content-length", b"5")])), 400, "header")
        self.refused(
            through(head(headers=[(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")])), 400, "framing"
        )
        for name in (b"x y", b"x:", b"", b"x\t", b"\xc3\xbc"):
            self.refused(through(head(headers=[(name, b"v")])), 400, "header")
        for value in (b"a\r\n b", b"a\nb", b"a\0b", b"a\x7fb"):
            self.refused(through(head(headers=[(b"X", value)])), 400, "header")

    def test_the_request_line(self) -> None:
        self.refused(through(head(version="HTTP/2.0")), 505, "version")
        self.refused(through(head(version="HTTP/0.9")), 505, "version")
        self.refused(through(head(method="GE T")), 400, "method")
        self.refused(through(head("/v1/\x01")), 400, "target")
        self.refused(through(head("v1")), 400, "target")

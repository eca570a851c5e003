"""Credentials in what the agent sends, driven over sockets: they are refused, and nothing of them is sent on."""

import json
from pathlib import Path

from .dlp_cases import encodings, tokens
from .support import Answer, Authority, Egress, Outer, ask, until
from .test_connections import UPGRADE
from .test_dlp import frame
from .test_proxy import TOKENS, Proxy, get

ROUTES = """
version: 1
dlp: block
hosts:
  - {host: off.test, dlp: "off"}
  - {host: x-0123456789abcdef0123456789abcdef0123456789abcdef.named.test, dlp: block}
  - {host: "*.warn.test", dlp: warn}
routes:
  - name: api
    host: api.test
    inject: {header: x-api-key, template: "{token}", slot: EGRESS_TOKEN_API}
  - name: git
    host: git.test
    paths: [/loose/]
    dlp: "off"
  - name: rest
    host: git.test
"""
OWN = "sk-real-1f0c7Kx92LmQ"
TOKEN = tokens()["GitHub"]


class Guarded(Proxy):
    @classmethod
    def setUpClass(cls) -> None:
        cls.outer = Outer(Authority("outer"))
        made = {**TOKENS, "EGRESS_TOKEN_API": OWN}
        cls.egress = Egress(cls.outer.port, cls.outer.authority, ROUTES, made, cls.outer.origins).start()
        print(f"\n  start with the search: {cls.egress.start_seconds * 1000:.0f} ms")

    def told(self, nth: int = 1) -> tuple[str, str | None, dict]:
        line = self.line(nth)
        self.assertNotIn(TOKEN[4:], json.dumps(line))
        return line["outcome"], line.get("reason"), line["finding"]

    def test_a_name_with_data(self) -> None:
        digits = "0123456789abcdef" * 3
        for nth, name in enumerate((digits, f"x-{digits}", ".".join((digits[:15], digits[15:30], digits[30:]))), 1):
            host = f"{name}.allowed.test"
            self.refused_in_tunnel(get("/x", host), 403, "dlp", f"{host}:443", host)
            self.assertEqual(self.told(nth)[2], {"pattern": "encoded-data", "place": "host"})
        # The manifest has this very name.
        with self.egress.tunnel(f"x-{digits}.named.test:443") as tunnel:
            self.assertEqual(ask(tunnel, get("/x", f"x-{digits}.named.test")).status, 200)

    def test_url_and_headers(self) -> None:
        for nth, (path, header, place) in enumerate(
            [
                (f"/x?q={TOKEN}", "", "url"),
                (f"/{TOKEN}/x", "", "url"),
                ("/x", f"X-Request-Id: {TOKEN}", "header x-request-id"),
                ("/x", f"Baggage: k={encodings(TOKEN)['base64 of a line']}", "header baggage"),
            ],
            1,
        ):
            self.refused_in_tunnel(get(path, "api.test", *([header] if header else [])), 403, "dlp")
            self.assertEqual(self.told(nth), ("refused", "dlp", {"pattern": "github-token", "place": place}))

    def test_the_injected_credential_is_not_taken_for_the_agents(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/x", "api.test", method="POST", body=f"own {OWN}"))
            self.assertEqual(answer.status, 200)
            answer.body()
        with self.egress.tunnel("other.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/x", "other.test", method="POST", body=f"own {OWN}"))
            self.assertEqual((answer.status, answer.rule()), (403, "dlp"))
        self.assertEqual(self.told(2)[2], {"pattern": "bottle-secret", "place": "body at byte 12"})

    def test_a_body(self) -> None:
        with self.egress.tunnel("other.test:443") as tunnel:
            body = json.dumps({"text": f"take {TOKEN} and"})
            answer = ask(tunnel, get("/x", "other.test", method="POST", body=body))
            text = answer.body().decode()
            self.assertEqual(answer.status, 403)
            self.assertNotIn(TOKEN[4:], text)
            for part in ("github-token", "body at byte 15", "other.test", "dlp: off"):
                self.assertIn(part, text)
            # The connection of the agent stays open for its next request.
            self.assertEqual(ask(tunnel, get("/x", "other.test", method="POST", body="clean")).json()["body"], 5)
        self.assertLess(self.outer.received, len(body) + 5 - len(TOKEN))
        self.assertEqual(self.told()[0], "refused")

    def test_an_upload_is_cut_in_the_middle(self) -> None:
        with self.egress.tunnel("other.test:443") as tunnel:
            request = get("/x", "other.test", "Transfer-Encoding: chunked", method="POST")
            tunnel.sendall(request.encode())
            for _ in range(20):
                tunnel.sendall(b"8\r\ncleaned\n\r\n")
            until(lambda: self.outer.received == 160)
            for character in f"{TOKEN} ":
                tunnel.sendall(b"1\r\n%s\r\n" % character.encode())
            # The answer comes before the upload ends.
            answer = Answer(tunnel)
            self.assertEqual((answer.status, answer.rule()), (403, "dlp"))
            tunnel.sendall(b"5\r\nafter\r\n0\r\n\r\n")
            self.assertEqual(ask(tunnel, get("/x", "other.test")).status, 200)
        self.assertEqual(self.outer.received, 160)
        self.assertEqual(self.told()[2], {"pattern": "github-token", "place": "body at byte 160"})

    def test_after_the_answer_has_begun(self) -> None:
        with self.egress.tunnel("other.test:443") as tunnel:
            head = get("/early", "other.test", "Content-Length: 100000", method="POST")
            tunnel.sendall(head.encode() + b"x\n")
            self.assertEqual(Answer(tunnel).status, 200)
            tunnel.sendall(f"{TOKEN} ".encode())
            tunnel.settimeout(5)
            try:
                while tunnel.recv(65536):
                    pass
            except ConnectionError:
                pass

    def test_warn_and_off_let_it_pass(self) -> None:
        for host, path in (("off.test", "/x"), ("a.b.warn.test", "/x"), ("warn.test", "/x"), ("git.test", "/loose/x")):
            with self.egress.tunnel(f"{host}:443") as tunnel:
                answer = ask(tunnel, get(path, host, "X-Note: one", method="POST", body=f"take {TOKEN}"))
                self.assertEqual(answer.json()["body"], 5 + len(TOKEN), host)
                self.assertEqual(ask(tunnel, get(f"{path}?{TOKEN}", host)).status, 200)
        self.refused_in_git()
        lines = self.lines(9)
        warned = [line for line in lines if line["host"].endswith("warn.test")]
        self.assertEqual([line["finding"]["place"] for line in warned], ["body at byte 5", "url"] * 2)
        self.assertEqual([line for line in lines if line["host"] == "off.test" and "finding" in line], [])
        self.assertNotIn(TOKEN[4:], json.dumps(lines))

    def refused_in_git(self) -> None:
        with self.egress.tunnel("git.test:443") as tunnel:
            self.assertEqual(ask(tunnel, get(f"/x?{TOKEN}", "git.test")).rule(), "dlp")

    def test_plain_http(self) -> None:
        with self.egress.dial() as plain:
            answer = ask(plain, get("http://other.test/x", "other.test", method="POST", body=f"{TOKEN} "))
            self.assertEqual((answer.status, answer.rule()), (403, "dlp"))

    def test_a_websocket_is_closed(self) -> None:
        for path, host in (("/v1/ws", "api.test"), ("/v1/ws", "other.test")):
            with self.egress.tunnel(f"{host}:443") as tunnel:
                answer = ask(tunnel, get(path, host, *UPGRADE, "Sec-WebSocket-Extensions: permessage-deflate"))
                self.assertEqual(answer.status, 101)
                self.assertNotIn(b"permessage", self.outer.heads[-1])
                payload = f"take {TOKEN}".encode()
                head = bytearray(frame(payload, 0x81)[: -len(payload)])
                head[1] |= 0x80
                tunnel.sendall(bytes(head) + bytes(4) + payload)
                tunnel.settimeout(5)
                seen = answer._rest
                while chunk := tunnel.recv(65536):
                    seen += chunk
                self.assertIn(b"\x03\xf0egress: ", seen)
                self.assertNotIn(TOKEN[4:].encode(), seen)
        self.assertEqual(self.told(2)[:2], ("refused", "dlp"))

    def test_the_time_that_it_adds(self) -> None:
        body = b'{"text": "' + b"lorem ipsum dolor, sit amet; " * 34_000 + b'"}'
        took = {"off.test": 0, "other.test": 0}
        rounds = 30
        for _ in range(rounds):
            for host in took:
                with self.egress.tunnel(f"{host}:443") as tunnel:
                    ask(tunnel, get("/x", host)).body()
                    began = self.ticks()
                    head = get("/x", host, f"Content-Length: {len(body)}", method="POST")
                    self.assertEqual(ask(tunnel, head.encode() + body).json()["body"], len(body))
                    took[host] += self.ticks() - began
        off, on = (ticks * 10 / rounds for ticks in took.values())
        print(f"\n  1 MB of JSON takes {off:.1f} ms of the processor without the search, {on:.1f} ms with it")
        self.assertLess(on - off, 20)

    def ticks(self) -> int:
        """Returns the time of the processor that egress has used, in hundredths of a second."""
        fields = Path(f"/proc/{self.egress.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

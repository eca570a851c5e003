"""Kept connections, WebSockets, and what an agent could do to wear the proxy out."""

import contextlib
import select
import socket
import ssl
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from .support import Answer, Authority, Egress, Outer, ask, until
from .test_proxy import ROUTES, TOKENS, Proxy, get

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
MIB = 1 << 20


class Kept(Proxy):
    def test_a_connection_to_a_host_is_used_again(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            for _ in range(5):
                ask(tunnel, get("/x", "else.test")).body()
        self.assertEqual(self.outer.connects, ["else.test:443"])

    def test_one_that_the_firewall_terminates_is_not(self) -> None:
        with self.egress.tunnel("content.test:443") as tunnel:
            for method in ("GET", "POST", "POST", "GET"):
                answer = ask(tunnel, get("/x", "content.test", method=method, body="x" if method == "POST" else ""))
                self.assertEqual(answer.status, 200)
                answer.body()
        self.assertEqual(self.outer.connects, ["content.test:443"] * 4)

    def test_one_that_the_host_has_closed_is_not(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            for method in ("POST", "GET", "POST"):
                answer = ask(tunnel, get("/idle", "else.test", method=method, body="x" if method == "POST" else ""))
                self.assertEqual((answer.status, answer.body()), (200, b"ok"))
        self.assertEqual(self.outer.connects, ["else.test:443"] * 3)

    def test_a_request_that_dies_with_a_kept_connection_is_repeated(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            for _ in range(4):
                answer = ask(tunnel, get("/dying", "else.test"))
                self.assertEqual(answer.status, 200)
                answer.body()
        self.assertEqual(len(self.outer.heads), 7, "each after the first arrives twice")
        self.assertEqual([line["status"] for line in self.lines(4)], [200] * 4)
        self.assertEqual(len(self.lines(4)), 4, "one line for each request, however often it was sent")

    def test_one_that_may_have_had_an_effect_is_not_repeated(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            ask(tunnel, get("/dying", "else.test")).body()
            answer = ask(tunnel, get("/dying", "else.test", method="POST", body="x"))
            self.assertEqual((answer.status, answer.rule()), (502, "upstream"))
        with self.egress.tunnel("else.test:443") as tunnel:
            ask(tunnel, get("/dying", "else.test")).body()
            answer = ask(tunnel, get("/dying", "else.test", "Content-Length: 1") + "x")
            self.assertEqual(answer.status, 502)
        self.assertEqual(len(self.outer.heads), 4)

    def test_one_that_may_not_be_repeated_is_sent_over_a_fresh_connection(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            ask(tunnel, get("/dying", "else.test")).body()
            time.sleep(3.2)
            self.assertEqual(ask(tunnel, get("/dying", "else.test", method="POST", body="x")).status, 200)

    def test_a_client_that_waits_for_acknowledgements_is_not_held_up(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            # As urllib3 does through a proxy: Nagle's algorithm, and a body in a packet of its own.
            tunnel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            times = []
            for _ in range(21):
                began = time.monotonic()
                tunnel.sendall(get("/x", "else.test", "Content-Length: 1", method="POST").encode())
                tunnel.sendall(b"x")
                Answer(tunnel).body()
                times.append(time.monotonic() - began)
        self.assertLess(sorted(times)[10], 0.03, "40 ms is what the kernel puts an acknowledgement off for")

    def test_what_belonged_to_closed_connections_is_dropped(self) -> None:
        with self.egress.tunnel("content.test:443") as tunnel:
            for _ in range(50):
                ask(tunnel, get("/x", "content.test")).body()
            before = self.egress.resident_kib()
            for _ in range(400):
                ask(tunnel, get("/x", "content.test")).body()
            grown = self.egress.resident_kib() - before
        print(f"\n  400 requests on one connection, each with an upstream connection of its own: +{grown} KiB")
        self.assertLess(grown, 4 * 1024)


class WebSockets(Proxy):
    def test_bytes_go_both_ways_as_they_come(self) -> None:
        with self.egress.tunnel("api.test:443") as tunnel:
            answer = ask(tunnel, get("/v1/ws", "api.test", *UPGRADE, "X-Api-Key: dummy"))
            self.assertEqual(answer.status, 101)
            self.assertIn(b"Upgrade: websocket", answer.head)
            self.assertIn(b"Sec-WebSocket-Accept: ************", answer.head, "the echoed credential is masked")
            for payload in (b"one", b"ends with s", b"two"):
                frame = bytes([0x82, len(payload)]) + payload
                began = time.monotonic()
                tunnel.sendall(frame)
                self.assertEqual(tunnel.recv(100), frame)
                self.assertLess(time.monotonic() - began, 0.5)
            echoed = bytes([0x82, 12]) + TOKENS["EGRESS_TOKEN_API"].encode()
            tunnel.sendall(echoed)
            self.assertEqual(tunnel.recv(100), bytes([0x82, 12]) + b"*" * 12)
            self.assertEqual(len(self.egress.requests()), self.count_of_lines, "its line comes at its end")
        head = self.outer.heads[-1].decode().lower()
        self.assertIn("x-api-key: sk-real-1f0c\r\n", head)
        self.assertIn("connection: upgrade\r\nupgrade: websocket\r\n", head)
        self.assertNotIn("dummy", head)
        line = self.line()
        self.assertEqual((line["status"], line["route"], line["injected"]), (101, "api", True))
        self.assertEqual((line["bytes_up"], line["bytes_down"]), (3 + 11 + 3 + 6 + 14, 3 + 11 + 3 + 6 + 14))

    def setUp(self) -> None:
        super().setUp()
        self.count_of_lines = len(self.egress.requests())

    def test_much_goes_both_ways_at_once(self) -> None:
        size = 64 * MIB
        with self.egress.tunnel("else.test:443") as tunnel:
            self.assertEqual(ask(tunnel, get("/ws", "else.test", *UPGRADE)).status, 101)
            before = self.egress.resident_kib()
            tunnel.setblocking(False)
            sent = received = 0
            block = bytes(65536)
            end = time.monotonic() + 60
            while received < size and time.monotonic() < end:
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if sent < size:
                        sent += tunnel.send(block)
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    received += len(tunnel.recv(1 << 18))
                    continue
                select.select([tunnel], [tunnel] if sent < size else [], [], 1)
            self.assertEqual((sent, received), (size, size))
            grown = self.egress.resident_kib() - before
            tunnel.setblocking(True)
        self.assertLess(grown, 16 * 1024)
        line = self.line()
        self.assertEqual((line["bytes_up"], line["bytes_down"]), (size, size))

    def test_it_is_refused_as_any_request_is(self) -> None:
        self.refused_in_tunnel(get("/v2/ws", "api.test", *UPGRADE), 403, "path")
        self.refused_in_tunnel(get("/v1/ws", "api.test", *UPGRADE, method="POST"), 400, "websocket")

    def test_where_content_is_inspected_the_answer_is_426(self) -> None:
        with self.egress.tunnel("content.test:443") as tunnel:
            began = time.monotonic()
            answer = ask(tunnel, get("/ws", "content.test", *UPGRADE))
            self.assertEqual((answer.status, answer.rule()), (426, "websocket"))
            self.assertLess(time.monotonic() - began, 1)
            self.assertIn(b"\r\nUpgrade: ", answer.head)
            self.assertEqual(ask(tunnel, get("/x", "content.test")).status, 200, "the connection can still be used")
        self.assertEqual(len(self.outer.heads), 1, "the upgrade was not sent")
        line = self.line()
        self.assertEqual((line["status"], line.get("reason")), (426, "websocket"))

    def test_in_the_open_too(self) -> None:
        with self.egress.dial() as plain:
            answer = ask(plain, get("http://else.test/ws", "else.test", *UPGRADE))
            self.assertEqual((answer.status, answer.rule()), (426, "websocket"))

    def test_a_host_that_does_not_switch(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            answer = ask(tunnel, get("/x", "else.test", *UPGRADE))
            self.assertEqual(answer.status, 200)
            answer.body()
            self.assertEqual(ask(tunnel, get("/x", "else.test")).status, 200)

    def test_either_side_ends_it(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            self.assertEqual(ask(tunnel, get("/ws", "else.test", *UPGRADE)).status, 101)
            tunnel.sendall(b"x")
            self.assertEqual(tunnel.recv(10), b"x")
            tunnel.shutdown(socket.SHUT_WR)
            self.assertEqual(tunnel.recv(10), b"")
        self.assertEqual(self.line()["bytes_up"], 1)


class Bounds(Proxy):
    def test_an_endless_head_or_chunk_of_a_host(self) -> None:
        for path in ("/endless-head", "/endless-chunk"):
            before = self.egress.resident_kib()
            with self.egress.tunnel("else.test:443") as tunnel:
                tunnel.sendall(get(path, "else.test").encode())
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    while tunnel.recv(65536):
                        pass
            self.assertLess(self.egress.resident_kib() - before, 8 * 1024)
        self.assertEqual([line.get("reason") for line in self.lines(2)], ["upstream", "upstream"])

    def test_an_endless_chunk_of_the_agent(self) -> None:
        with self.egress.tunnel("else.test:443") as tunnel:
            before = self.egress.resident_kib()
            tunnel.sendall(get("/x", "else.test", "Transfer-Encoding: chunked", method="POST").encode() + b"1")
            with self.assertRaises((ConnectionError, ssl.SSLError)):
                for _ in range(64):
                    tunnel.sendall(b";a" * MIB)
            self.assertLess(self.egress.resident_kib() - before, 8 * 1024)
        self.assertIn(self.line().get("reason"), ("client-malformed", "client-gone"))

    def test_an_endless_client_hello(self) -> None:
        with self.egress.dial() as plain:
            plain.sendall(b"CONNECT else.test:443 HTTP/1.1\r\n\r\n")
            plain.recv(4096)
            # A handshake message of 16 MiB less one byte, in records of 16 KiB.
            record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16380)
            with self.assertRaises(ConnectionError):
                for _ in range(1024):
                    plain.sendall(record)
                plain.recv(1)
                raise ConnectionResetError
        self.assertEqual(self.line().get("reason"), "client-tls")

    def test_a_reader_that_stops_has_the_far_side_stopped(self) -> None:
        before = self.egress.resident_kib()
        with self.egress.tunnel("api.test:443") as tunnel:
            tunnel.sendall(get(f"/v1/big/{1 << 30}", "api.test").encode())
            peak = before
            end = time.monotonic() + 4
            while time.monotonic() < end:
                tunnel.recv(65536)
                time.sleep(0.05)
                peak = max(peak, self.egress.resident_kib())
        print(f"\n  a slow reader of 1 GiB: +{(peak - before) / 1024:.1f} MiB over {before / 1024:.0f} MiB")
        self.assertLess(peak - before, 8 * 1024)

    def test_a_host_that_stops_reading_has_the_agent_stopped(self) -> None:
        before = self.egress.resident_kib()
        with self.egress.tunnel("else.test:443") as tunnel:
            tunnel.sendall(get("/ws", "else.test", *UPGRADE).encode())
            Answer(tunnel)
            tunnel.settimeout(2)
            sent = 0
            # The double echoes into a full socket, since nothing is read here, and then stops reading.
            with self.assertRaises(TimeoutError):
                while sent < 256 * MIB:
                    sent += tunnel.send(bytes(65536))
            grown = self.egress.resident_kib() - before
        print(f"\n  a host that stops reading: {sent / MIB:.0f} MiB sent, +{grown / 1024:.1f} MiB")
        self.assertLess(grown, 8 * 1024)

    def test_refusals_that_nobody_reads(self) -> None:
        before = len(self.egress.requests())
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.settimeout(1)
            plain.connect(("127.0.0.1", self.egress.port))
            batch = get("http://api.test/v1/x", "api.test").encode() * 1500
            size = -1
            for _ in range(20):
                # A head of which the rest does not arrive within a minute ends the connection.
                with contextlib.suppress(TimeoutError, ConnectionError):
                    plain.sendall(batch)
                time.sleep(0.1)
                while size != (size := self.egress.lines_file.stat().st_size):
                    time.sleep(0.1)
        # The kernel takes up to 4 MiB of them; what it does not take would be held here.
        answered = len(self.egress.requests()) - before
        self.assertGreater(answered, 1000)
        self.assertLess(answered, 18_000)

    def test_what_is_sent_while_the_connection_is_made_waits(self) -> None:
        before = self.egress.resident_kib()
        with self.egress.tunnel("mute.test:443") as tunnel:
            tunnel.settimeout(2)
            tunnel.sendall(get("/x", "mute.test", f"Content-Length: {1 << 30}", method="POST").encode())
            with self.assertRaises(TimeoutError):
                for _ in range(256):
                    tunnel.sendall(bytes(MIB))
            grown = self.egress.resident_kib() - before
        self.assertLess(grown, 8 * 1024)


class Crowd(unittest.TestCase):
    """Each with a proxy of its own, since peaks are looked at and limits are moved."""

    def start(self, max_inspected: int = 48, **constants: float) -> Egress:
        self.outer = Outer(Authority("outer"))
        self.addCleanup(self.outer.close)
        egress = Egress(
            self.outer.port,
            self.outer.authority,
            ROUTES,
            TOKENS,
            self.outer.origins,
            {f"connections.{name}": value for name, value in constants.items()},
            EGRESS_MAX_INSPECTED=str(max_inspected),
        )
        self.addCleanup(egress.close)
        return egress.start()

    def test_many_readers_that_stop(self) -> None:
        egress = self.start()
        before, count = egress.resident_kib(), 400
        with contextlib.ExitStack() as stack:

            def stall(_: int) -> None:
                tunnel = stack.enter_context(egress.tunnel("else.test:443"))
                tunnel.sendall(get(f"/big/{1 << 30}", "else.test").encode())

            with ThreadPoolExecutor(16) as pool:
                list(pool.map(stall, range(count)))
            until(lambda: len(self.outer.connects) == count)
            time.sleep(2)
            each = (egress.resident_kib() - before) / count
            with egress.tunnel("else.test:443") as tunnel:
                self.assertEqual(ask(tunnel, get("/x", "else.test")).status, 200)
        print(f"\n  {count} stalled transfers: {each:.0f} KiB each over {before / 1024:.0f} MiB")
        self.assertLess(before + each * 1536, 850 * 1024, "KiB, with as many as are allowed: the limit is 1 GiB")

    def test_the_number_of_connections_is_bounded(self) -> None:
        egress = self.start(MAX_CLIENTS=8)
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(egress.dial()) for _ in range(4)]
            busy = [stack.enter_context(egress.tunnel("else.test:443")) for _ in range(8)]
            # The idle ones have made room.
            for connection in idle:
                self.assertEqual(connection.recv(1), b"")
            for tunnel in busy:
                tunnel.sendall(get("/sse", "else.test").encode())
            until(lambda: len(self.outer.heads) == 8)
            # As from another host: the check of the container's own health is let in.
            with socket.create_connection((_own_address(), egress.port), 10, (_own_address(), 0)) as one_more:
                answer = ask(one_more, get("http://else.test/", "else.test"))
                self.assertEqual((answer.status, answer.rule()), (503, "too-many-connections"))
            with egress.dial() as health:
                self.assertEqual(ask(health, get("/.egress/health", "egress")).status, 200)
            for tunnel in busy:
                self.assertEqual(Answer(tunnel).status, 200)
        self.assertIn("too-many-connections", [line.get("reason") for line in egress.requests()])

    def test_few_upstream_connections_are_made_at_once(self) -> None:
        egress = self.start(MAX_CONNECTING=4)

        def one(_: int) -> int:
            with egress.tunnel("slow.test:443") as tunnel:
                return ask(tunnel, get("/x", "slow.test")).status

        with ThreadPoolExecutor(24) as pool:
            self.assertEqual(list(pool.map(one, range(48))), [200] * 48)
        self.assertLessEqual(self.outer.most_connecting, 4)
        self.assertGreater(self.outer.most_connecting, 1)

    def test_few_requests_are_inspected_at_once(self) -> None:
        egress = self.start(max_inspected=4)

        def plain(_: int) -> int:
            with egress.dial() as connection:
                # Twice, since the second request goes over a kept connection.
                for _ in range(2):
                    request = get("http://else.test/held", "else.test", f"Content-Length: {MIB}", method="POST")
                    answer = ask(connection, request.encode() + bytes(MIB))
                    answer.body()
                return answer.status

        def decrypted(_: int) -> int:
            with egress.tunnel("content.test:443") as tunnel:
                return ask(tunnel, get("/held", "content.test")).status

        with ThreadPoolExecutor(24) as pool:
            flood = [pool.submit(kind, n) for n in range(24) for kind in (plain, decrypted)]
            until(lambda: self.outer.holding == 4)
            with egress.tunnel("else.test:443") as tunnel:
                began = time.monotonic()
                self.assertEqual(ask(tunnel, get("/x", "else.test")).status, 200)
                self.assertLess(time.monotonic() - began, 1, "a host that pipelock does not decrypt waits for none")
            self.assertEqual([future.result() for future in flood], [200] * 48)
        self.assertEqual(self.outer.most_holding, 4)

    def test_an_abandoned_request_counts_until_the_firewall_is_done_with_it(self) -> None:
        egress = self.start(max_inspected=4)
        self.outer.hold_seconds = 0.6

        def give_up(number: int) -> None:
            if number % 2:
                with egress.dial() as connection:
                    connection.sendall(get("http://else.test/held", "else.test").encode())
                    time.sleep(0.2)
            else:
                with egress.tunnel("content.test:443") as tunnel:
                    tunnel.sendall(get("/held", "content.test").encode())
                    time.sleep(0.2)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(give_up, range(32)))
        with egress.dial() as connection:
            self.assertEqual(ask(connection, get("http://else.test/held", "else.test")).status, 200)
        self.assertEqual(self.outer.most_holding, 4)

    def test_a_request_that_is_given_up_does_not_wait(self) -> None:
        egress = self.start(max_inspected=1)
        self.outer.hold_seconds = 5
        with egress.dial() as first:
            first.sendall(get("http://else.test/held", "else.test").encode())
            until(lambda: self.outer.holding == 1)
            for _ in range(6):
                with egress.dial() as connection:
                    connection.sendall(get("http://else.test/x", "else.test").encode())
                    time.sleep(0.05)
            until(lambda: [line.get("reason") for line in egress.requests()] == ["client-gone"] * 6, 4)
            self.assertEqual(self.outer.holding, 1)
            self.assertEqual(Answer(first).status, 200)
        self.assertEqual(len(self.outer.heads), 1, "none of them was sent on")

    def test_an_inspected_request_does_not_wait_for_ever(self) -> None:
        egress = self.start(max_inspected=1, CONNECT_SECONDS=0.3)
        with egress.dial() as first, egress.dial() as second, egress.tunnel("content.test:443") as third:
            self.assertEqual(ask(first, get("http://else.test/sse", "else.test")).status, 200)
            before = egress.resident_kib()
            second.sendall(get("http://else.test/x", "else.test", f"Content-Length: {MIB}", method="POST").encode())
            second.sendall(bytes(1000))
            third.sendall(get("/x", "content.test").encode())
            for connection in (second, third):
                answer = Answer(connection)
                self.assertEqual((answer.status, answer.rule()), (503, "inspection-busy"))
                self.assertEqual(connection.recv(1), b"")
            self.assertLess(egress.resident_kib() - before, 8 * 1024)
        self.assertEqual([line.get("reason") for line in egress.requests()].count("inspection-busy"), 2)
        self.assertNotIn("/x", b"".join(self.outer.heads).decode(), "nothing of them was sent on")
        time.sleep(0.5)
        with egress.tunnel("content.test:443") as tunnel:
            self.assertEqual(ask(tunnel, get("/x", "content.test")).status, 200)

    def test_half_open_connections_are_closed(self) -> None:
        egress = self.start(HANDSHAKE_SECONDS=0.5)
        openings = {
            "nothing": b"",
            "half a head": b"CONNECT else.test:443 HT",
            "no hello": b"CONNECT else.test:443 HTTP/1.1\r\n\r\n",
            "half a hello": b"CONNECT else.test:443 HTTP/1.1\r\n\r\n\x16\x03\x01\x02",
        }
        for name, opening in openings.items():
            with egress.dial() as plain:
                began = time.monotonic()
                plain.sendall(opening)
                with contextlib.suppress(ConnectionResetError):
                    while plain.recv(4096):
                        pass
                self.assertLess(time.monotonic() - began, 3, name)
        with egress.tunnel("else.test:443") as tunnel:
            ask(tunnel, get("/x", "else.test")).body()
            time.sleep(1)  # idle is allowed
            tunnel.sendall(b"GET /x HTTP/1.1\r\nHo")
            with contextlib.suppress(ConnectionResetError, ssl.SSLError):
                self.assertEqual(tunnel.recv(1), b"")
        until(lambda: [line.get("reason") for line in egress.requests()].count("too-slow") == len(openings) + 1)

    def test_long_exchanges_are_not(self) -> None:
        egress = self.start(HANDSHAKE_SECONDS=0.5)
        with egress.tunnel("else.test:443") as tunnel, egress.tunnel("else.test:443") as socket_:
            self.assertEqual(ask(socket_, get("/ws", "else.test", *UPGRADE)).status, 101)
            socket_.sendall(b"x")
            tunnel.sendall(get("/sse", "else.test").encode())
            seen = b""
            while not seen.endswith(b"0\r\n\r\n"):
                self.assertTrue(chunk := tunnel.recv(65536))
                seen += chunk
            self.assertEqual(socket_.recv(1), b"x")
            socket_.sendall(b"y")
            self.assertEqual(socket_.recv(1), b"y")

    def test_a_host_that_does_not_answer_a_connect(self) -> None:
        egress = self.start(CONNECT_SECONDS=0.5)
        with egress.tunnel("mute.test:443") as tunnel:
            answer = ask(tunnel, get("/x", "mute.test"))
            self.assertEqual((answer.status, answer.rule()), (504, "upstream-timeout"))

    def test_a_thousand_requests_at_once(self) -> None:
        egress = self.start()
        statuses = []
        barrier = threading.Barrier(100)

        def ten(_: int) -> None:
            barrier.wait(30)
            for host in ("else.test", "content.test") * 5:
                with egress.tunnel(f"{host}:443") as tunnel:
                    statuses.append(ask(tunnel, get("/x", host)).status)

        with ThreadPoolExecutor(100) as pool:
            list(pool.map(ten, range(100)))
        self.assertEqual(statuses, [200] * 1000)
        print(f"\n  peak of 1,000 requests from 100 threads: {egress.resident_kib('VmHWM') / 1024:.0f} MiB")


def _own_address() -> str:
    """Another address of the loopback interface: the tests have no network."""
    return "127.0.0.2"


if __name__ == "__main__":
    unittest.main()

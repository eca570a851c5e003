"""The server as a client meets it: its own process, the official client, and hostile HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from mcp import Client

from supervise.audit import digest
from supervise.settings import MAX_BODY_BYTES, MAX_CONNECTIONS

_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


class ServerTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.base = Path(directory.name)
        for name in ("queue", "decisions", "config"):
            (self.base / name).mkdir()
        (self.base / "config" / "posture.json").write_text('{"version":1,"hosts":["a.example"]}')
        (self.base / "config" / "posture.txt").write_text("Hosts allowed: a.example\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()
        self.addCleanup(self.stop)

    def start(self, wait: int = 1) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-P", "-m", "supervise"],
            env={
                **os.environ,
                "SUPERVISE_BOTTLE_SLUG": "dev-x",
                "SUPERVISE_PORT": str(self.port),
                "SUPERVISE_WAIT_SECONDS": str(wait),
                "SUPERVISE_QUEUE_DIR": str(self.base / "queue"),
                "SUPERVISE_DECISIONS_DIR": str(self.base / "decisions"),
                "SUPERVISE_CONFIG_DIR": str(self.base / "config"),
            },
        )
        for _ in range(200):
            try:
                if self.http("GET", "/healthz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        self.fail("the server did not start")

    def stop(self) -> int:
        if self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
        return self.server.wait(10)

    def http(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        headers = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]

    def post(self, message: object, **headers: str) -> tuple[int, bytes]:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.http(
            "POST",
            "/mcp",
            body,
            **{"Content_Type": "application/json", "Accept": "application/json, text/event-stream", **headers},
        )

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}/mcp")

    def decide(self, proposal_id: str, decision: str, **changes: object) -> None:
        content = (self.base / "queue" / "proposals" / f"{proposal_id}.json").read_bytes()
        path = self.base / "decisions" / f"{proposal_id}.json"
        path.with_suffix(".tmp").write_text(
            json.dumps(
                {
                    "version": 1,
                    "id": proposal_id,
                    "proposal_sha256": digest(content),
                    "decision": decision,
                    "reason": "because",
                    "decided_at": "2026-01-02T03:04:05.678Z",
                    **changes,
                }
            )
        )
        path.with_suffix(".tmp").rename(path)

    async def decide_when_there(self, decision: str, **changes: object) -> float:
        for _ in range(200):
            waiting = [
                p
                for p in (self.base / "queue" / "proposals").glob("*.json")
                if not (self.base / "decisions" / p.name).exists()
            ]
            if waiting:
                await asyncio.sleep(0.3)
                self.decide(waiting[0].stem, decision, **changes)
                return time.monotonic()
            await asyncio.sleep(0.02)
        raise AssertionError("nothing was proposed")

    async def test_the_tools_have_schemas_with_limits(self) -> None:
        async with self.client() as client:
            tools = {t.name: t for t in (await client.list_tools()).tools}
        self.assertEqual(
            list(tools),
            [
                "current_config",
                "propose_allow_host",
                "propose_route",
                "propose_git_upstream",
                "propose_image_change",
                "proposal_status",
            ],
        )
        for tool in tools.values():
            self.assertFalse(tool.input_schema["additionalProperties"])
            for name, schema in tool.input_schema["properties"].items():
                self.assertTrue({"maxLength", "maxItems", "maximum"} & schema.keys(), f"{tool.name} {name}")

    async def test_the_configuration_is_told_in_words_and_as_data(self) -> None:
        async with self.client() as client:
            result = await client.call_tool("current_config", {})
            self.assertTrue(result.content[0].text.startswith("Hosts allowed: a.example\n"))
            self.assertEqual(result.structured_content["posture"]["hosts"], ["a.example"])
            (self.base / "config" / "posture.json").write_text('{"version":1,"hosts":["b.exa')
            result = await client.call_tool("current_config", {})
            self.assertFalse(result.is_error)
            self.assertIsNone(result.structured_content["posture"])
            for file in (self.base / "config").iterdir():
                file.unlink()
            self.assertTrue((await client.call_tool("current_config", {})).is_error)

    async def test_approved_denied_and_pending(self) -> None:
        async with self.client() as client:
            result, decided = await asyncio.gather(
                client.call_tool("propose_allow_host", {"host": "a.example", "reason": "x"}),
                self.decide_when_there("approved", applied={"status": "live", "detail": "reloaded"}),
            )
            self.assertLess(time.monotonic() - decided, 0.2)
            self.assertEqual(result.structured_content["status"], "approved")
            self.assertIn("Approved. It is in effect now: reloaded. Reason: because.", result.content[0].text)

            result, _ = await asyncio.gather(
                client.call_tool("propose_route", {"host": "a.example", "credential": "TOKEN", "reason": "x"}),
                self.decide_when_there("denied"),
            )
            self.assertEqual(result.structured_content["status"], "denied")

            heard = []

            async def hear(progress: float, total: float | None, _message: str | None) -> None:
                heard.append((progress, total))

            result = await client.call_tool(
                "propose_image_change", {"packages": ["jq"], "reason": "x"}, progress_callback=hear
            )
            self.assertEqual(result.structured_content["status"], "pending")
            self.assertEqual(heard, [(0.0, 1.0)])
            proposal_id = result.structured_content["id"]

            again = await client.call_tool("propose_image_change", {"packages": ["jq"], "reason": "y"})
            self.assertEqual(again.structured_content["id"], proposal_id)
            status = await client.call_tool("proposal_status", {"id": proposal_id})
            self.assertEqual(status.structured_content["status"], "pending")
            config = await client.call_tool("current_config", {})
            self.assertEqual([p["id"] for p in config.structured_content["pending"]], [proposal_id])

            note = "pipelock is not running; the host is allowed when it is started again"
            self.decide(proposal_id, "approved", applied={"status": "recorded", "detail": note})
            status = await client.call_tool("proposal_status", {"id": proposal_id, "wait_seconds": 5})
            self.assertTrue(
                status.content[0].text.startswith(f"Approved, but not in effect yet: {note}. Reason: because.")
            )

            result, _ = await asyncio.gather(
                client.call_tool("propose_allow_host", {"host": "b.example", "reason": "x"}),
                self.decide_when_there("approved", applied={"status": "failed", "detail": "pipelock is not running"}),
            )
            self.assertIn(
                "Approved, but it could not be applied: pipelock is not running. Reason: because.",
                result.content[0].text,
            )

    async def test_a_decision_on_something_else_voids_the_proposal(self) -> None:
        async with self.client() as client:
            result, _ = await asyncio.gather(
                client.call_tool("propose_allow_host", {"host": "a.example", "reason": "x"}),
                self.decide_when_there("approved", proposal_sha256="0" * 64),
            )
        self.assertEqual(result.structured_content["status"], "changed")
        self.assertIn("Void", result.content[0].text)

    async def test_what_is_wrong_is_refused_in_words(self) -> None:
        async with self.client() as client:
            for tool, arguments, words in (
                ("propose_allow_host", {"host": "127.0.0.1", "reason": "x"}, "`host` is not accepted"),
                ("propose_allow_host", {"host": "a.example"}, "missing: `reason`"),
                ("propose_allow_host", {"host": "a.example", "reason": "x" * 3000}, "`reason` is over its limit"),
                ("propose_image_change", {"reason": "x"}, "give either"),
                ("proposal_status", {"id": "../../etc/passwd"}, "no proposal has this id"),
                ("proposal_status", {"id": "x", "wait_seconds": 1e9}, "over its limit"),
                ("approve", {"id": "x"}, "the tool does not exist"),
            ):
                result = await client.call_tool(tool, arguments)
                self.assertTrue(result.is_error, tool)
                self.assertIn(words, result.content[0].text)
        self.assertEqual(list((self.base / "queue" / "proposals").iterdir()), [])

    async def test_a_restart_keeps_proposals_and_clients(self) -> None:
        async with self.client() as client:
            first = await client.call_tool("propose_allow_host", {"host": "a.example", "reason": "x"})
            self.server.kill()
            self.server.wait()
            self.start()
            status = await client.call_tool("proposal_status", {"id": first.structured_content["id"]})
            self.assertEqual(status.structured_content["status"], "pending")
            again = await client.call_tool("propose_allow_host", {"host": "a.example", "reason": "x"})
            self.assertEqual(again.structured_content["id"], first.structured_content["id"])

    async def test_a_stop_does_not_wait_for_waiting_calls(self) -> None:
        self.stop()
        self.start(wait=50)
        async with self.client() as client:
            await client.list_tools()  # The client wants to know them once before it returns a call's result.
            call = asyncio.create_task(client.call_tool("propose_allow_host", {"host": "a.example", "reason": "x"}))
            while not list((self.base / "queue" / "proposals").glob("*.json")):
                await asyncio.sleep(0.02)
            before = time.monotonic()
            self.assertEqual(await asyncio.to_thread(self.stop), 0)
            self.assertLess(time.monotonic() - before, 1.5)
            self.assertEqual((await call).structured_content["status"], "pending")
        self.assertIn(b'"event":"stopped"', (self.base / "queue" / "audit.jsonl").read_bytes())

    def test_the_first_request_loads_the_sdk(self) -> None:
        library = "pydantic_core"
        maps = Path(f"/proc/{self.server.pid}/maps")
        self.assertEqual(self.http("GET", "/healthz")[0], 200)
        self.assertEqual(self.http("GET", "/mcp")[0], 405)
        time.sleep(1)
        self.assertNotIn(library, maps.read_text())
        self.assertEqual(self.post(_INITIALIZE)[0], 200)
        self.assertIn(library, maps.read_text())

    def test_a_client_of_an_older_protocol_is_served(self) -> None:
        status, body = self.post(_INITIALIZE)
        self.assertEqual(status, 200)
        self.assertIn(b'"protocolVersion":"2025-06-18"', body)
        status, body = self.post({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, MCP_Protocol_Version="2025-06-18")
        self.assertEqual(status, 200)
        self.assertIn(b"propose_allow_host", body)

    def test_only_the_names_it_is_known_by_are_served(self) -> None:
        self.assertEqual(self.post(_INITIALIZE, Host=f"supervise:{self.port}")[0], 200)
        self.assertEqual(self.post(_INITIALIZE, Host="evil.example")[0], 421)
        self.assertEqual(self.post(_INITIALIZE, Origin="http://evil.example")[0], 403)

    def test_malformed_and_oversized_requests_get_an_error_each(self) -> None:
        for body in (b"", b"{", b"[]", b"null", b"[" * 60_000, b'{"jsonrpc":"2.0","id":1}', b"\xff\xfe", b"1" * 10_000):
            for version in ("2025-06-18", "2026-07-28", "nonsense"):
                self.assertIn(self.post(body, MCP_Protocol_Version=version)[0], range(400, 500), body[:20])
        self.assertEqual(self.post(b" " * (MAX_BODY_BYTES + 1))[0], 413)
        self.assertEqual(self.http("GET", "/mcp")[0], 405)
        self.assertEqual(self.http("DELETE", "/mcp")[0], 405)
        self.assertEqual(self.http("GET", "/")[0], 404)
        self.assertEqual(self.http("GET", "/mcp/../decide")[0], 404)
        self.assertEqual(self.post(_INITIALIZE)[0], 200)

    def test_an_endless_body_is_cut_off(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
                "Accept: application/json, text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            sent = 0
            chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
            try:
                while sent < 8 * MAX_BODY_BYTES:
                    connection.sendall(chunk)
                    sent += 4096
                answer = connection.recv(100)
            except (BrokenPipeError, ConnectionResetError):
                answer = b"413"
        self.assertIn(b"413", answer)

    def test_a_flood_of_connections_is_bounded_and_passes(self) -> None:
        files = Path(f"/proc/{self.server.pid}/fd")
        memory = Path(f"/proc/{self.server.pid}/statm")
        flood = []
        self.post(_INITIALIZE)
        before = int(memory.read_text().split()[1])
        for _ in range(400):
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            self.addCleanup(connection.close)
            with contextlib.suppress(OSError):
                connection.sendall(b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 90_000)
            flood.append(connection)
        time.sleep(0.5)
        self.assertLess(len(list(files.iterdir())), MAX_CONNECTIONS + 30)
        self.assertLess((int(memory.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE"), 64 * 1024 * 1024)
        for connection in flood:
            connection.close()
        time.sleep(0.5)
        self.assertEqual(self.post(_INITIALIZE)[0], 200)

    def test_bad_settings_and_a_bad_log_end_it_with_one_line(self) -> None:
        self.stop()
        for env, words in (
            ({"SUPERVISE_BOTTLE_SLUG": ""}, "SUPERVISE_BOTTLE_SLUG must be"),
            ({"SUPERVISE_PORT": "99999"}, "SUPERVISE_PORT must be"),
            ({"SUPERVISE_WAIT_SECONDS": "60"}, "SUPERVISE_WAIT_SECONDS must be"),
            ({"SUPERVISE_QUEUE_DIR": str(self.base / "none")}, "failed to create"),
        ):
            defaults = {"SUPERVISE_BOTTLE_SLUG": "dev-x", "SUPERVISE_QUEUE_DIR": str(self.base / "queue")}
            ended = subprocess.run(
                [sys.executable, "-P", "-m", "supervise"],
                env={**os.environ, **defaults, **env},
                capture_output=True,
                text=True,
                timeout=10,
            )
            self.assertEqual(ended.returncode, 1)
            self.assertRegex(ended.stderr, rf"\Asupervise: .*{words}.*\n\Z")


if __name__ == "__main__":
    unittest.main()

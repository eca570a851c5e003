import asyncio
import json
import unittest
import unittest.mock

from egress import lean  # noqa: F401  (must come before anything of mitmproxy)

# isort: split

from egress import proposer as module
from egress.answers import body
from egress.proposer import MAX_PROPOSED, Proposer, Supervise
from egress.routes import RoutesError, parse


def table(rest: str):
    return parse(f"version: 1\nroutes: []\n{rest}\n")


class Allowed(unittest.TestCase):
    def test_a_host_is_refused_unless_an_entry_covers_it(self) -> None:
        listed = table("allow: [a.test, '*.b.test']")
        for host, rule in (
            ("a.test", None),
            ("b.test", None),
            ("x.y.b.test", None),
            ("x.a.test", "not-allowed"),
            ("notb.test", "not-allowed"),
            ("198.51.100.1", "not-allowed"),
        ):
            self.assertEqual(listed.refuses(host, 0, set()), rule, host)
        self.assertEqual(table("allow: []").refuses("a.test", 0, set()), "not-allowed")
        self.assertIsNone(table("").refuses("a.test", 0, set()), "the firewall decides")

    def test_every_name_passes_while_egress_learns(self) -> None:
        learning = table("learn: true\nallow: [b.test]")
        for host, rule in (("a.test", None), ("198.51.100.1", "not-allowed"), ("verify.bottle.invalid", "not-allowed")):
            self.assertEqual(learning.refuses(host, 0, set()), rule, host)

    def test_a_temporary_host_is_refused_from_its_end_on(self) -> None:
        ending = table("allow: []\ntemporary: [{host: a.test, proposal: p1, until: 100}]")
        self.assertEqual([ending.refuses("a.test", now, set()) for now in (99, 99.9, 100)], [None, None, "expired"])
        self.assertEqual(ending.refuses("x.a.test", 0, set()), "not-allowed")

    def test_a_host_for_one_request_is_refused_after_it(self) -> None:
        once = table("allow: []\ntemporary: [{host: a.test, proposal: p1, until: 100, once: true}]")
        spent: set[str] = set()
        self.assertEqual([once.refuses("a.test", 0, spent) for _ in range(3)], [None, "expired", "expired"])
        # A process that starts does not know whether the request was made.
        self.assertEqual(once.refuses("a.test", 0, once.single()), "expired")

    def test_what_is_no_list_of_hosts_is_refused(self) -> None:
        for rest in (
            "allow: {}",
            "allow: [A.test]",
            "allow: []\ntemporary: [{host: '*.a.test', proposal: p, until: 1}]",
            "allow: []\ntemporary: [{host: a.test, proposal: p, until: '1'}]",
            "allow: []\ntemporary: [{host: a.test, proposal: p, until: true}]",
            "allow: []\ntemporary: [{host: a.test, until: 1}]",
            "allow: []\ntemporary: [{host: a.test, proposal: p, until: 1}, {host: a.test, proposal: q, until: 2}]",
        ):
            with self.subTest(rest), self.assertRaises(RoutesError):
                table(rest)


def event(message: dict) -> bytes:
    """Returns a chunk of supervise's answer."""
    text = f"event: message\r\ndata: {json.dumps({'jsonrpc': '2.0', **message})}\r\n\r\n"
    return f"{len(text):x}\r\n{text}\r\n".encode()


QUEUED = event({"method": "notifications/progress", "params": {"progressToken": 1, "progress": 0}})


class Asking(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        for name, seconds in (("_PAUSE", 0.01), ("_ANSWERED_WITHIN", 0.2)):
            patch = unittest.mock.patch.object(module, name, seconds)
            patch.start()
            self.addCleanup(patch.stop)

    async def supervise(self, *answers: bytes | None):
        """Returns the address of a server that keeps what it is asked, and answers in turn. None is no answer."""
        asked: list[dict] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            asked.append(json.loads(await reader.readexactly(length))["params"])
            answer = answers[min(len(asked), len(answers)) - 1]
            if answer is None:
                await reader.read()
            else:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.addAsyncCleanup(server.wait_closed)
        self.addCleanup(server.close)
        return server.sockets[0].getsockname()[:2], asked

    async def settled(self, proposer: Proposer) -> None:
        await asyncio.gather(*proposer._tasks)

    async def test_a_refused_host_is_proposed_once(self) -> None:
        address, asked = await self.supervise(QUEUED)
        proposer = Proposer(Supervise(address, True))
        for _ in range(3):
            told = proposer.refuse("a.test", "not-allowed", "GET", "https")
        self.assertIn("it is being proposed to a person", told.message)
        await self.settled(proposer)
        told = proposer.refuse("a.test", "not-allowed", "GET", "https")
        reason = "egress refused a request of the agent: GET https://a.test/"
        call = {"name": "propose_allow_host", "arguments": {"host": "a.test", "reason": reason}}
        self.assertEqual(asked, [{**call, "_meta": {"progressToken": 1}}])
        self.assertEqual(json.loads(body(told))["error"]["ask"]["arguments"]["host"], "a.test")
        self.assertIn("it was proposed to a person", told.message)
        told = proposer.refuse("a.test", "expired", "GET", "https")
        self.assertIn("asks a person for it again", told.message)
        for host in ("198.51.100.1", "verify.bottle.invalid"):
            proposer.refuse(host, "not-allowed", "GET", "http")
        await self.settled(proposer)
        self.assertEqual(len(asked), 1, "neither an address nor what is no host can be proposed")

    async def test_a_method_that_is_none_is_not_told_to_the_person(self) -> None:
        address, asked = await self.supervise(QUEUED)
        proposer = Proposer(Supervise(address, True))
        for number, method in enumerate(("PLEASE-APPROVE-THIS", "get", "PROPFIND")):
            proposer.refuse(f"h{number}.test", "not-allowed", method, "https")
        await self.settled(proposer)
        told = [call["arguments"]["reason"].removeprefix("egress refused a request of the agent: ") for call in asked]
        self.assertEqual(told, ["https://h0.test/", "https://h1.test/", "PROPFIND https://h2.test/"])

    async def test_the_number_of_proposals_is_bounded(self) -> None:
        address, asked = await self.supervise(QUEUED)
        proposer = Proposer(Supervise(address, True))
        for number in range(MAX_PROPOSED + 5):
            told = proposer.refuse(f"h{number}.test", "not-allowed", "GET", "https")
        await self.settled(proposer)
        self.assertEqual(len(asked), MAX_PROPOSED)
        self.assertIn("asks a person for it", told.message)

    async def test_a_proposal_that_supervise_refuses_is_tried_again(self) -> None:
        for answer in (event({"id": 1, "result": {"isError": True}}), event({"id": 1, "error": {"code": -32602}})):
            address, asked = await self.supervise(answer)
            proposer = Proposer(Supervise(address, True))
            for _ in range(2):
                proposer.refuse("a.test", "expired", "GET", "https")
                await self.settled(proposer)
            self.assertEqual(len(asked), 2)

    async def test_a_proposal_without_an_answer_is_tried_again_and_not_called_proposed(self) -> None:
        for nothing in (None, b"", event({"method": "notifications/message"})):
            address, asked = await self.supervise(nothing, nothing, QUEUED)
            proposer = Proposer(Supervise(address, True))
            with unittest.mock.patch.object(module.audit, "emit") as emit:
                proposer.refuse("a.test", "not-allowed", "GET", "https")
                await self.settled(proposer)
            self.assertEqual((len(asked), emit.call_args.kwargs["outcome"]), (3, "done"))

            address, asked = await self.supervise(nothing)
            proposer = Proposer(Supervise(address, True))
            with unittest.mock.patch.object(module.audit, "emit") as emit:
                for tries in (3, 6):
                    told = proposer.refuse("a.test", "not-allowed", "GET", "https")
                    self.assertNotIn("was proposed", told.message)
                    await self.settled(proposer)
                    self.assertEqual((len(asked), emit.call_args.kwargs["outcome"]), (tries, "failed"))

    async def test_without_propose_the_agent_is_told_how_to_ask(self) -> None:
        told = Proposer(Supervise(("127.0.0.1", 1), False)).refuse("a.test", "expired", "GET", "https")
        self.assertEqual((told.rule, told.ask and told.ask["tool"]), ("expired", "propose_allow_host"))
        self.assertIn("the approval of a.test has ended", told.message)
        self.assertIsNone(Proposer(None).refuse("a.test", "not-allowed", "GET", "https").ask)

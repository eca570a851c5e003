"""The budget of requests and bytes."""

import contextlib
import io
import json
import tempfile
import time
import unittest
from pathlib import Path

from egress.budget import Budget
from egress.routes import Limits

from .support import Authority, Egress, Outer, ask, until

ROUTES = """
version: 1
routes:
  - {name: open, host: open.test}
limits: {requests: %d, bytes: %d}
"""


class Counting(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / ".usage"
        self.told = io.StringIO()
        self.enterContext(contextlib.redirect_stdout(self.told))

    def lines(self) -> list[tuple[str, str, int]]:
        lines = [json.loads(line) for line in self.told.getvalue().splitlines()]
        return [(line["event"], line["limit"], line["used"]) for line in lines]

    def test_each_limit_is_announced_once_before_and_once_when_it_is_reached(self) -> None:
        budget = Budget(self.path, lambda: Limits(requests=20))
        for number in range(20):
            self.assertIsNone(budget.refusal(), number)
            budget.request(100)
        refusal = budget.refusal()
        assert refusal
        self.assertEqual((refusal.status, refusal.rule), (403, "limit"))
        self.assertIn("20 requests", refusal.message)
        told = [("limit-near", "requests", 18), ("limit-reached", "requests", 20)]
        self.assertEqual(self.lines(), told)
        Budget(self.path, lambda: Limits(requests=20)).transfer(1)
        self.assertEqual(self.lines(), told)

    def test_bytes_may_not_pass_the_limit(self) -> None:
        budget = Budget(self.path, lambda: Limits(bytes=1000))
        budget.request(800)
        self.assertTrue(budget.transfer(200))
        self.assertFalse(budget.transfer(1))
        self.assertIsNotNone(budget.refusal())
        self.assertEqual(self.lines(), [("limit-near", "bytes", 900), ("limit-reached", "bytes", 1000)])

    def test_a_limit_below_ten_is_near_before_the_last_one(self) -> None:
        for limit, told in ((1, []), (2, [("limit-near", "requests", 1)]), (5, [("limit-near", "requests", 4)])):
            self.told.seek(0)
            self.told.truncate()
            self.path.unlink(missing_ok=True)
            budget = Budget(self.path, lambda limit=limit: Limits(requests=limit))
            for _ in range(limit):
                budget.request(1)
            self.assertEqual(self.lines(), [*told, ("limit-reached", "requests", limit)])

    def test_a_restart_does_not_begin_again_and_a_higher_limit_helps(self) -> None:
        limits = Limits(requests=1)
        Budget(self.path, lambda: limits).request(10)
        budget = Budget(self.path, lambda: limits)
        self.assertIsNotNone(budget.refusal())
        kept = json.loads(self.path.read_text())
        self.assertEqual((kept["requests"], kept["bytes"]), (1, 10))
        limits = Limits(requests=2)
        self.assertIsNone(budget.refusal())

    def test_each_request_is_kept_at_once_and_a_restart_is_no_idle_time(self) -> None:
        budget = Budget(self.path, lambda: Limits(requests=10))
        for _ in range(3):
            budget.request(5)
        kept = json.loads(self.path.read_text())
        self.assertEqual((kept["requests"], kept["bytes"]), (3, 15))
        self.path.write_text(json.dumps(kept | {"active": 0.0}), "ascii")
        began = time.time()
        Budget(self.path, lambda: Limits(requests=10))
        self.assertGreaterEqual(json.loads(self.path.read_text())["active"], began)


class Refusing(unittest.TestCase):
    def egress(self, requests: int, size: int) -> Egress:
        outer = Outer(Authority("outer"))
        self.addCleanup(outer.close)
        egress = Egress(outer.port, outer.authority, ROUTES % (requests, size), {}, outer.origins).start()
        self.addCleanup(egress.close)
        return egress

    def ask(self, egress: Egress) -> tuple[int, bytes]:
        with egress.tunnel("open.test:443") as connection:
            answer = ask(connection, "GET /a HTTP/1.1\r\nHost: open.test\r\n\r\n")
            return answer.status, answer.body()

    def test_a_request_beyond_the_limit_is_refused_with_the_reason(self) -> None:
        egress = self.egress(2, 1 << 20)
        answers = [self.ask(egress) for _ in range(4)]
        self.assertEqual([status for status, _ in answers], [200, 200, 403, 403])
        error = json.loads(answers[3][1])["error"]
        self.assertEqual(error["rule"], "limit")
        self.assertIn("the 2 requests that it may", error["message"])
        events = ["limit-near", "limit-reached"]
        until(lambda: [line["event"] for line in egress.lines() if line["event"].startswith("limit")] == events)

    def test_an_exchange_beyond_the_bytes_is_cut(self) -> None:
        egress = self.egress(100, 16)
        with self.assertRaises((OSError, EOFError, ValueError)):
            status, body = self.ask(egress)
            # The head may have passed, but no byte of the body.
            self.assertEqual((status, json.loads(body)), (200, None))
        until(lambda: any(line.get("reason") == "limit" for line in egress.requests()))
        status, body = self.ask(egress)
        self.assertEqual((status, json.loads(body)["error"]["rule"]), (403, "limit"))

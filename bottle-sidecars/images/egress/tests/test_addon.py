import unittest
from pathlib import Path

from egress import lean  # noqa: F401  (must come before anything of mitmproxy)

# isort: split

from mitmproxy.test import tflow

from egress.addon import Gate
from egress.budget import Budget
from egress.proposer import Proposer
from egress.routes import Limits
from sidecar.credentials import Credentials


def broken():
    raise RuntimeError("a bug")


def gate() -> Gate:
    return Gate(broken, Credentials(), Budget(Path("/nowhere/usage"), Limits), Proposer(None), set())


class FailingClosed(unittest.TestCase):
    def test_a_request_that_cannot_be_judged_is_refused(self) -> None:
        flow = tflow.tflow()
        flow.request.authority = "address:22"
        with self.assertRaises(RuntimeError):
            gate().requestheaders(flow)
        self.assertEqual(flow.response.status_code, 500)
        self.assertFalse(flow.request.stream, "nothing is sent on as it comes")

    def test_so_is_a_connect(self) -> None:
        flow = tflow.tflow()
        flow.request.data.authority = None
        with self.assertRaises(AttributeError):
            gate().http_connect(flow)
        self.assertEqual(flow.response.status_code, 500)

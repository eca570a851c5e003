import unittest
import unittest.mock

from egress import lean  # noqa: F401  (must come before anything of mitmproxy)

# isort: split

from egress import endings
from egress.routes import Table, parse


def table(*temporary: str) -> Table:
    return parse(f"version: 1\nroutes: []\nallow: []\ntemporary: [{', '.join(temporary)}]\n")


class EndingsTest(unittest.TestCase):
    def test_each_end_is_told_once(self) -> None:
        timed, once = "{host: a.test, proposal: p1, until: 100}", "{host: b.test, proposal: p2, until: 900, once: true}"
        removed, lasting = "{host: c.test, proposal: p3, until: 101}", "{host: d.test, proposal: p4, until: 900}"
        current, spent = [table(timed, once, removed, lasting)], set[str]()
        ends = endings.Endings(lambda: current[0], spent)
        with unittest.mock.patch.object(endings.audit, "emit") as emit:
            ends.look(99.9)
            emit.assert_not_called()
            ends.look(100)
            ended = {"outcome": "done", "host": "a.test", "id": "p1", "until": 100, "once": False}
            emit.assert_called_once_with("approval-ended", **ended)
            # The host removes what has ended, and gives one host to the bottle for good.
            current[0] = table(once)
            self.assertIsNone(current[0].refuses("b.test", 101, spent))
            ends.look(101)
            ends.look(2000)
        told = [(call.kwargs["host"], call.kwargs["id"], call.kwargs["once"]) for call in emit.call_args_list]
        self.assertEqual(sorted(told), [("a.test", "p1", False), ("b.test", "p2", True), ("c.test", "p3", False)])

    def test_an_approval_that_is_used_at_once_is_told(self) -> None:
        used, spent = table("{host: a.test, proposal: p1, until: 100, once: true}"), {"p1"}
        with unittest.mock.patch.object(endings.audit, "emit") as emit:
            ends = endings.Endings(lambda: used, spent)
            ends.look(1)
            ends.look(2)
        emit.assert_called_once()

"""The queue: what is taken, what is refused, which decisions are believed, what survives a kill."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from supervise import proposals
from supervise.audit import digest, parse_chain
from supervise.proposals import ID_PATTERN, MAX_PENDING, MAX_PER_MINUTE, Queue, QueueError, Refused

_CHILD = """
import sys, itertools
from pathlib import Path
from supervise import proposals
from supervise.proposals import Queue
# A fast machine comes to the limit of one bottle before the last kill.
proposals.MAX_EVER = sys.maxsize
base = Path(sys.argv[1])
clock = itertools.count(int(sys.argv[2]), 10)
queue = Queue(base / "queue", base / "decisions", "dev-x", lambda: next(clock))
for number in itertools.count():
    proposal, _ = queue.propose("allow_host", {"host": f"{sys.argv[2]}-{number}.example"}, "why " * 400)
    print(proposal.id, flush=True)
    sys.stdin.readline()
"""


class QueueTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.base = Path(directory.name)
        (self.base / "queue").mkdir()
        (self.base / "decisions").mkdir()
        self.time = 1_700_000_000.0
        self.queue: Queue | None = None
        self.open()
        self.addCleanup(lambda: self.queue and self.queue.close())

    def open(self) -> Queue:
        if self.queue:
            self.queue.close()
            self.queue = None
        self.queue = Queue(self.base / "queue", self.base / "decisions", "dev-x", lambda: self.time)
        return self.queue

    def propose(self, host: str = "a.example") -> proposals.Proposal:
        return self.queue.propose("allow_host", {"host": host}, "why")[0]

    def file(self, proposal: proposals.Proposal) -> Path:
        return self.base / "queue" / "proposals" / f"{proposal.id}.json"

    def decide(self, proposal: proposals.Proposal, decision: str = "approved", **changes: object) -> None:
        content = {
            "version": 1,
            "id": proposal.id,
            "proposal_sha256": proposal.sha256,
            "decision": decision,
            "reason": "r",
            "decided_at": "2026-01-02T03:04:05.678Z",
            "applied": {"status": "live", "detail": "d"},
            **changes,
        }
        path = self.base / "decisions" / f"{proposal.id}.json"
        path.with_suffix(".tmp").write_text(json.dumps(content))
        path.with_suffix(".tmp").rename(path)

    def events(self) -> list[str]:
        return [e.event for e in parse_chain((self.base / "queue" / "audit.jsonl").read_bytes())]

    def test_a_proposal_is_a_file_whose_hash_is_in_the_log(self) -> None:
        proposal = self.propose()
        self.assertRegex(proposal.id, f"^{ID_PATTERN}$")
        content = self.file(proposal).read_bytes()
        self.assertEqual(digest(content), proposal.sha256)
        self.assertEqual(
            json.loads(content),
            {
                "version": 1,
                "id": proposal.id,
                "kind": "allow_host",
                "created": "2023-11-14T22:13:20.000Z",
                "slug": "dev-x",
                "agent_reason": "why",
                "change": {"host": "a.example"},
            },
        )
        entry = self.queue._audit.entries[-1]
        self.assertEqual((entry.event, entry.data["sha256"]), ("proposed", proposal.sha256))
        self.assertEqual(os.listdir(self.file(proposal).parent), [f"{proposal.id}.json"])

    def test_ids_sort_by_age_even_when_the_clock_steps_back(self) -> None:
        ids = []
        for step in (0, 0, -5, 0.001):
            self.time += step
            ids.append(self.propose(f"{len(ids)}.a.example").id)
        self.assertEqual(ids, sorted(ids))

    def test_a_duplicate_of_a_pending_one_is_the_same_proposal(self) -> None:
        first, again = self.propose(), self.propose()
        self.assertEqual(first, again)
        self.decide(first, "denied")
        self.assertNotEqual(self.propose().id, first.id)

    def test_too_many_in_a_minute_are_refused_also_after_a_restart(self) -> None:
        for number in range(MAX_PER_MINUTE):
            self.propose(f"{number}.a.example")
        self.open()
        with self.assertRaises(Refused) as caught:
            self.propose("more.example")
        self.assertEqual(caught.exception.code, "rate")
        self.time += 61
        self.propose("more.example")

    def test_too_many_pending_are_refused_until_one_is_decided(self) -> None:
        for number in range(MAX_PENDING):
            self.time += 10
            last = self.propose(f"{number}.a.example")
        self.time += 10
        with self.assertRaises(Refused) as caught:
            self.propose("more.example")
        self.assertEqual(caught.exception.code, "full")
        self.decide(last, "denied")
        self.propose("more.example")

    def test_a_flood_of_refusals_is_counted_and_not_logged(self) -> None:
        before = len(self.events())
        for _ in range(1000):
            self.queue.note_refusal("propose_route", "invalid")
        self.assertEqual(len(self.events()) - before, 10)
        self.time += 61
        self.queue.note_refusal("propose_route", "invalid")
        self.assertEqual(self.queue._audit.entries[-1].data["unlogged_before"], 990)

    def test_a_full_disk_refuses_and_leaves_the_log_sound(self) -> None:
        original = os.pwrite
        self.addCleanup(setattr, os, "pwrite", original)
        os.pwrite = lambda fd, data, offset: original(fd, data[:20], offset)
        with self.assertRaises(Refused) as caught:
            self.propose()
        self.assertEqual(caught.exception.code, "disk")
        os.pwrite = original
        self.propose()
        self.assertEqual(self.events(), ["started", "proposed"])

    def test_decisions_are_believed_and_remembered(self) -> None:
        approved, denied = self.propose("a.example"), self.propose("b.example")
        self.assertEqual(self.queue.outcome(approved.id).state, "pending")
        self.decide(approved)
        self.decide(denied, "denied", applied=None)
        self.assertEqual(self.queue.outcome(approved.id).applied, {"status": "live", "detail": "d"})
        self.assertEqual(self.queue.outcome(denied.id).state, "denied")
        self.assertEqual(self.events()[-2:], ["settled", "settled"])
        self.open()
        self.assertEqual(self.queue.outcome(approved.id).state, "approved")
        self.assertEqual(self.queue.outcome(denied.id).reason, "r")
        self.assertEqual(self.events().count("settled"), 2)

    def test_the_lines_say_what_was_proposed_and_decided_though_nobody_asks(self) -> None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            allowed = self.propose("a.example")
            patch = {"dockerfile_patch": "RUN x" * 3000}
            patched = self.queue.propose("image_change", patch, "why " * 500)[0]
            by, ends = {"decider": "automatic", "process": 42}, {"until": 1700000060, "once": False}
            self.decide(
                allowed, applied={"status": "live", "detail": "for 60 s", "ends": ends}, reason="because", by=by
            )
            self.decide(patched, "denied")
            self.queue.close()
            self.queue = None
        lines = [json.loads(line) for line in output.getvalue().splitlines()]
        proposed = [line for line in lines if line["event"] == "proposed"]
        self.assertEqual([line["kind"] for line in proposed], ["allow_host", "image_change"])
        self.assertEqual((proposed[0]["change"], proposed[0]["agent_reason"]), ({"host": "a.example"}, "why"))
        self.assertNotIn("change", proposed[1], "it is long")
        settled = {line["id"]: line for line in lines if line["event"] == "settled"}
        self.assertEqual(set(settled), {allowed.id, patched.id})
        line = settled[allowed.id]
        self.assertEqual((line["change"], line["decision_reason"]), ({"host": "a.example"}, "because"))
        self.assertEqual((line["kind"], line["applied"]), ("allow_host", {"status": "live", "detail": "for 60 s"}))
        self.assertEqual((line["by"], line["ends"]), (by, ends))
        self.assertFalse({"by", "ends"} & settled[patched.id].keys(), "the decision has neither")
        self.assertTrue(all(len(line) < 8192 for line in output.getvalue().splitlines()))

    def test_a_decision_on_other_contents_counts_for_nothing(self) -> None:
        cases = {
            "other hash": {"proposal_sha256": "0" * 64},
            "other id": {"id": "1700000000000-aaaaaaaaaaaaaaaa"},
            "other version": {"version": 2},
            "other word": {"decision": "yes"},
        }
        for number, (name, changes) in enumerate(cases.items()):
            with self.subTest(name):
                proposal = self.propose(f"{number}.a.example")
                self.decide(proposal, **changes)
                self.assertEqual(self.queue.outcome(proposal.id).state, "changed")

    def test_a_decision_that_is_no_file_of_modest_size_is_none(self) -> None:
        proposal = self.propose()
        path = self.base / "decisions" / f"{proposal.id}.json"
        path.symlink_to(self.file(proposal))
        self.assertEqual(self.queue.outcome(proposal.id).state, "pending")
        path.unlink()
        os.mkfifo(path)
        self.assertEqual(self.queue.outcome(proposal.id).state, "pending")
        path.unlink()
        path.write_bytes(b"x" * (proposals.MAX_FILE_BYTES + 1))
        self.assertEqual(self.queue.outcome(proposal.id).state, "pending")

    def test_a_decision_that_is_not_json_voids_the_proposal(self) -> None:
        for number, content in enumerate(("", "{", "[]", "1", "[" * 50_000)):
            proposal = self.propose(f"{number}.a.example")
            (self.base / "decisions" / f"{proposal.id}.json").write_text(content)
            self.assertEqual(self.queue.outcome(proposal.id).state, "changed")

    def test_a_proposal_file_altered_after_the_fact_voids_the_decision(self) -> None:
        for restart in (False, True):
            with self.subTest(restart=restart):
                proposal = self.propose(f"{restart}.a.example".lower())
                self.file(proposal).write_bytes(self.file(proposal).read_bytes().replace(b"why", b"bad"))
                if restart:
                    self.open()
                self.decide(proposal)
                self.assertEqual(self.queue.outcome(proposal.id).state, "changed")

    def test_a_file_that_is_not_in_the_log_is_no_proposal(self) -> None:
        proposal = self.propose()
        planted = "1700000000999-aaaaaaaaaaaaaaaa"
        self.file(proposal).with_name(f"{planted}.json").write_bytes(
            self.file(proposal).read_bytes().replace(proposal.id.encode(), planted.encode())
        )
        self.open()
        self.assertIsNone(self.queue.outcome(planted))

    def test_a_log_that_was_tampered_with_stops_the_server(self) -> None:
        self.propose()
        self.queue.close()
        self.queue = None
        path = self.base / "queue" / "audit.jsonl"
        path.write_bytes(path.read_bytes().replace(b"allow_host", b"allow_hose"))
        with self.assertRaisesRegex(QueueError, "line 2"):
            self.open()

    def test_a_kill_between_log_and_file_is_told(self) -> None:
        proposal = self.propose()
        self.file(proposal).rename(self.file(proposal).with_name(f".{proposal.id}"))
        self.open()
        self.assertIsNone(self.queue.outcome(proposal.id))
        self.assertEqual(self.events().count("lost"), 1)
        self.assertEqual(os.listdir(self.file(proposal).parent), [])
        self.open()
        self.assertEqual(self.events().count("lost"), 1)

    def test_killed_at_any_moment_no_decided_proposal_is_lost(self) -> None:
        self.queue.close()
        self.queue = None
        rng = random.Random(1)
        answered: list[str] = []
        for round_number in range(25):
            self.time = 1_700_000_000.0 + 100_000 * round_number
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(self.base), str(int(self.time))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            # The audit line of its start. A busy machine takes any time until then.
            while '"started"' not in (line := child.stdout.readline()):
                self.assertTrue(line, "the child ended")
            # The kill comes at a moment of its own choosing, from another process, in the middle of whatever is done.
            wait = 0.01 + rng.random() * 0.1
            killer = subprocess.Popen(["/bin/sh", "-c", f"sleep {wait:.3f}; kill -9 {child.pid}"])
            while line := child.stdout.readline():
                if not line.endswith("\n"):
                    break
                if line.startswith("{"):
                    continue  # an audit line
                proposal_id = line.strip()
                content = (self.base / "queue" / "proposals" / f"{proposal_id}.json").read_bytes()
                self.decide(proposals.Proposal(proposal_id, "allow_host", {}, digest(content)))
                answered.append(proposal_id)
                try:
                    child.stdin.write("\n")
                    child.stdin.flush()
                except BrokenPipeError:
                    break
            self.assertEqual(child.wait(), -signal.SIGKILL)
            killer.wait()
            child.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        self.assertGreater(len(answered), 25)
        self.time += 100_000
        self.open()
        self.assertEqual({self.queue.outcome(i).state for i in answered}, {"approved"})


if __name__ == "__main__":
    unittest.main()

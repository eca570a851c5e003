"""The chain: what it accepts, what it detects, and what it does with a torn line."""

import contextlib
import json
import tempfile
import unittest
from pathlib import Path

from supervise.audit import MAX_TORN_BYTES, AuditError, AuditLog, canonical, digest, parse_chain


class AuditTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "audit.jsonl"

    def open(self) -> AuditLog:
        log = AuditLog(self.path, lambda: 1_700_000_000.1234)
        self.addCleanup(self._close, log)
        return log

    def _close(self, log: AuditLog) -> None:
        with contextlib.suppress(OSError):
            log.close()

    def write(self, lines: int) -> list[bytes]:
        log = self.open()
        for number in range(1, lines + 1):
            log.append("event", {"n": number, "text": "ü\n"})
        log.close()
        return self.path.read_bytes().splitlines(keepends=True)

    def test_a_line_is_spelled_as_the_format_says(self) -> None:
        line = self.write(1)[0]
        body = (
            '{"data":{"n":1,"text":"ü\\n"},"event":"event",%s"prev":"'
            + "0" * 64
            + '","seq":1,"ts":"2023-11-14T22:13:20.123Z"}'
        )
        expected = digest((body % "").encode())
        self.assertEqual(line.decode(), body % f'"hash":"{expected}",' + "\n")

    def test_a_log_is_continued(self) -> None:
        self.write(2)
        log = self.open()
        self.assertEqual(log.head[0], 2)
        log.append("event", {})
        self.assertEqual(len(parse_chain(self.path.read_bytes())), 3)

    def test_tampering_names_the_line_and_stops_the_log(self) -> None:
        def swap(lines: list[bytes]) -> None:
            lines[1], lines[2] = lines[2], lines[1]

        def edit(lines: list[bytes]) -> None:
            lines[1] = lines[1].replace(b'"n":2', b'"n":9')

        def true_for_one(lines: list[bytes]) -> None:
            fields = json.loads(lines[0])
            del fields["hash"]
            fields["seq"] = True
            lines[:] = [canonical({**fields, "hash": digest(canonical(fields))}) + b"\n"]

        cases = [
            ("edited", edit, 2),
            ("swapped", swap, 2),
            ("removed", lambda lines: lines.pop(1), 2),
            ("repeated", lambda lines: lines.insert(1, lines[0]), 2),
            ("spaced", lambda lines: lines.insert(0, lines.pop(0).replace(b":", b": ", 1)), 1),
            ("blank", lambda lines: lines.insert(3, b"\n"), 4),
            ("surrogate", lambda lines: lines.insert(1, b'{"a":"\\ud800"}\n'), 2),
            ("nested", lambda lines: lines.insert(1, b"[" * 100_000 + b"\n"), 2),
            ("not a number", true_for_one, 1),
        ]
        for name, tamper, line in cases:
            with self.subTest(name):
                self.path.unlink(missing_ok=True)
                lines = self.write(4)
                tamper(lines)
                self.path.write_bytes(b"".join(lines))
                with self.assertRaisesRegex(AuditError, f"line {line} "):
                    self.open()

    def test_a_torn_line_is_recorded_wherever_it_was_cut(self) -> None:
        lines = self.write(3)
        whole = b"".join(lines[:2])
        for cut in (1, 30, len(lines[2]) - 1):
            with self.subTest(cut=cut):
                self.path.write_bytes(whole + lines[2][:cut])
                self.open().close()
                entries = parse_chain(self.path.read_bytes())
                self.assertEqual([e.event for e in entries], ["event", "event", "repaired"])
                self.assertEqual(bytes.fromhex(entries[2].data["torn"]), lines[2][:cut])

    def test_a_torn_line_too_long_to_be_ours_stops_the_log(self) -> None:
        self.path.write_bytes(b"x" * (MAX_TORN_BYTES + 1))
        with self.assertRaisesRegex(AuditError, "longer"):
            self.open()

    def test_a_second_writer_is_kept_out(self) -> None:
        self.open()
        with self.assertRaisesRegex(AuditError, "in use"):
            self.open()

    def test_a_link_is_not_a_log(self) -> None:
        target = self.path.with_name("target")
        target.touch()
        self.path.symlink_to(target)
        with self.assertRaisesRegex(AuditError, "failed to open"):
            self.open()

    def test_an_event_that_is_too_large_leaves_nothing(self) -> None:
        log = self.open()
        with self.assertRaises(AuditError):
            log.append("event", {"text": "x" * 5000})
        log.append("event", {})
        self.assertEqual(len(parse_chain(self.path.read_bytes())), 1)


if __name__ == "__main__":
    unittest.main()

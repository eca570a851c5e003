"""New content of a push, and its scan with gitleaks.

This runs inside the pre-receive hook, where the pushed objects are in quarantine and the mirror's refs are those of the
upstream. An object is new if a pushed tip reaches it and no ref of the mirror does.
"""

import bisect
import dataclasses
import functools
import json
import operator
import os
import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from gitgate import RUN, GateError, local_git
from gitgate_trees import MAX_OBJECTS, READ_SECONDS, Change, Commit, Deadline, TooMuch, changes

# Time limit in seconds for all batches together. gitleaks reads about 1.5 MB of source text per second and core.
SCAN_SECONDS = 900
# Size of a batch of objects on the tmpfs, which need not have room for the whole push.
BATCH_BYTES = 32 << 20
# Bytes of a document of many commits or tags.
JOINED_BYTES = 1 << 20
# The scan ends after so many findings. Each one refuses the push, and the agent sees five.
MAX_FINDINGS = 100
# Bytes of gitleaks' report on one batch, at 700 bytes a finding. A batch of nothing but secrets has a million of them.
MAX_REPORT_BYTES = 32 << 20
# Bytes of memory that gitleaks may take, in the notation of prlimit. A batch of text takes a quarter of it.
GITLEAKS_MEMORY = "1073741824"
# Paths of one blob that are compared with the upstream's files before a finding in it counts as new.
MAX_INHERITED_PATHS = 32
# gitleaks exits with 1 on its own failures too.
FOUND = 77
# Lock files contain hashes next to words such as "token", so the entropy rule does not apply. Other rules do.
LOCK_FILES = frozenset(
    "Cargo.lock Gemfile.lock Pipfile.lock Podfile.lock composer.lock go.mod go.sum npm-shrinkwrap.json"
    " package-lock.json pnpm-lock.yaml poetry.lock uv.lock yarn.lock".split()
)
# Added to every batch. A scan that does not report it did not work. It is in two parts, so that scanners do not find it
# in this file.
CANARY = b"canary = 'AKIA" + b"J3QWZ7L5XK2MTV4B'\n"


# Index of the document, line, rule and secret.
Hit = tuple[int, int, str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """Text for the scanner. `kind` is `names` or a type of object, `parts` are the ids by their first line."""

    kind: str
    parts: list[tuple[int, str]]
    text: bytes

    def part(self, line: int) -> tuple[str, int]:
        """Return the object at a line, counted from 1, and the line in the object."""
        first, name = self.parts[bisect.bisect_right(self.parts, max(0, line - 1), key=operator.itemgetter(0)) - 1]
        return name, line - first


class Joined:
    """Document of many objects of one kind, under construction."""

    def __init__(self, kind: str = "") -> None:
        self.kind = kind
        self.text = bytearray()
        self._parts: list[tuple[int, str]] = []
        self._lines = 0

    def add(self, name: str, text: bytes) -> None:
        self._parts.append((self._lines, name))
        self.text += text + b"\n"
        self._lines += text.count(b"\n") + 1

    def document(self) -> Iterator[Document]:
        if self._parts:
            yield Document(self.kind, self._parts, bytes(self.text))


class ScanFailure(GateError):
    """The scan was not completed, so the push is refused."""


@dataclasses.dataclass
class Finding:
    """Text that looks like a secret. `secret` is for comparison and masking and must not be printed."""

    rule: str
    commit: str
    place: str
    line: int
    secret: str = dataclasses.field(repr=False)


class NewContent:
    """Objects, commits and changed paths that are new in a push. Raises TooMuch if it exceeds a limit."""

    def __init__(self, tips: list[str], max_bytes: int) -> None:
        deadline = Deadline(READ_SECONDS, "reading the new objects")
        self.tips = tips
        # Deletions have no tip. rev-list fails without any input.
        new = ["--stdin", "--not", "--all"]
        listed = deadline.git(
            "rev-list", "--objects", "--no-object-names", *new, feed=tips, most=MAX_OBJECTS, unit="new objects"
        )
        form = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
        sized = deadline.git("cat-file", form, feed=listed, most=MAX_OBJECTS, unit="new objects")
        rows = [row.split(" ") for row in sized]
        if any(len(row) != 3 for row in rows):
            raise GateError("the push lacks objects that it refers to")
        self.kinds = {name: kind for name, kind, _ in rows}
        self.bytes = sum(int(size) for _, _, size in rows)
        if self.bytes > max_bytes:
            raise TooMuch(f"it has {self.bytes:,} bytes, unpacked; the limit is {max_bytes:,}")
        options = ["--no-commit-header", "--format=%H %T %P", *new]
        described = deadline.git("rev-list", *options, feed=tips, most=MAX_OBJECTS, unit="new commits")
        # Oldest first, so that a finding names the commit that introduced it.
        commits = [Commit(name, tree, parents) for name, tree, *parents in map(str.split, reversed(described))]
        self.commits = [commit.name for commit in commits]
        self.changes = list(changes(commits, deadline))

    def known(self) -> list[str]:
        """Return the upstream's commits that are parents of new ones."""
        deadline = Deadline(READ_SECONDS, "reading the parents of the new commits")
        options = ["--boundary", "--stdin", "--not", "--all"]
        listed = deadline.git("rev-list", *options, feed=self.tips, most=2 * MAX_OBJECTS, unit="commits")
        return [line[1:] for line in listed if line.startswith("-")]


def scan(content: NewContent, refs: list[str]) -> list[Finding]:
    """Return the findings in `content` and in the names in `refs`. Raises an error if the scan is incomplete."""
    deadline = Deadline(SCAN_SECONDS, "the secret scan")
    names = [(change.commit, change.path) for change in content.changes if change.added]
    names += [("", ref) for ref in refs]
    listing = "\n".join(name.replace("\n", " ") for _, name in names)
    batch = [Document("names", [(0, "")], listing.encode(errors="surrogateescape"))]
    findings: list[Finding] = []
    size = 0
    for document in _contents(content, deadline):
        batch.append(document)
        # A file takes at least one page.
        size += len(document.text) + 4096
        if size > BATCH_BYTES:
            findings += _judged(content, names, batch, _gitleaks(batch, deadline), deadline)
            if len(findings) >= MAX_FINDINGS:
                return findings
            batch, size = [], 0
    if batch:
        findings += _judged(content, names, batch, _gitleaks(batch, deadline), deadline)
    return findings


def _contents(content: NewContent, deadline: Deadline) -> Iterator[Document]:
    """Yield one document for each blob, and one for many commits or tags, because a file costs more than a commit."""
    wanted = [name for kind in ("blob", "commit", "tag") for name, found in content.kinds.items() if found == kind]
    # The ids are in a file, because writing to a pipe while reading from another could block both sides.
    with open(os.memfd_create("ids"), "w+b") as ids:
        ids.write("".join(f"{name}\n" for name in wanted).encode())
        ids.seek(0)
        objects = subprocess.Popen(["git", "cat-file", "--batch"], stdin=ids, stdout=subprocess.PIPE)
    with objects, deadline.kills(objects):
        assert objects.stdout is not None
        joined = Joined()
        for name in wanted:
            header = objects.stdout.readline().decode().split()
            body = objects.stdout.read(int(header[2]) + 1)[:-1] if len(header) == 3 else b""
            deadline.check()
            if len(header) != 3 or header[0] != name or len(body) != int(header[2]):
                raise ScanFailure("the pushed objects could not be read")
            if header[1] == "blob":
                yield Document("blob", [(0, name)], _prepared(body))
                continue
            if joined.kind != header[1] or len(joined.text) > JOINED_BYTES:
                yield from joined.document()
                joined = Joined(header[1])
            joined.add(name, _prepared(body))
        yield from joined.document()


def _prepared(body: bytes) -> bytes:
    if b"\0" in body:
        body = _printable(body)
    # A comment in a pushed file must not disable the scan.
    return body.replace(b"gitleaks:allow", b"gitleaks-allow")


def _printable(body: bytes) -> bytes:
    """Return the runs of ASCII in a binary, UTF-16 included. Of 50 MB of compressed data little remains."""
    kept = bytearray()
    # One run at a time: a list of 10 million short runs takes 600 MB.
    for run in re.finditer(rb"[\t\n\r\x20-\x7e]{8,}", body):
        kept += run[0] + b"\n"
    for run in re.finditer(rb"(?:[\t\n\r\x20-\x7e]\0){8,}", body):
        kept += run[0].replace(b"\0", b"") + b"\n"
    return bytes(kept)


def _gitleaks(documents: list[Document], deadline: Deadline) -> list[Hit]:
    """Run gitleaks over one batch; yield (index of the document, line, rule, secret)."""
    batch = RUN / f"scan-{os.getpid()}"
    batch.mkdir(mode=0o700)
    try:
        # The names are numbers, because gitleaks skips paths of its own list, such as `vendor` or `*.bin`.
        for number, document in enumerate([CANARY, *(document.text for document in documents)]):
            (batch / str(number)).write_bytes(_unsniffable(document))
        report = _run_gitleaks(batch, deadline)
    finally:
        for file in batch.iterdir():
            file.unlink()
        batch.rmdir()
    hits = [(int(os.path.basename(hit["File"])), hit["StartLine"] - 1, hit["RuleID"], hit["Secret"]) for hit in report]
    if not any(number == 0 for number, *_ in hits):
        raise ScanFailure("the secret scanner ran but did not find the canary")
    return [(number - 1, line, rule, secret) for number, line, rule, secret in hits if number]


def _run_gitleaks(batch: pathlib.Path, deadline: Deadline) -> list[dict[str, Any]]:
    # The limits of the hook are those of git. gitleaks uses several cores.
    argv = ["prlimit", "--cpu=unlimited:", f"--data={GITLEAKS_MEMORY}:", "gitleaks"]
    argv += ["detect", "--no-git", "--no-banner", "--log-level=fatal", f"--source={batch}"]
    argv += [f"--exit-code={FOUND}", "--report-format=json", "--report-path=/dev/stdout"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(RUN)}
    try:
        scanner = subprocess.Popen(
            argv, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with scanner, deadline.kills(scanner):
            assert scanner.stdout is not None
            output = scanner.stdout.read(MAX_REPORT_BYTES + 1)
            if len(output) > MAX_REPORT_BYTES:
                raise TooMuch(f"the report on what looks like secrets has more than {MAX_REPORT_BYTES:,} bytes")
        deadline.check()
        if scanner.returncode not in (0, FOUND):
            raise ScanFailure(f"the secret scanner failed (status {scanner.returncode})")
        report: list[dict[str, Any]] = json.loads(output)
        return report
    except (OSError, ValueError) as failure:
        raise ScanFailure(f"the secret scanner could not be used ({type(failure).__name__})") from None


def _unsniffable(document: bytes) -> bytes:
    """Return the document after one line of padding, so that gitleaks scans it in any case.

    gitleaks skips files that start like an archive, a PDF, an executable and so on. All such signatures are in the
    first 600 bytes, except that of an ISO image at 32769.
    """
    padding = b" " * 600
    while (padding[:-1] + b"\n" + document[:33000])[32769:32774] == b"CD001":
        padding += b" "
    return padding[:-1] + b"\n" + document


def _judged(
    content: NewContent, names: list[tuple[str, str]], batch: list[Document], hits: list[Hit], deadline: Deadline
) -> list[Finding]:
    """Return the findings with their places in the push, without those that the upstream already had."""
    if not hits:
        return []
    places: dict[str, list[Change]] = {}
    for change in content.changes:
        places.setdefault(change.blob, []).append(change)
    known = content.known()
    findings: list[Finding] = []
    for number, line, rule, secret in hits:
        deadline.check()
        if len(findings) >= MAX_FINDINGS:
            break
        kind = batch[number].kind
        name, line = batch[number].part(line)
        if kind == "blob":
            changes = places.get(name, [])
            if _expected(rule, changes) or _inherited(secret, changes, known):
                continue
            commit = changes[0].commit if changes else ""
            place = f"file `{changes[0].path}`" if changes else f"object {name[:12]}"
            findings.append(Finding(rule, commit, place, line, secret))
        elif kind == "names":
            commit, _ = names[min(line, len(names)) - 1]
            findings.append(Finding(rule, commit, "a file name" if commit else "the name of a pushed ref", 0, secret))
        else:
            part, line = _part_of(name, line)
            where = (name, f"the {part}") if kind == "commit" else ("", f"the {part} of tag object {name[:12]}")
            findings.append(Finding(rule, *where, line, secret))
    return findings


def _part_of(name: str, line: int) -> tuple[str, int]:
    """Return the part of a commit or tag object and the line in it, counted from the first line of the message."""
    header, _, _ = local_git("cat-file", "-p", name).partition(b"\n\n")
    above = header.count(b"\n") + 2
    return ("message", line - above) if line > above else ("header", line)


def _expected(rule: str, changes: list[Change]) -> bool:
    paths = [change.path.rpartition("/")[2] for change in changes]
    return rule.startswith("generic") and bool(paths) and all(path in LOCK_FILES for path in paths)


def _inherited(secret: str, changes: list[Change], known: list[str]) -> bool:
    """Return true if the upstream already has this text in the same files."""
    paths = {change.path for change in changes}
    return 0 < len(paths) <= MAX_INHERITED_PATHS and all(
        any(secret.encode() in _file_at(commit, path) for commit in known[:32]) for path in paths
    )


@functools.lru_cache(maxsize=2)
def _file_at(commit: str, path: str) -> bytes:
    shown = subprocess.run(
        ["git", "cat-file", "blob", f"{commit}:{path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return shown.stdout if shown.returncode == 0 else b""

"""New content of a push, and its scan with gitleaks.

This runs inside the pre-receive hook, where the pushed objects are in quarantine and the mirror's refs are those of the
upstream. An object is new if a pushed tip reaches it and no ref of the mirror does.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from gitgate import RUN, GateError, local_git

# Time limit in seconds for all batches together. gitleaks reads about 1.5 MB of source text per second and core.
SCAN_SECONDS = 900
# Size of a batch of objects on the tmpfs, which need not have room for the whole push.
BATCH_BYTES = 32 << 20
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


# Kind of a document (`names`, or a type of object) and the object's id.
Origin = tuple[str, str]
# Index of the document, line, rule and secret.
Hit = tuple[int, int, str, str]


class ScanFailure(GateError):
    """The scan was not completed, so the push is refused."""


@dataclasses.dataclass(frozen=True)
class Change:
    """Path that a new commit changes relative to all of its parents."""

    commit: str
    path: str
    blob: str
    added: bool


@dataclasses.dataclass
class Finding:
    """Text that looks like a secret. `secret` is for comparison and masking and must not be printed."""

    rule: str
    commit: str
    place: str
    line: int
    secret: str = dataclasses.field(repr=False)


class NewContent:
    """Objects, commits and changed paths that are new in a push."""

    def __init__(self, tips: list[str]) -> None:
        feed = "\n".join([*tips, ""]).encode()
        # Deletions have no tip. rev-list fails without any input.
        listed = local_git("rev-list", "--objects", "--no-object-names", "--stdin", "--not", "--all", feed=feed)
        sized = local_git("cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", feed=listed)
        rows = [row.split(" ") for row in sized.decode().splitlines()]
        if any(len(row) != 3 for row in rows):
            raise GateError("the push lacks objects that it refers to")
        self.tips = tips
        self.kinds = {name: kind for name, kind, _ in rows}
        self.bytes = sum(int(size) for _, _, size in rows)
        # Oldest first, so that a finding names the commit that introduced it.
        self.commits = [name for name, kind, _ in reversed(rows) if kind == "commit"]
        self.changes = list(self._changes())

    def known(self) -> list[str]:
        """Return the upstream's commits that are parents of new ones."""
        feed = "\n".join([*self.tips, ""]).encode()
        listed = local_git("rev-list", "--boundary", "--stdin", "--not", "--all", feed=feed).decode()
        return [line[1:] for line in listed.splitlines() if line.startswith("-")]

    def _changes(self) -> Iterator[Change]:
        if not self.commits:
            return
        # For a merge, `-c` omits files that are unchanged from one of the parents. They belong to the upstream or to
        # another new commit.
        options = ["--stdin", "-r", "-c", "--root", "-z", "--raw", "--no-renames", "--ignore-submodules=none"]
        tokens = iter(local_git("diff-tree", *options, feed="\n".join([*self.commits, ""]).encode()).split(b"\0"))
        commit = ""
        for token in tokens:
            if not token.startswith(b":"):
                commit = token.decode().strip()
                continue
            parents = len(token) - len(token.lstrip(b":"))
            fields = token.decode().lstrip(":").split()
            path = next(tokens).decode(errors="surrogateescape")
            yield Change(commit, path, fields[2 * parents + 1], set(fields[-1]) == {"A"})


def scan(content: NewContent, refs: list[str]) -> list[Finding]:
    """Return all findings in `content` and in the names in `refs`. Raises ScanFailure if the scan is incomplete."""
    deadline = time.monotonic() + SCAN_SECONDS
    names = [(change.commit, change.path) for change in content.changes if change.added]
    names += [("", ref) for ref in refs]
    listing = "\n".join(name.replace("\n", " ") for _, name in names)
    origins = [("names", "")]
    documents = [listing.encode(errors="surrogateescape")]
    findings: list[Finding] = []
    size = 0
    for origin, document in _contents(content):
        origins.append(origin)
        documents.append(_prepared(document))
        # A file takes at least one page.
        size += len(documents[-1]) + 4096
        if size > BATCH_BYTES:
            findings += _judged(content, names, origins, _gitleaks(documents, deadline))
            origins, documents, size = [], [], 0
    if documents:
        findings += _judged(content, names, origins, _gitleaks(documents, deadline))
    return findings


def _contents(content: NewContent) -> Iterator[tuple[Origin, bytes]]:
    wanted = [name for name, kind in content.kinds.items() if kind != "tree"]
    # The ids are in a file, because writing to a pipe while reading from another could block both sides.
    listing = RUN / f"objects-{os.getpid()}"
    listing.write_text("".join(f"{name}\n" for name in wanted))
    try:
        with (
            listing.open("rb") as ids,
            subprocess.Popen(["git", "cat-file", "--batch"], stdin=ids, stdout=subprocess.PIPE) as objects,
        ):
            assert objects.stdout is not None
            for name in wanted:
                found, kind, size = objects.stdout.readline().decode().split()
                body = objects.stdout.read(int(size) + 1)[:-1]
                if found != name or len(body) != int(size):
                    raise ScanFailure("the pushed objects could not be read")
                yield (kind, name), body
    finally:
        listing.unlink()


def _prepared(body: bytes) -> bytes:
    if b"\0" in body:
        body = _printable(body)
    # A comment in a pushed file must not disable the scan.
    return body.replace(b"gitleaks:allow", b"gitleaks-allow")


def _printable(body: bytes) -> bytes:
    """Return the runs of ASCII in a binary, UTF-16 included. Of 50 MB of compressed data little remains."""
    runs = re.findall(rb"[\t\n\r\x20-\x7e]{8,}", body)
    wide = re.findall(rb"(?:[\t\n\r\x20-\x7e]\0){8,}", body)
    return b"\n".join(runs + [run.replace(b"\0", b"") for run in wide])


def _gitleaks(documents: list[bytes], deadline: float) -> list[Hit]:
    """Run gitleaks over one batch; yield (index of the document, line, rule, secret)."""
    batch = RUN / f"scan-{os.getpid()}"
    batch.mkdir(mode=0o700)
    try:
        # The names are numbers, because gitleaks skips paths of its own list, such as `vendor` or `*.bin`.
        for number, document in enumerate([CANARY, *documents]):
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


def _run_gitleaks(batch: pathlib.Path, deadline: float) -> list[dict[str, Any]]:
    argv = ["gitleaks", "detect", "--no-git", "--no-banner", "--log-level=fatal", f"--source={batch}"]
    argv += [f"--exit-code={FOUND}", "--report-format=json", "--report-path=/dev/stdout"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(RUN)}
    try:
        ended = subprocess.run(
            argv,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(1, deadline - time.monotonic()),
            check=False,
        )
        if ended.returncode not in (0, FOUND):
            raise ScanFailure(f"the secret scanner failed (status {ended.returncode})")
        report: list[dict[str, Any]] = json.loads(ended.stdout)
        return report
    except subprocess.TimeoutExpired:
        raise ScanFailure(f"the secret scan took longer than {SCAN_SECONDS} seconds") from None
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


def _judged(content: NewContent, names: list[tuple[str, str]], origins: list[Origin], hits: list[Hit]) -> list[Finding]:
    """Return the findings with their places in the push, without those that the upstream already had."""
    if not hits:
        return []
    places: dict[str, list[Change]] = {}
    for change in content.changes:
        places.setdefault(change.blob, []).append(change)
    known = content.known()
    findings = []
    for number, line, rule, secret in hits:
        kind, name = origins[number]
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
    return bool(changes) and all(
        any(secret.encode() in _file_at(commit, path) for commit in known[:32])
        for path in {change.path for change in changes}
    )


def _file_at(commit: str, path: str) -> bytes:
    shown = subprocess.run(
        ["git", "cat-file", "blob", f"{commit}:{path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return shown.stdout if shown.returncode == 0 else b""

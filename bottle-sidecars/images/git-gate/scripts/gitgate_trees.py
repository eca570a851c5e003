"""Paths that new commits change, read from their trees within fixed limits.

Trees can share subtrees. Ten trees of 400 bytes describe 10^10 paths, so each tree is read once, and the walk stops at
the first limit. Every limit is well above what a repository of 100,000 files needs.
"""

import dataclasses
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator

from gitgate import GateError

# Paths that all new commits of a push may change together, directories included. The Linux kernel has 90,000 files.
MAX_PATHS = 250_000
# Bytes of these paths together. They are scanned as one document, which is held in memory.
MAX_PATHS_BYTES = 32 << 20
# Bytes of one path: PATH_MAX of Linux, without the final zero. No checkout can create a longer one.
MAX_PATH_BYTES = 4095
# Directories above a file. Deep Java sources have 30.
MAX_DEPTH = 128
# Bytes of one tree, which is a directory of some 250,000 files.
MAX_TREE_BYTES = 16 << 20
# New commits, trees, files and tags of a push. Their ids and types take 300 bytes each in the hook.
MAX_OBJECTS = 250_000
# Time limit in seconds to list the new objects and the changed paths. Either takes 2 seconds for 250,000.
READ_SECONDS = 60
# Entries of trees that are kept for the next commit, at 250 bytes each.
KEPT_ENTRIES = 250_000

_ENTRY = re.compile(rb"(\d+) ([^\0]+)\0(.{20})", re.DOTALL)
_DIRECTORY = b"40000 "


class TooMuch(GateError):
    """The push exceeds a limit, which the message names."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Path that a new commit changes relative to all of its parents. An empty directory has its tree as `blob`."""

    commit: str
    path: str
    blob: str
    added: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """New commit with its tree and its parents."""

    name: str
    tree: str
    parents: list[str]


class Deadline:
    """Time limit of one step. Git processes that run under it are killed when it is over."""

    def __init__(self, seconds: float, step: str) -> None:
        self._end = time.monotonic() + seconds
        self._message = f"{step} took longer than {seconds:.0f} seconds"

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        if not self.left():
            raise TooMuch(self._message)

    def git(self, *arguments: str, feed: list[str], most: int, unit: str) -> list[str]:
        """Run git with one argument per line on standard input. Return its output, at most `most` lines."""
        # A file, because a pipe would need a second thread that writes while this one reads.
        with open(os.memfd_create("feed"), "w+b") as lines:
            lines.write("".join(f"{line}\n" for line in feed).encode())
            lines.seek(0)
            child = subprocess.Popen(["git", *arguments], stdin=lines, stdout=subprocess.PIPE)
        found: list[str] = []
        with child, self.kills(child):
            assert child.stdout is not None
            for line in child.stdout:
                found.append(line.decode(errors="surrogateescape").rstrip("\n"))
                if len(found) > most:
                    child.kill()
                    raise TooMuch(f"it has more than {most:,} {unit}")
        self.check()
        if child.returncode:
            raise GateError(f"git could not read the pushed objects (`git {arguments[0]}`, status {child.returncode})")
        return found

    def kills(self, child: subprocess.Popen[bytes]) -> "_Killer":
        return _Killer(self.left(), child)


class _Killer:
    """Kills a process after a time, or when its user has finished with it or failed."""

    def __init__(self, seconds: float, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._timer = threading.Timer(seconds, child.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if failure:
            self._child.kill()


def changes(commits: list[Commit], deadline: Deadline) -> Iterator[Change]:
    """Yield what each of the new commits changes. Raises TooMuch at the first limit.

    For a merge, files that are unchanged from one of the parents are omitted. They belong to the upstream or to another
    new commit.
    """
    reader = subprocess.Popen(["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with reader, deadline.kills(reader):
        walk = _Walk(reader, deadline)
        roots = {commit.name: commit.tree for commit in commits}
        for commit in commits:
            parents = [roots.get(parent) or f"{parent}^{{tree}}" for parent in commit.parents]
            yield from walk.differences(commit.name, commit.tree, parents)
        walk.end()


class _Walk:
    """Walk through the trees of a push, which counts what it visits."""

    def __init__(self, reader: subprocess.Popen[bytes], deadline: Deadline) -> None:
        assert reader.stdin is not None and reader.stdout is not None
        self._requests, self._answers = reader.stdin, reader.stdout
        self._deadline = deadline
        # The most recently used tree is the last one.
        self._trees: dict[str, dict[bytes, bytes]] = {}
        self._kept = 0
        self._paths = 0
        self._bytes = 0

    def end(self) -> None:
        self._requests.close()

    def differences(self, commit: str, tree: str, parents: list[str]) -> list[Change]:
        found: list[Change] = []
        if tree not in parents:
            self._directory(found, commit, b"", tree, list(parents), 0)
        return found

    def _directory(
        self, found: list[Change], commit: str, prefix: bytes, tree: str | None, parents: list[str | None], depth: int
    ) -> None:
        if depth > MAX_DEPTH:
            raise TooMuch(f"a path is below more than {MAX_DEPTH} directories")
        new = self._entries(tree)
        before = [self._entries(parent) for parent in parents]
        if tree and not new and prefix:
            # Nothing in it has a path that would contain its name.
            found.append(Change(commit, _text(prefix[:-1]), tree, not any(parents)))
        names = {name for name, _ in new.items() ^ before[0].items()} if before else set(new)
        for name in sorted(names):
            states = [entries.get(name) for entries in before]
            state = new.get(name)
            if state in states:
                continue
            path = prefix + name
            self._count(path)
            # A file and a directory of one name are two paths: one is removed, the other one added.
            file, files = _file(state), [_file(old) for old in states]
            if (file or files) and file not in files:
                found.append(Change(commit, _text(path), _name(file), bool(file) and not any(files)))
            below, olds = _tree(state), [_tree(old) for old in states]
            if (below or olds) and below not in olds:
                self._directory(found, commit, path + b"/", below, olds, depth + 1)

    def _count(self, path: bytes) -> None:
        self._deadline.check()
        self._paths += 1
        self._bytes += len(path)
        if len(path) > MAX_PATH_BYTES:
            raise TooMuch(f"a path has more than {MAX_PATH_BYTES:,} bytes")
        if self._paths > MAX_PATHS:
            raise TooMuch(f"its commits change more than {MAX_PATHS:,} paths together")
        if self._bytes > MAX_PATHS_BYTES:
            raise TooMuch(f"the paths that its commits change have more than {MAX_PATHS_BYTES:,} bytes together")

    def _entries(self, tree: str | None) -> dict[bytes, bytes]:
        """Return mode and id of each name in a tree. An absent tree is empty."""
        if not tree:
            return {}
        entries = self._trees.pop(tree, None)
        if entries is None:
            entries = {name: mode + b" " + value for mode, name, value in _ENTRY.findall(self._read(tree))}
            self._kept += len(entries)
        self._trees[tree] = entries
        while self._kept > KEPT_ENTRIES and len(self._trees) > 1:
            self._kept -= len(self._trees.pop(next(iter(self._trees))))
        return entries

    def _read(self, tree: str) -> bytes:
        self._deadline.check()
        try:
            # Past the buffer, which would be flushed once more when the process has been killed.
            os.write(self._requests.fileno(), tree.encode() + b"\n")
            header = self._answers.readline().split()
            if len(header) == 3 and int(header[2]) > MAX_TREE_BYTES:
                raise TooMuch(f"a directory has more than {MAX_TREE_BYTES:,} bytes of entries")
            body = self._answers.read(int(header[2]) + 1)[:-1] if len(header) == 3 else b""
        except BrokenPipeError:
            header, body = [], b""
        self._deadline.check()
        if len(header) != 3 or header[1] != b"tree" or len(body) != int(header[2]):
            raise GateError("the trees of the push could not be read")
        return body


def _file(state: bytes | None) -> bytes | None:
    return None if state and state.lstrip(b"0").startswith(_DIRECTORY) else state


def _tree(state: bytes | None) -> str | None:
    return _name(state) if state and state.lstrip(b"0").startswith(_DIRECTORY) else None


def _name(state: bytes | None) -> str:
    return state[-20:].hex() if state else ""


def _text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")

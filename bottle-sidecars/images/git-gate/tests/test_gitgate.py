#!/usr/bin/python3
"""The parts of git-gate that need no network and no scanner: `python3 test_gitgate.py`, in the image or out of it.

Plain functions and a loop instead of a test framework, since the image's Python is the minimal one.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

IMAGES = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(IMAGES / "git-gate/scripts"), str(IMAGES / "shared")]
sys.dont_write_bytecode = True

import gitgate
import gitgate_policy as policy
import gitgate_scan as scanning
import gitgate_trees as trees
from sidecar import credentials

PUSH = {
    "enabled": True,
    "branches": ["agent/**", "fix-?"],
    "tags": False,
    "force": False,
    "delete": False,
    "protected_paths": [],
    "max_bytes": 1000,
    "scan": True,
}


def test_one_star_stays_within_a_component() -> None:
    assert policy.matches("agent/*", "agent/x")
    assert not policy.matches("agent/*", "agent/x/y")
    assert not policy.matches("agent/*", "agent")
    assert not policy.matches("agent/*", "myagent/x")


def test_two_stars_cross_components() -> None:
    assert policy.matches("agent/**", "agent/x/y/z")
    assert not policy.matches("agent/**", "agent")
    assert not policy.matches("agent/**", "agents/x")
    assert policy.matches("**", "main")
    assert policy.matches("**/Jenkinsfile", "Jenkinsfile")
    assert policy.matches("**/Jenkinsfile", "a/b/Jenkinsfile")
    assert not policy.matches("**/Jenkinsfile", "a/Jenkinsfile.txt")
    assert policy.matches("a/**/b", "a/b")
    assert policy.matches("a/**/b", "a/x/y/b")
    assert not policy.matches("a/**/b", "a/x/y")


def test_patterns_are_anchored_and_case_sensitive() -> None:
    assert not policy.matches("main", "main2")
    assert not policy.matches("main", "x/main")
    assert not policy.matches("Main", "main")
    assert policy.matches("/main", "main")
    assert policy.matches("docs/", "docs/a/b")
    assert policy.matches("fix-[0-9]", "fix-7")
    assert not policy.matches("fix-[0-9]", "fix-a")


def test_dots_and_pluses_are_themselves() -> None:
    assert not policy.matches(".gitlab-ci.yml", "xgitlab-ci.yml")
    assert not policy.matches(".gitlab-ci.yml", ".gitlab-ciXyml")
    assert policy.matches("c++/*", "c++/x")


def test_a_protected_directory_cannot_be_replaced() -> None:
    for path in (".github", ".github/workflows", ".github/workflows/ci.yml", ".github/workflows/a/b"):
        assert policy.protects(".github/workflows/**", path), path
    for path in (".github/CODEOWNERS", ".github/workflows2", "x/.github/workflows/ci.yml"):
        assert not policy.protects(".github/workflows/**", path), path
    assert not policy.protects("**/Jenkinsfile", "src")


def refusal(ref, push=None, creates=False, deletes=False, fast_forward=True):
    return policy.refusal({**PUSH, **(push or {})}, ref, creates, deletes, fast_forward)


def test_branches() -> None:
    assert refusal("refs/heads/agent/x") is None
    assert refusal("refs/heads/agent/x", creates=True, fast_forward=False) is None
    assert "outside" in refusal("refs/heads/main")
    assert "outside" in refusal("refs/heads/main", creates=True)
    assert "outside" in refusal("refs/heads/agent/x", {"branches": []})
    assert refusal("refs/heads/main", {"branches": ["refs/heads/*"]}) is None


def test_rewriting_and_deleting() -> None:
    assert "rewritten" in refusal("refs/heads/agent/x", fast_forward=False)
    assert refusal("refs/heads/agent/x", {"force": True}, fast_forward=False) is None
    assert "deleted" in refusal("refs/heads/agent/x", deletes=True)
    assert "deleted" in refusal("refs/heads/agent/x", {"force": True}, deletes=True)
    assert refusal("refs/heads/agent/x", {"delete": True}, deletes=True) is None
    assert "outside" in refusal("refs/heads/main", {"delete": True}, deletes=True)


def test_tags() -> None:
    assert "tags" in refusal("refs/tags/v1", creates=True)
    assert refusal("refs/tags/v1", {"tags": True}, creates=True) is None
    assert "rewritten" in refusal("refs/tags/v1", {"tags": True}, fast_forward=True)
    assert refusal("refs/tags/v1", {"tags": True, "force": True}) is None


def test_notes_need_a_pattern_of_their_own() -> None:
    assert "outside" in refusal("refs/notes/commits", {"branches": ["**"]}, creates=True)
    assert refusal("refs/notes/commits", {"branches": ["refs/notes/*"]}, creates=True) is None


def test_other_namespaces_are_refused_whatever_the_patterns() -> None:
    anything = {"branches": ["**", "refs/**"], "tags": True, "force": True, "delete": True}
    for ref in ("refs/pull/1/head", "refs/for/main", "refs/replace/abc", "HEAD", "refs/headsx/a"):
        assert "neither" in refusal(ref, anything, creates=True), ref


def upstream(**changes):
    entry = {"name": "app", "url": "ssh://git@h:22/app.git", "auth": {"kind": "ssh"}, "push": dict(PUSH)}
    return gitgate.Upstream({**entry, **changes}, 60)


def test_an_upstream_that_makes_no_sense_is_refused() -> None:
    token = {"kind": "https", "username": "u", "slot": "T"}
    assert upstream(url="https://h/app.git", auth=token).name == "app"
    for changes in (
        {"name": "../app"},
        {"name": ""},
        {"name": "app.git"},
        {"url": "https://h/app.git"},
        {"url": "file:///srv/app.git", "auth": {"kind": "none"}},
        {"url": "ext::sh -c id", "auth": {"kind": "none"}},
        {"url": "https://u:p@h/app.git", "auth": token},
        {"url": "https://h/app.git", "auth": {**token, "slot": "T;id"}},
        {"push": {**PUSH, "max_bytes": 0}},
        {"push": {**PUSH, "max_bytes": True}},
        {"push": {**PUSH, "scan": "no"}},
    ):
        try:
            upstream(**changes)
        except gitgate.GateError:
            continue
        raise AssertionError(f"accepted {changes}")


def test_names_and_urls_have_the_verdict_of_the_table_that_the_manifest_is_tested_with() -> None:
    cases = json.loads((IMAGES / "shared/tests/grammar_cases.json").read_text())
    checked = [case for case in cases if case["value"] in ("upstream", "git_url")]
    assert len(checked) > 50
    for case in checked:
        text = case["text"]
        if case["value"] == "upstream":
            changes = {"name": text}
        else:
            changes = {"url": text, "auth": {"kind": "none" if text.startswith("https:") else "ssh"}}
        try:
            upstream(**changes)
            accepted = True
        except gitgate.GateError as error:
            # The launcher writes `[user@]host:path` as an ssh URL, so no credential fits the short form here.
            accepted = "do not fit" in str(error)
        assert accepted == case["accepted"], case


def test_an_audit_line_is_short_and_has_the_common_fields() -> None:
    reader, writer = os.pipe()
    os.dup2(writer, gitgate.AUDIT_FD)
    refs = [{"old": "0" * 40, "new": "1" * 40, "ref": f"refs/heads/{number}"} for number in range(200)]
    gitgate.audit("push", "app", "refused", 0.0, reason="é\n" * 2000, refs=refs, bytes=3)
    raw = os.read(reader, 1 << 16)
    os.close(reader), os.close(writer), os.close(gitgate.AUDIT_FD)
    assert raw.isascii() and raw.count(b"\n") == 1 and len(raw) <= gitgate.ATOMIC_WRITE
    line = json.loads(raw)
    assert (line["sidecar"], line["event"], line["outcome"], line["shortened"]) == ("git-gate", "push", "refused", True)
    assert len(line["refs"]) == 4 and line["bytes"] == 3 and line["ts"].endswith("Z")


HTTPS = {"kind": "https", "username": "u", "slot": "TEST_TOKEN"}


@contextlib.contextmanager
def replaced(constant: str, value: object):
    """A constant of `gitgate` with another value."""
    before = getattr(gitgate, constant)
    setattr(gitgate, constant, value)
    try:
        yield
    finally:
        setattr(gitgate, constant, before)


@contextlib.contextmanager
def tokens(**values: str):
    """The directory of credentials, with these files."""
    directory = pathlib.Path(f"/tmp/git-gate-tokens-{os.getpid()}")
    directory.mkdir()
    try:
        for slot, value in values.items():
            (directory / slot).write_text(value)
        with replaced("TOKENS", credentials.Credentials(directory)):
            yield directory
    finally:
        subprocess.run(["rm", "-rf", directory], check=True)


def test_tokens_leave_the_environment() -> None:
    environment = {"ONE": "first value", "OTHER": "stays"}
    with tokens() as directory:
        gitgate.TOKENS.take_from(environment, ["ONE", "TWO"])
        assert environment == {"OTHER": "stays"} and gitgate.TOKENS.read("ONE") == "first value"
        assert gitgate.TOKENS.read("TWO") is None
        assert [(path.name, path.stat().st_mode & 0o777) for path in directory.iterdir()] == [("ONE", 0o600)]
        for value, said in (("", "is empty"), ("a\nb", "no header can carry")):
            try:
                gitgate.TOKENS.take_from({"ONE": value}, ["ONE"])
            except credentials.CredentialError as error:
                assert "ONE" in str(error) and said in str(error), error
            else:
                raise AssertionError(f"{value!r} was taken")


def test_a_file_that_holds_no_value_counts_as_absent() -> None:
    with tokens(EMPTY="", LINES="a\nb", NEWLINE="a\n", SPACE=" a"):
        assert [gitgate.TOKENS.read(slot) for slot in ("EMPTY", "LINES", "NEWLINE", "SPACE", "NONE")] == [None] * 5


def test_a_token_that_has_not_arrived_is_waited_for() -> None:
    https = upstream(url="https://h.example/app.git", auth=HTTPS)
    with tokens() as directory:
        with replaced("WAIT_SECONDS", 0.2):
            try:
                https.git("version")
            except gitgate.GateError as error:
                assert str(error) == "upstream `app`: its token has not arrived", error
            else:
                raise AssertionError("git ran without its token")
        threading.Timer(0.2, lambda: (directory / "TEST_TOKEN").write_text("late")).start()
        assert https.git("version")[0].startswith("git version")


def test_the_token_reaches_git_and_nothing_readable() -> None:
    with tokens(TEST_TOKEN="s3cr3t-value"):
        check_that_the_token_reaches_git()


def check_that_the_token_reaches_git() -> None:
    https = upstream(url="https://h.example/app.git", auth=HTTPS)
    environment = https._environment()
    assert not [name for name, value in environment.items() if "s3cr3t-value" in value]
    asked = subprocess.run(
        ["git", "credential", "fill"],
        input=b"url=https://h.example/app.git\n\n",
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert b"password=s3cr3t-value\n" in asked.stdout
    elsewhere = subprocess.run(
        ["git", "credential", "fill"],
        input=b"url=https://other.example/app.git\n\n",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert b"s3cr3t-value" not in elsewhere.stdout
    assert https._legible(b"fatal: s3cr3t-value rejected") == "fatal: [token] rejected"
    assert "GATE_TOKEN_FILE" not in upstream()._environment()


def test_text_from_outside_cannot_act_on_a_terminal() -> None:
    assert gitgate.legible("a\x1b[31mb\x07\r\x9bc\n") == "a[31mb\nc\n"


def test_a_line_of_the_daemon_is_one_audit_line() -> None:
    reading, writing = os.pipe()
    with replaced("AUDIT_FD", writing):
        unknown = f"[8] '{gitgate.MIRRORS}/none.git' does not appear to be a git repository\n"
        gitgate.copy_log(
            ["[7] '/\x1b[2J\udc9b' does not exist\n", '{"sidecar":"git-gate","event":"forged"}\n', unknown]
        )
    os.close(writing)
    with open(reading) as written:
        lines = [json.loads(line) for line in written]
    assert [line["event"] for line in lines] == ["daemon", "daemon", "lookup"], lines
    assert (lines[2]["outcome"], lines[2]["upstream"]) == ("refused", "none"), lines
    assert lines[0]["reason"] == "[7] '/[2J\\udc9b' does not exist", lines


def test_what_matters_of_an_error() -> None:
    noise = (
        "ssh: connect to host h port 22: Connection refused\n"
        "fatal: Could not read from remote repository.\n\n"
        "Please make sure you have the correct access rights\nand the repository exists.\n"
    )
    assert gitgate._gist(noise) == "ssh: connect to host h port 22: Connection refused"
    assert gitgate._gist("") == "git failed without a message"


def test_audit_lines_stay_short_enough_to_be_atomic() -> None:
    reader, writer = os.pipe()
    os.dup2(writer, gitgate.AUDIT_FD)
    refs = [{"ref": f"refs/heads/{'x' * 100}{number}", "old": "0" * 40, "new": "1" * 40} for number in range(200)]
    gitgate.audit("push", "app", "refused", 0.0, refs=refs, reason="r" * 3000)
    line = os.read(reader, 1 << 20)
    assert len(line) <= gitgate.ATOMIC_WRITE and line.endswith(b"\n"), len(line)
    shown = json.loads(line)
    assert shown["shortened"] and shown["event"] == "push" and len(shown["refs"]) == 4


def test_no_content_looks_like_a_binary_to_the_scanner() -> None:
    for body in (b"PK\x03\x04secret", b"%PDF-1.4", b"CD001" * 20000, b"x" + b"CD001" * 20000):
        shown = scanning._unsniffable(body)
        padding, _, rest = shown.partition(b"\n")
        assert len(padding) >= 599 and not padding.strip() and rest == body
        assert shown[32769:32774] != b"CD001"


def test_text_inside_binaries_is_kept() -> None:
    wide = "password = hunter2hunter2".encode("utf-16-le")
    shown = scanning._prepared(b"\0\xff\x01key = value-1234\n\x00ab\x00" + wide)
    assert b"key = value-1234" in shown and b"password = hunter2hunter2" in shown and b"ab" not in shown.split(b"\n")


def test_a_comment_cannot_switch_the_scan_off() -> None:
    assert b"gitleaks:allow" not in scanning._prepared(b"k = v # gitleaks:allow")


def test_new_content_of_a_history_with_a_merge() -> None:
    with repository() as commit:
        base = commit({"old": "1", "a b\n": "2"}, "base")
        # Only the base is the upstream's: what follows hangs on no ref.
        git("checkout", "-q", "--detach")
        side = commit({"side": "3"}, "side")
        git("checkout", "-q", base)
        middle = commit({"gone": "4"}, "middle")
        git("rm", "-q", "gone")
        removed = commit({}, "removed")
        git("merge", "-q", "--no-commit", side)
        merge = commit({"evil": "5"}, "merge")
        git("checkout", "-q", base)
        content = scanning.NewContent([merge], 100_000)
        assert set(content.commits) == {side, middle, removed, merge}
        changed = {(change.commit, change.path, change.added) for change in content.changes}
        assert changed == {
            (side, "side", True),
            (middle, "gone", True),
            (removed, "gone", False),
            (merge, "evil", True),
        }, changed
        assert content.known() == [base]
        assert all(content.kinds[change.blob] == "blob" for change in content.changes if change.added)
        assert scanning.NewContent([], 0).bytes == 0
        assert scanning.NewContent([base], 0).kinds == {}


def test_only_what_the_upstream_has_in_the_same_file_is_inherited() -> None:
    with repository() as commit:
        base = commit({"conf": "k = abc\n"}, "base")
        in_place = scanning.Change("c", "conf", "b", False)
        copied = scanning.Change("c", "copy", "b", True)
        assert scanning._inherited("abc", [in_place], [base])
        assert not scanning._inherited("abd", [in_place], [base])
        assert not scanning._inherited("abc", [copied], [base])
        assert not scanning._inherited("abc", [in_place, copied], [base])
        assert not scanning._inherited("abc", [in_place], [])
        assert not scanning._inherited("abc", [], [base])


def test_lock_files_excuse_the_entropy_rule_alone() -> None:
    lock = scanning.Change("c", "web/yarn.lock", "b", True)
    other = scanning.Change("c", "web/yarn.txt", "b", True)
    assert scanning._expected("generic-api-key", [lock])
    assert not scanning._expected("generic-api-key", [lock, other])
    assert not scanning._expected("aws-access-token", [lock])
    assert not scanning._expected("generic-api-key", [])


def test_trees_that_share_subtrees_are_refused_at_a_limit() -> None:
    with repository():
        empty = (b"40000", write("tree", b""))
        blob = (b"100644", write("blob", b"x"))
        for levels, width, leaf, limit in (
            (10, 10, empty, "250,000 paths"),
            (10, 10, blob, "250,000 paths"),
            (40, 2, blob, "250,000 paths"),
            (200, 1, blob, "128 directories"),
        ):
            assert limit in limit_of(nested(leaf, levels, width)), (levels, width)
        assert "bytes together" in limit_of(nested(blob, 6, 8, padding=b"n" * 200))
        assert "4,095 bytes" in limit_of(nested(blob, 25, 1, padding=b"n" * 200))
        few = commit_of(nested(blob, 3, 10))
        assert len(scanning.NewContent([few], 1 << 20).changes) == 1000


def test_a_directory_of_very_many_entries_is_refused() -> None:
    with repository():
        blob = write("blob", b"x")
        tree = write("tree", b"".join(b"100644 %07d\0%s" % (n, blob) for n in range(600_000)))
        assert "16,777,216 bytes of entries" in limit_of(tree)


def test_more_objects_than_the_limit_are_refused() -> None:
    with repository() as commit:
        tip = commit({"a": "1", "b": "2"}, "two")
        detach()
        try:
            trees.Deadline(60, "reading").git("rev-list", "--objects", tip, feed=[], most=3, unit="new objects")
        except trees.TooMuch as limit:
            assert str(limit) == "it has more than 3 new objects"
            return
        raise AssertionError("no limit")


def test_a_step_that_takes_too_long_is_ended() -> None:
    with repository() as commit:
        tip = commit({"a": "1"}, "one")
        detach()
        commits = [trees.Commit(tip, git("rev-parse", f"{tip}^{{tree}}"), [])]
        for step in (
            lambda over: over.git("rev-list", tip, feed=[], most=9, unit="commits"),
            lambda over: list(trees.changes(commits, over)),
        ):
            try:
                step(trees.Deadline(0, "reading the new objects"))
            except trees.TooMuch as limit:
                assert str(limit) == "reading the new objects took longer than 0 seconds"
                continue
            raise AssertionError("no limit")


def test_each_tree_is_read_once() -> None:
    with repository() as commit:
        pathlib.Path("d").mkdir()
        tips = [commit({"d/a": str(n), "b": "same"}, str(n)) for n in range(5)]
        detach()
        read: list[str] = []
        original = trees._Walk._read
        trees._Walk._read = lambda walk, tree: read.append(tree) or original(walk, tree)
        try:
            content = scanning.NewContent([tips[-1]], 1 << 20)
        finally:
            trees._Walk._read = original
        assert len(content.changes) == 6 and len(read) == len(set(read)) == 10, read


def test_the_names_of_empty_directories_count() -> None:
    with repository():
        inner = write("tree", b"40000 hidden\0" + write("tree", b""))
        tip = commit_of(write("tree", b"40000 top\0" + inner))
        assert [(c.path, c.added) for c in scanning.NewContent([tip], 1 << 20).changes] == [("top/hidden", True)]


def test_a_file_in_the_place_of_a_directory_is_two_changes() -> None:
    with repository() as commit:
        pathlib.Path("d").mkdir()
        first = commit({"d/a": "1"}, "directory")
        git("checkout", "-q", "--detach")
        git("rm", "-rq", "d")
        second = commit({"d": "2"}, "file")
        git("checkout", "-q", first)
        found = {(c.path, c.added, bool(c.blob)) for c in scanning.NewContent([second], 1 << 20).changes}
        assert found == {("d", True, True), ("d/a", False, False)}, found


def test_names_that_another_program_misreads_are_refused() -> None:
    shell = ("a$(id)", "a;b", "a`b`", "a|b", "a'b")
    for name in ("HEAD", "head", "-x", "agent/-x", *shell, "a\u200bb", "a/\uff0e\uff0e/b", "1" * 40, "n" * 600):
        assert policy.unclear_ref(f"refs/heads/{name}"), name
    gits_own = ("@", "FETCH_HEAD", "fetch_head", "ORIG_HEAD", "MERGE_HEAD", "NEW_HEAD", "stash", "AUTO_MERGE")
    for name in (*gits_own, "feature/HEAD", "HEAD/x"):
        for namespace in ("refs/heads/", "refs/tags/"):
            assert "git " in (policy.unclear_ref(namespace + name) or ""), name
    for name in ("over_head", "stash/x", "HEADER", "a@b", "agent/head"):
        assert policy.unclear_ref(f"refs/heads/{name}") is None, name
    for name in ("main", "agent/x-1", "fix#3", "user@host", "übung", "1" * 39):
        assert policy.unclear_ref(f"refs/heads/{name}") is None, name
    for path in ("-rf", "src/-x", "a\nb", "a\x1bb", "a;b", "a`b`", "$(id)", "a|b", "a>b", 'a"b', "a\\b", "a\u202eb"):
        assert policy.unclear_path(path), path
    for path in ("src/a-b.c", "app/(auth)/[id]/$post.tsx", "Don't.md", "a b#1 @2.txt", ".github/x", "déjà.txt"):
        assert policy.unclear_path(path) is None, path


def test_nothing_of_the_watch_is_left_for_a_fork() -> None:
    """A fork beside a thread makes Python print a warning, which the agent would see."""
    hook = IMAGES / "git-gate/scripts/pre-receive"
    script = f"""
import importlib.machinery, importlib.util, os, sys, threading, warnings
sys.path[:0] = {sys.path[:2]!r}
warnings.simplefilter("error")
loader = importlib.machinery.SourceFileLoader("hook", {str(hook)!r})
hook = importlib.util.module_from_spec(importlib.util.spec_from_loader("hook", loader))
sys.modules["hook"] = hook
loader.exec_module(hook)
hook.gitgate.client_is_connected = lambda: True
watch = hook.Watch()
watch.end()
assert threading.active_count() == 1
hook.hold_until_advanced()
"""
    command = [sys.executable, "-B", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


def test_other_spellings_of_a_protected_path_are_protected() -> None:
    for path in (
        ".GitHub/Workflows/ci.yml",
        ".github./workflows /ci.yml",
        ".git\u200chub/workflows/ci.yml",
        ".github::$INDEX_ALLOCATION/workflows/ci.yml",
        ".GITHUB",
    ):
        assert policy.protects(".github/workflows/**", path), path
    assert not policy.protects(".github/workflows/**", "github/workflows/ci.yml")


def test_short_names_of_a_protected_path_are_protected() -> None:
    for pattern, path in (
        (".github/workflows/**", "GITHUB~1/WORKFL~1/CI~1.YML"),
        (".github/workflows/**", "github~1"),
        (".github/workflows/**", ".github/WORKFL~1/x.yml"),
        (".github/workflows/**", ".github/WO3A7F~2/x.yml"),
        (".github/workflows/**", "GITHU~10/workflows/x.yml"),
        (".gitlab-ci.yml", "GITLAB~1.YML"),
        (".ci/**", "CI~1/build"),
        ("**/Jenkinsfile", "a/JENKIN~1"),
        ("deploy/*.workflow", "deploy/MAIN~1.WOR"),
        ("Jenkins*", "JENKIN~2.GRO"),
    ):
        assert policy.protects(pattern, path), (pattern, path)
    for pattern, path in (
        (".github/workflows/**", "GITLAB~1/workflows/ci.yml"),
        (".github/workflows/**", "GIT~1/workflows/ci.yml"),
        (".github/workflows/**", "github~x/workflows/ci.yml"),
        (".github/workflows/**", ".github/WORK~1/ci.yml"),
        ("ci/jobs/**", "CI~1/jobs/x"),
        (".gitlab-ci.yml", "GITLAB~1.TXT"),
        ("deploy/*.workflow", "deploy/MAIN~1.TXT"),
        ("Jenkins*", "DOCKER~1"),
    ):
        assert not policy.protects(pattern, path), (pattern, path)
    assert not policy.matches(".github/**", "GITHUB~1/x")


def test_findings_in_joined_objects_have_their_own_lines() -> None:
    joined = scanning.Joined("commit")
    for name, text in (("a", b"1\n2"), ("b", b"3"), ("c", b"4\n5\n")):
        joined.add(name, text)
    (document,) = joined.document()
    lines = document.text.decode().split("\n")
    for number, line in enumerate(lines, 1):
        if line:
            name, there = document.part(number)
            assert {"a": ["1", "2"], "b": ["3"], "c": ["4", "5"]}[name][there - 1] == line
    assert list(scanning.Joined().document()) == []


def test_a_client_that_has_left_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        served, _ = server.accept()
        os.environ |= {"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": str(client.getsockname()[1])}
        assert gitgate.client_is_connected()
        client.close()
        assert not gitgate.client_is_connected()
        served.close()
        assert not gitgate.client_is_connected()
        del os.environ["REMOTE_ADDR"], os.environ["REMOTE_PORT"]


def write(kind: str, body: bytes) -> bytes:
    """Write an object as it is, and return its id."""
    argv = ["git", "hash-object", "-w", "--literally", "-t", kind, "--stdin"]
    return bytes.fromhex(subprocess.run(argv, input=body, stdout=subprocess.PIPE, check=True).stdout.decode())


def nested(leaf, levels, width, padding=b""):
    """Trees of `levels` levels, each of which holds the next one `width` times."""
    for _ in range(levels):
        mode, below = leaf
        leaf = (b"40000", write("tree", b"".join(b"%s %s%02d\0%s" % (mode, padding, n, below) for n in range(width))))
    return leaf[1]


def commit_of(tree):
    return git("commit-tree", "-m", "x", tree.hex())


def limit_of(tree):
    """Return the limit at which a commit of this tree is refused."""
    try:
        scanning.NewContent([commit_of(tree)], 1 << 30)
    except trees.TooMuch as limit:
        return str(limit)
    raise AssertionError("no limit")


def detach():
    """Take every ref away, so that all objects are new."""
    branch = git("symbolic-ref", "HEAD")
    git("checkout", "-q", "--detach")
    git("update-ref", "-d", branch)
    git("symbolic-ref", "HEAD", "refs/heads/unborn")


class repository:
    """A throw-away repository as the working directory; gives a function that commits files."""

    def __enter__(self):
        self.before = os.getcwd()
        self.path = pathlib.Path(f"/tmp/git-gate-test-{os.getpid()}")
        self.path.mkdir()
        os.chdir(self.path)
        git("init", "-q")
        return self.commit

    def commit(self, files, message):
        for name, text in files.items():
            pathlib.Path(name).write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", message)
        return git("rev-parse", "HEAD")

    def __exit__(self, *_):
        os.chdir(self.before)
        subprocess.run(["rm", "-rf", self.path], check=True)


def git(*arguments):
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.test", "-c", "commit.gpgSign=false"]
    ended = subprocess.run(["git", *who, *arguments], stdout=subprocess.PIPE, check=True)
    return ended.stdout.decode().strip()


def main():
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    for name, test in tests:
        test()
        print(f"ok {name}")
    print(f"{len(tests)} passed")


if __name__ == "__main__":
    main()

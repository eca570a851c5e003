"""Code that git-gate's scripts share: configuration, git commands to the real remote, mirrors, audit lines."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import selectors
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

from gitgate_policy import Push
from sidecar import audit_line
from sidecar.audit_line import Outcome
from sidecar.credentials import PAUSE_SECONDS, WAIT_SECONDS, Credentials
from sidecar.grammar import GRAMMARS

CONFIG = pathlib.Path("/etc/git-gate/upstreams.json")
KNOWN_HOSTS = pathlib.Path("/etc/git-gate/known_hosts")
KEYS = pathlib.Path("/etc/git-gate/creds")
TOKENS = Credentials()
MIRRORS = pathlib.Path("/mirrors")
RUN = pathlib.Path("/tmp/git-gate")
CA_BUNDLE = RUN / "ca-bundle.pem"
GIT_SETTINGS = RUN / "gitconfig"
PASSWD, GROUP = RUN / "passwd", RUN / "group"
# Descriptor of the container's standard output, which every hook inherits through git daemon. The hooks' own standard
# streams are connected to the agent.
AUDIT_FD = 9

# Refs of the remote that the agent sees. Forges advertise more, such as pull requests and internal refs.
NAMESPACES = ("refs/heads/", "refs/tags/", "refs/notes/")

# Writes to a pipe of at most this many bytes are atomic on Linux.
ATOMIC_WRITE = 4096

# Seconds between two looks at the connection of a push.
WATCH_SECONDS = 1

# State of a connection in the kernel's table of sockets.
ESTABLISHED = "01"

# Time limit in seconds for a transfer that makes progress.
LONGEST_TRANSFER = 3600


class GateError(Exception):
    """Error whose message is shown to the agent unchanged."""


class UpstreamError(GateError):
    """The real remote could not be reached, or refused. `report` is git's standard output."""

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report


class Unanswered(UpstreamError):
    """The real remote stopped answering. It is unknown whether it carried out the request."""


class Upstream:
    """One entry of upstreams.json."""

    _SLOT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

    def __init__(self, entry: dict[str, Any], patience: int) -> None:
        self.name: str = entry["name"]
        self.url: str = entry["url"]
        self.auth: dict[str, str] = entry["auth"]
        self.push: Push = entry["push"]
        self.patience = patience
        self.mirror = MIRRORS / f"{self.name}.git"
        self.scheme = urllib.parse.urlsplit(self.url).scheme
        self._check()

    def _check(self) -> None:
        if not GRAMMARS["upstream"].accepts(self.name):
            raise GateError(f"upstream name `{self.name}` is not {GRAMMARS['upstream'].accepted}")
        if not GRAMMARS["git_url"].accepts(self.url):
            raise GateError(f"upstream `{self.name}`: the URL is not {GRAMMARS['git_url'].accepted}")
        if self.scheme != {"ssh": "ssh", "https": "https", "none": "https"}.get(self.auth["kind"]):
            raise GateError(f"upstream `{self.name}`: `{self.auth['kind']}` credentials do not fit this URL")
        if self.auth["kind"] == "https" and not self._SLOT.fullmatch(self.auth["slot"]):
            raise GateError(f"upstream `{self.name}`: the slot of its token is not the name of a variable")
        push: dict[str, object] = {**self.push}
        if not all(isinstance(push[key], bool) for key in ("enabled", "tags", "force", "delete", "scan")):
            raise GateError(f"upstream `{self.name}`: a switch of `push` is neither true nor false")
        size = push["max_bytes"]
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise GateError(f"upstream `{self.name}`: push.max_bytes is not a positive number")

    @property
    def key(self) -> pathlib.Path:
        return KEYS / f"{self.name}-key"

    @property
    def slot(self) -> str | None:
        """The slot of the token of an https upstream."""
        return self.auth["slot"] if self.auth["kind"] == "https" else None

    def token(self) -> str | None:
        return TOKENS.read(self.slot) if self.slot else None

    def check_key(self) -> None:
        """Raise an error at the start for a key that is missing, and not at the agent's first fetch."""
        if self.auth["kind"] == "ssh" and not os.access(self.key, os.R_OK):
            raise GateError(f"upstream `{self.name}`: {self.key} is missing or not readable for uid {os.getuid()}")

    def _await_token(self) -> None:
        """Wait for a token that the launcher has not written yet, for a bounded time."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.slot and self.token() is None:
            if time.monotonic() >= deadline:
                raise UpstreamError(f"upstream `{self.name}`: its token has not arrived")
            time.sleep(PAUSE_SECONDS)

    def git(self, *arguments: str, patience: int | None = None) -> tuple[str, str]:
        """Run git against the real remote with this upstream's credential. Return its output and messages."""
        patience = patience or self.patience
        self._await_token()
        try:
            code, out, err = _run_while_it_moves(["git", *arguments], self._environment(), patience)
        except TimeoutError as silence:
            raise Unanswered(f"upstream `{self.name}`: {silence}") from None
        output, messages = out.decode(errors="replace"), self._legible(err)
        if code != 0:
            raise UpstreamError(f"upstream `{self.name}`: {_gist(messages)}", output)
        return output, messages

    def _environment(self) -> dict[str, str]:
        # Built from scratch, so that the git of one upstream never has the token of another.
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(RUN),
            "LC_ALL": "C.UTF-8",
            "GIT_DIR": str(self.mirror),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(GIT_SETTINGS),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": self.scheme,
            "GIT_SSL_CAINFO": str(CA_BUNDLE),
        }
        # During a push the new objects are in quarantine, where the git that forwards them must find them.
        for name in ("GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"):
            if name in os.environ:
                environment[name] = os.environ[name]
        # Redirects are not followed, because one could send the token to another host.
        settings = [("http.followRedirects", "false"), ("credential.helper", "")]
        if self.auth["kind"] == "ssh":
            environment["GIT_SSH_COMMAND"] = " ".join(self._ssh())
            environment["GIT_SSH_VARIANT"] = "ssh"
        elif self.auth["kind"] == "https":
            # `read` and `printf` are builtins of the shell, so the token is in no environment and on no command line.
            environment["GATE_USERNAME"] = self.auth["username"]
            environment["GATE_TOKEN_FILE"] = str(TOKENS.path(self.auth["slot"]))
            read = r"""IFS= read -r token <"$GATE_TOKEN_FILE" || test -n "$token" || return; """
            answer = read + r"""printf 'username=%s\npassword=%s\n' "$GATE_USERNAME" "$token"; """
            helper = '!f() { test "$1" = get || return 0; ' + answer + "}; f"
            site = urllib.parse.urlsplit(self.url)
            settings.append((f"credential.{site.scheme}://{site.netloc}.helper", helper))
        environment["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (key, value) in enumerate(settings):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        return environment

    def _ssh(self) -> list[str]:
        options: dict[str, object] = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": self.key,
            "PreferredAuthentications": "publickey",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": KNOWN_HOSTS,
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
            "ConnectTimeout": min(self.patience, 30),
            "ServerAliveInterval": 15,
            "ServerAliveCountMax": 4,
            "LogLevel": "ERROR",
        }
        # The root is read-only, so the passwd entry is on the tmpfs. This library makes ssh read it there.
        named = ["env", "LD_PRELOAD=libnss_wrapper.so", f"NSS_WRAPPER_PASSWD={PASSWD}", f"NSS_WRAPPER_GROUP={GROUP}"]
        return [*named, "ssh", "-F", "/dev/null", *(f"-o {name}={value}" for name, value in options.items())]

    def _legible(self, raw: bytes) -> str:
        text = legible(raw.decode(errors="replace"))
        token = self.token()
        return text.replace(token, "[token]") if token else text


def load() -> dict[str, Upstream]:
    """Read all upstreams, by name."""
    document = json.loads(CONFIG.read_text())
    if document["version"] != 1:
        raise GateError(f"{CONFIG}: version {document['version']} is not understood")
    upstreams = [Upstream(entry, document["fetch_timeout_seconds"]) for entry in document["upstreams"]]
    by_name = {upstream.name: upstream for upstream in upstreams}
    if len(by_name) != len(upstreams):
        raise GateError(f"{CONFIG}: two upstreams have one name")
    return by_name


def upstream_of(directory: str) -> Upstream:
    """Return the upstream whose mirror is `directory`."""
    return load()[pathlib.Path(directory).name.removesuffix(".git")]


def refresh(upstream: Upstream) -> None:
    """Update the mirror from the real remote. After a failure the old state is not served.

    Callers that arrive while a refresh runs share the next one and its failure, so any number of concurrent fetches
    causes at most two round trips.
    """
    arrived = time.monotonic()
    outcome = RUN / f"{upstream.name}.refreshed"
    with locked(upstream):
        with contextlib.suppress(FileNotFoundError):
            last = json.loads(outcome.read_text())
            if last["started"] >= arrived:
                if last["error"]:
                    raise UpstreamError(last["error"])
                return
        started = time.monotonic()
        error: str | None = None
        try:
            _update_mirror(upstream)
        except UpstreamError as failure:
            error = str(failure)
            raise
        finally:
            outcome.write_text(json.dumps({"started": started, "error": error}))


@contextlib.contextmanager
def locked(upstream: Upstream) -> Iterator[None]:
    """Lock the mirror's refs. A forked child holds the lock as well, until it ends."""
    descriptor = os.open(RUN / f"{upstream.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def local_git(*arguments: str, feed: bytes | None = None) -> bytes:
    """Run git on the mirror in the caller's environment and return its output. Raises when git fails."""
    return subprocess.run(["git", *arguments], input=feed, stdout=subprocess.PIPE, check=True).stdout


def audit(event: str, upstream: str, outcome: Outcome, began: float, reason: str | None = None, **details: Any) -> None:
    """Write one audit line to the container's standard output, shortened so that concurrent lines cannot mix."""
    details = {
        "upstream": upstream,
        "client": os.environ.get("REMOTE_ADDR", ""),
        "seconds": round(time.monotonic() - began, 3),
        **details,
    }
    encoded = audit_line.encode("git-gate", event, outcome=outcome, reason=reason, **details)
    for bulky in ("refs", "findings", "reason", "tips"):
        if len(encoded) < ATOMIC_WRITE:
            break
        if bulky == "reason":
            reason = reason and reason[:400]
        elif bulky in details:
            details[bulky] = details[bulky][:4]
        details["shortened"] = True
        encoded = audit_line.encode("git-gate", event, outcome=outcome, reason=reason, **details)
    with contextlib.suppress(OSError):
        os.write(AUDIT_FD, encoded.encode() + b"\n")


# Git daemon's words for an unknown repository, for which it does not run the access hook.
_UNKNOWN = re.compile(r"(?:\[[0-9]+\] )?'(/.*)' does not appear to be a git repository")


def copy_log(lines: Iterable[str]) -> None:
    """Write each line of git daemon's log as an audit line."""
    for line in lines:
        said = legible(line).strip()[:400]
        if unknown := _UNKNOWN.fullmatch(said):
            name = unknown[1].removeprefix(f"{MIRRORS}/").removesuffix(".git")
            reason = "no upstream of the bottle has this name"
            encoded = audit_line.encode(
                "git-gate", "lookup", outcome="refused", reason=reason, upstream=name, seconds=0.0
            )
        else:
            encoded = audit_line.encode("git-gate", "daemon", reason=said)
        with contextlib.suppress(OSError):
            os.write(AUDIT_FD, encoded.encode() + b"\n")


def client_is_connected() -> bool:
    """Return true if the connection that this process serves is open on both sides. Git daemon names the client."""
    address, port = os.environ.get("REMOTE_ADDR"), os.environ.get("REMOTE_PORT")
    if not address or not port:
        return True
    client = f"{socket.inet_aton(address)[::-1].hex().upper()}:{int(port):04X}"
    rows = [row.split() for row in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2] == client and row[3] == ESTABLISHED for row in rows)


def processes() -> list[tuple[int, int, list[bytes]]]:
    """Return the id, parent and command line of every process of the container."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name in parentheses may contain anything.
            parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
            found.append((int(directory.name), int(parent), (directory / "cmdline").read_bytes().split(b"\0")))
    return found


def legible(text: str) -> str:
    """Return text from outside without control characters, which could act on a terminal."""
    return re.sub(r"[^\n\x20-\x7e\xa0-\uffff]", "", text.replace("\r", "\n"))


def remote_refs(upstream: Upstream) -> dict[str, str]:
    """Return the refs of the real remote, and HEAD as `ref: <name>` if the remote reports it."""
    listing, _ = upstream.git("ls-remote", "--symref", "--", upstream.url)
    refs: dict[str, str] = {}
    for line in listing.splitlines():
        value, _, ref = line.partition("\t")
        if (ref.startswith(NAMESPACES) and not ref.endswith("^{}")) or value.startswith("ref: "):
            refs[ref] = value
    return refs


def _update_mirror(upstream: Upstream) -> None:
    wanted = remote_refs(upstream)
    head = wanted.pop("HEAD", "").removeprefix("ref: ")
    git = ["--git-dir", str(upstream.mirror)]
    listed = local_git(*git, "for-each-ref", "--format=%(objectname) %(refname)").decode().splitlines()
    present = {ref: value for value, _, ref in (line.partition(" ") for line in listed)}
    if wanted != present:
        refspecs = [f"+{namespace}*:{namespace}*" for namespace in NAMESPACES]
        options = ["--progress", "--prune", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        try:
            upstream.git("fetch", *options, "--", upstream.url, *refspecs)
        except UpstreamError as failure:
            _sweep(upstream.mirror)
            if "No space left" in str(failure):
                raise UpstreamError(f"upstream `{upstream.name}` does not fit into the space for mirrors") from None
            raise
    if head.startswith("refs/heads/"):
        local_git(*git, "symbolic-ref", "HEAD", head)


def _sweep(mirror: pathlib.Path) -> None:
    # A killed transfer leaves these files. Nothing else writes packs here while the lock is held.
    for leftover in (mirror / "objects/pack").glob("tmp_*"):
        leftover.unlink(missing_ok=True)


def _run_while_it_moves(argv: list[str], environment: dict[str, str], patience: int) -> tuple[int, bytes, bytes]:
    """Run a command as long as it prints something every `patience` seconds. Otherwise stop its process group."""
    deadline = time.monotonic() + LONGEST_TRANSFER
    child = subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None and child.stderr is not None
    output = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    results = tuple(output.values())
    try:
        with selectors.DefaultSelector() as selector:
            for stream in output:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(min(patience, max(0, deadline - time.monotonic())))
                if not ready:
                    raise TimeoutError(f"no output for {patience} seconds")
                for key, _ in ready:
                    chunk = os.read(key.fd, 65536)
                    output[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fd)
        return child.wait(), bytes(results[0]), bytes(results[1])
    finally:
        if child.poll() is None:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    # SIGTERM first, on which git removes its temporary files.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2)
            return


# Lines that git prints besides the cause.
_FILLER = re.compile(
    r"fatal: Could not read from remote repository|Please make sure you have the correct access"
    r"|and the repository exists|^error: failed to push some refs"
    r"|^(remote: )?(Enumerating|Counting|Compressing|Total|Receiving|Resolving|Writing|Delta)"
)


def _gist(messages: str) -> str:
    lines = [line.strip() for line in messages.splitlines()]
    telling = [line for line in lines if line and not _FILLER.search(line)]
    return "; ".join(telling[-4:])[:500] or "git failed without a message"

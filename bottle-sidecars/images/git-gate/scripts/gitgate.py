"""What git-gate's scripts share: the configuration, git towards the real remote, the mirrors, the audit line."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import selectors
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from gitgate_policy import Push
from sidecar import audit_line
from sidecar.audit_line import Outcome
from sidecar.grammar import GRAMMARS

CONFIG = pathlib.Path("/etc/git-gate/upstreams.json")
KNOWN_HOSTS = pathlib.Path("/etc/git-gate/known_hosts")
CREDENTIALS = pathlib.Path("/etc/git-gate/creds")
MIRRORS = pathlib.Path("/mirrors")
RUN = pathlib.Path("/tmp/git-gate")
CA_BUNDLE = RUN / "ca-bundle.pem"
GIT_SETTINGS = RUN / "gitconfig"
PASSWD, GROUP = RUN / "passwd", RUN / "group"
# A descriptor that every hook inherits through git daemon and that leads to the container's standard output. The
# hooks' own standard streams lead to the agent.
AUDIT_FD = 9

# Everything of the remote that the agent sees. Forges advertise far more (pull requests, internal refs).
NAMESPACES = ("refs/heads/", "refs/tags/", "refs/notes/")

# Writes to a pipe of at most this many bytes are atomic on Linux.
ATOMIC_WRITE = 4096

# A transfer may take as long as it moves; this bounds it all the same.
LONGEST_TRANSFER = 3600


class GateError(Exception):
    """Something that the agent is told as it stands."""


class UpstreamError(GateError):
    """The real remote could not be reached, or declined; `report` is what git wrote to its standard output."""

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report


class Unanswered(UpstreamError):
    """The real remote fell silent: whether it did what was asked is unknown."""


class Upstream:
    """One entry of upstreams.json."""

    _VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

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
        if self.auth["kind"] == "https" and not self._VARIABLE.fullmatch(self.auth["token_env"]):
            raise GateError(f"upstream `{self.name}`: token_env is not the name of a variable")
        push: dict[str, object] = {**self.push}
        if not all(isinstance(push[key], bool) for key in ("enabled", "tags", "force", "delete", "scan")):
            raise GateError(f"upstream `{self.name}`: a switch of `push` is neither true nor false")
        size = push["max_bytes"]
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise GateError(f"upstream `{self.name}`: push.max_bytes is not a positive number")

    @property
    def key(self) -> pathlib.Path:
        return CREDENTIALS / f"{self.name}-key"

    def token(self) -> str:
        return os.environ.get(self.auth.get("token_env", ""), "")

    def check_credentials(self) -> None:
        """Refuse to start with a credential that cannot work, rather than fail at the agent's first fetch."""
        if self.auth["kind"] == "ssh" and not os.access(self.key, os.R_OK):
            raise GateError(f"upstream `{self.name}`: {self.key} is missing or not readable for uid {os.getuid()}")
        if self.auth["kind"] == "https" and not self.token():
            raise GateError(f"upstream `{self.name}`: the variable {self.auth['token_env']} is empty")

    def git(self, *arguments: str, patience: int | None = None) -> tuple[str, str]:
        """Run git towards the real remote with this upstream's credential; return its output and messages."""
        patience = patience or self.patience
        try:
            code, out, err = _run_while_it_moves(["git", *arguments], self._environment(), patience)
        except TimeoutError as silence:
            raise Unanswered(f"upstream `{self.name}`: {silence}") from None
        output, messages = out.decode(errors="replace"), self._legible(err)
        if code != 0:
            raise UpstreamError(f"upstream `{self.name}`: {_gist(messages)}", output)
        return output, messages

    def _environment(self) -> dict[str, str]:
        # Built from nothing, so that one upstream's git never holds another's token.
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
        # During a push the new objects are in quarantine, and the forwarding git has to see them.
        for name in ("GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"):
            if name in os.environ:
                environment[name] = os.environ[name]
        # A redirect could carry the token to another host, so none is followed.
        settings = [("http.followRedirects", "false"), ("credential.helper", "")]
        if self.auth["kind"] == "ssh":
            environment["GIT_SSH_COMMAND"] = " ".join(self._ssh())
            environment["GIT_SSH_VARIANT"] = "ssh"
        elif self.auth["kind"] == "https":
            # `printf` is built into the shell: the token is on no command line and in no file.
            environment["GATE_USERNAME"] = self.auth["username"]
            environment["GATE_TOKEN"] = self.token()
            answer = r"""printf 'username=%s\npassword=%s\n' "$GATE_USERNAME" "$GATE_TOKEN"; """
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
        # The root is read-only, so the running uid's passwd entry is on the tmpfs; this library makes ssh look there.
        named = ["env", "LD_PRELOAD=libnss_wrapper.so", f"NSS_WRAPPER_PASSWD={PASSWD}", f"NSS_WRAPPER_GROUP={GROUP}"]
        return [*named, "ssh", "-F", "/dev/null", *(f"-o {name}={value}" for name, value in options.items())]

    def _legible(self, raw: bytes) -> str:
        text = legible(raw.decode(errors="replace"))
        return text.replace(self.token(), "[token]") if self.token() else text


def load() -> dict[str, Upstream]:
    """All upstreams by name."""
    document = json.loads(CONFIG.read_text())
    if document["version"] != 1:
        raise GateError(f"{CONFIG}: version {document['version']} is not understood")
    upstreams = [Upstream(entry, document["fetch_timeout_seconds"]) for entry in document["upstreams"]]
    by_name = {upstream.name: upstream for upstream in upstreams}
    if len(by_name) != len(upstreams):
        raise GateError(f"{CONFIG}: two upstreams have one name")
    return by_name


def upstream_of(directory: str) -> Upstream:
    """The upstream whose mirror `directory` is."""
    return load()[pathlib.Path(directory).name.removesuffix(".git")]


def refresh(upstream: Upstream) -> None:
    """Bring the mirror up to date with the real remote; a failure is raised, never served around.

    Callers that arrive while a refresh runs share the next one, its failure included: any number of concurrent
    fetches costs at most two round trips.
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
    """Keep the mirror's refs still. A forked child holds the lock too, until it ends."""
    descriptor = os.open(RUN / f"{upstream.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def local_git(*arguments: str, feed: bytes | None = None) -> bytes:
    """Run git on the mirror in the caller's environment and return its output; raises when git fails."""
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


def legible(text: str) -> str:
    """Text from outside without what would act on a terminal."""
    return re.sub(r"[^\n\x20-\x7e\xa0-\uffff]", "", text.replace("\r", "\n"))


def remote_refs(upstream: Upstream) -> dict[str, str]:
    """What the real remote's refs are now; its HEAD as `ref: <name>`, when it tells."""
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
    # What a killed transfer leaves; nothing else writes packs here while the lock is held.
    for leftover in (mirror / "objects/pack").glob("tmp_*"):
        leftover.unlink(missing_ok=True)


def _run_while_it_moves(argv: list[str], environment: dict[str, str], patience: int) -> tuple[int, bytes, bytes]:
    """Run a command for as long as it prints something every `patience` seconds; then end its process group."""
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
                    raise TimeoutError(f"no sign of life for {patience} seconds")
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
    # SIGTERM first: git removes its temporary files on it.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2)
            return


# What git adds under the line that matters.
_FILLER = re.compile(
    r"fatal: Could not read from remote repository|Please make sure you have the correct access"
    r"|and the repository exists|^error: failed to push some refs"
    r"|^(remote: )?(Enumerating|Counting|Compressing|Total|Receiving|Resolving|Writing|Delta)"
)


def _gist(messages: str) -> str:
    lines = [line.strip() for line in messages.splitlines()]
    telling = [line for line in lines if line and not _FILLER.search(line)]
    return "; ".join(telling[-4:])[:500] or "git failed without a message"

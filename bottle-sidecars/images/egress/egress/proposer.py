"""The way from a refused host to a person: what the agent is told, and the proposal that egress makes by itself."""

import asyncio
import json
from dataclasses import dataclass

from sidecar.grammar import GRAMMARS

from . import audit
from .policy import Refusal

# Hosts that are proposed in the life of this process. The agent can propose others itself.
MAX_PROPOSED = 50
# Supervise tells at once that it has queued a proposal, but it may have to start and the machine may be busy.
_ANSWERED_WITHIN = 30.0
_ANSWER_LIMIT = 1 << 16
# After these, the next request for the host tries again.
_TRIES = 3
_PAUSE = 1.0

_TOOL = "propose_allow_host"

# A person reads the reason of a proposal, and any other method is a text of the agent's choice.
_METHODS = frozenset(
    "GET HEAD POST PUT DELETE OPTIONS PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK REPORT SEARCH".split()
)


@dataclass(frozen=True, slots=True)
class Supervise:
    """The sidecar that takes proposals. With `proposes`, egress makes one for each refused host."""

    address: tuple[str, int]
    proposes: bool


class _Unanswered(Exception):
    """It is unknown whether the proposal is queued. Supervise queues a change that waits already only once."""


class Proposer:
    """Tells how to ask for a refused host, and proposes it once if that is wanted."""

    def __init__(self, supervise: Supervise | None) -> None:
        self._supervise = supervise
        self._under_way: set[str] = set()
        self._proposed: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def refuse(self, host: str, rule: str, method: str, scheme: str) -> Refusal:
        """Returns the refusal of a request to a host."""
        why = f"the approval of {host} has ended" if rule == "expired" else f"{host} is not allowed"
        # No host is below `.invalid` (RFC 2606), where the launcher's own probe asks.
        if self._supervise is None or not GRAMMARS["allowed_host"].accepts(host) or host.endswith(".invalid"):
            return Refusal(403, rule, why)
        if self._supervise.proposes:
            self._propose(host, method, scheme)
        if host in self._proposed and rule == "expired":
            how = f"the tool {_TOOL} asks a person for it again"
        elif host in self._proposed:
            how = f"it was proposed to a person, and the tool {_TOOL} waits for the decision"
        elif host in self._under_way:
            how = f"it is being proposed to a person, and the tool {_TOOL} waits for the decision"
        else:
            how = f"the tool {_TOOL} asks a person for it"
        return Refusal(403, rule, f"{why}; {how}", {"tool": _TOOL, "arguments": {"host": host, "reason": "..."}})

    def _propose(self, host: str, method: str, scheme: str) -> None:
        """Starts to propose the host, unless that was done."""
        known = self._proposed | self._under_way
        if host in known or len(known) >= MAX_PROPOSED:
            return
        self._under_way.add(host)
        task = asyncio.get_running_loop().create_task(self._send(host, method, scheme))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, host: str, method: str, scheme: str) -> None:
        assert self._supervise is not None
        known = f"{method} " if method in _METHODS else ""
        reason = f"egress refused a request of the agent: {known}{scheme}://{host}/"
        # With a token, supervise reports progress as soon as the proposal is queued.
        call = {"name": _TOOL, "arguments": {"host": host, "reason": reason}, "_meta": {"progressToken": 1}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()
        refused: str | None = None
        try:
            for left in reversed(range(_TRIES)):
                try:
                    async with self._one_at_a_time:
                        refused = await _post(self._supervise.address, body)
                    break
                except (OSError, _Unanswered):
                    refused = "supervise does not answer"
                    if left:
                        await asyncio.sleep(_PAUSE)
            if refused is None:
                self._proposed.add(host)
        finally:
            self._under_way.discard(host)
        if refused is None:
            audit.emit("proposed", outcome="done", host=host)
        else:
            audit.emit("proposed", outcome="failed", reason=refused, host=host)


async def _post(address: tuple[str, int], body: bytes) -> str | None:
    """Calls a tool. Returns the reason of a refusal, or None once the proposal is queued."""
    name, port = address
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: {name}:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN):
            reader, writer = await asyncio.open_connection(name, port)
            try:
                writer.write(head.encode("ascii") + body)
                await writer.drain()
                return await _answer(reader)
            finally:
                writer.close()
    except TimeoutError:
        raise _Unanswered from None


async def _answer(reader: asyncio.StreamReader) -> str | None:
    """Reads server-sent events up to the first that says whether the proposal is queued."""
    answer = b""
    while len(answer) < _ANSWER_LIMIT and (piece := await reader.read(_ANSWER_LIMIT)):
        answer += piece
        status, has_status, rest = answer.partition(b"\r\n")
        if has_status and not status.startswith(b"HTTP/1.1 200 "):
            return f"supervise answers {status[9:12].decode('latin-1')}"
        for line in rest.split(b"\n")[:-1]:
            if not line.startswith(b"data:"):
                continue
            try:
                message = json.loads(line[5:])
            except ValueError:
                continue
            match message:
                case {"method": "notifications/progress"}:
                    return None
                case {"result": {"isError": True}} | {"error": _}:
                    return "supervise refused it"
                case {"result": _}:
                    return None
    raise _Unanswered

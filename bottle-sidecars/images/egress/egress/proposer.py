"""The way from a refused host to a person: what the agent is told, and the proposal that egress makes by itself."""

import asyncio
import json
from dataclasses import dataclass

from sidecar.grammar import GRAMMARS

from . import audit
from .policy import Refusal

# Hosts that are proposed in the life of this process. The agent can propose others itself.
MAX_PROPOSED = 50
# Supervise answers a proposal that it refuses at once. Any other waits there for a decision.
_REFUSED_WITHIN = 3.0
_ANSWER_LIMIT = 1 << 16

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


class Proposer:
    """Tells how to ask for a refused host, and proposes it once if that is wanted."""

    def __init__(self, supervise: Supervise | None) -> None:
        self._supervise = supervise
        self._proposed: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def refuse(self, host: str, rule: str, method: str, scheme: str) -> Refusal:
        """Returns the refusal of a request to a host."""
        why = f"the approval of {host} has ended" if rule == "expired" else f"{host} is not allowed"
        # No host is below `.invalid` (RFC 2606), where the launcher's own probe asks.
        if self._supervise is None or not GRAMMARS["allowed_host"].accepts(host) or host.endswith(".invalid"):
            return Refusal(403, rule, why)
        if self._supervise.proposes and self._propose(host, method, scheme):
            how = f"it was proposed to a person, and the tool {_TOOL} waits for the decision"
        else:
            how = f"the tool {_TOOL} asks a person for it"
        return Refusal(403, rule, f"{why}; {how}", {"tool": _TOOL, "arguments": {"host": host, "reason": "..."}})

    def _propose(self, host: str, method: str, scheme: str) -> bool:
        """Returns true if the host has been proposed, now or before."""
        if host in self._proposed:
            return True
        if len(self._proposed) >= MAX_PROPOSED:
            return False
        self._proposed.add(host)
        task = asyncio.get_running_loop().create_task(self._send(host, method, scheme))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _send(self, host: str, method: str, scheme: str) -> None:
        assert self._supervise is not None
        known = f"{method} " if method in _METHODS else ""
        reason = f"egress refused a request of the agent: {known}{scheme}://{host}/"
        call = {"name": _TOOL, "arguments": {"host": host, "reason": reason}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()
        async with self._one_at_a_time:
            try:
                refused = await _post(self._supervise.address, body)
            except OSError:
                refused = "supervise does not answer"
        if refused is None:
            audit.emit("proposed", outcome="done", host=host)
        else:
            # The next request tries again.
            self._proposed.discard(host)
            audit.emit("proposed", outcome="failed", reason=refused, host=host)


async def _post(address: tuple[str, int], body: bytes) -> str | None:
    """Calls a tool. Returns the reason of a refusal, or None if the proposal waits for a decision."""
    name, port = address
    reader, writer = await asyncio.open_connection(name, port)
    try:
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: {name}:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode("ascii") + body)
        await writer.drain()
        answer = b""
        try:
            async with asyncio.timeout(_REFUSED_WITHIN):
                while len(answer) < _ANSWER_LIMIT and (piece := await reader.read(_ANSWER_LIMIT)):
                    answer += piece
        except TimeoutError:
            pass
    finally:
        writer.close()
    if answer and not answer.startswith(b"HTTP/1.1 200 "):
        return f"supervise answers {answer[9:12].decode('latin-1')}"
    return "supervise refused it" if b'"isError":true' in answer.replace(b" ", b"") else None

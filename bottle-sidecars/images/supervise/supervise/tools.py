"""MCP tools. This module imports the SDK, which takes half a second, so the first request imports it."""

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from .changes import KINDS, Invalid, Kind, check, object_schema
from .proposals import ID_PATTERN, Outcome, Proposal, Queue, Refused
from .settings import MAX_BODY_BYTES, MAX_WAIT_SECONDS, Settings

_POLL_SECONDS = 0.05
_PROGRESS_SECONDS = 5.0
_MAX_POSTURE_BYTES = 256 * 1024

_INSTRUCTIONS = (
    "This machine is sealed. current_config returns what it may reach. If the work needs something that is not"
    " allowed, propose it with a propose_ tool instead of working around it; a person decides."
)

_STATUS_SCHEMA = object_schema(
    {
        "id": {"type": "string", "maxLength": 40, "description": "The id that a propose_ tool returned."},
        "wait_seconds": {
            "type": "number",
            "minimum": 0,
            "maximum": MAX_WAIT_SECONDS,
            "description": "Seconds to wait for a decision. Default: 0, which returns the current state.",
        },
    },
    ("id",),
)


class Tools:
    """Tools of one queue."""

    def __init__(self, settings: Settings, queue: Queue, stopping: Callable[[], bool]) -> None:
        self._settings = settings
        self._queue = queue
        self._stopping = stopping
        self._kinds = {kind.tool: kind for kind in KINDS}

    def manager(self) -> StreamableHTTPSessionManager:
        """Return the MCP endpoint. It is stateless: clients survive a restart and hold no memory here."""
        server = Server(
            "supervise",
            version="1",
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        port = self._settings.port
        security = TransportSecuritySettings(allowed_hosts=[f"supervise:{port}", f"127.0.0.1:{port}"])
        return StreamableHTTPSessionManager(
            server,
            stateless=True,
            security_settings=security,
            max_request_body_size=MAX_BODY_BYTES,
        )

    async def _list(self, _ctx: ServerRequestContext, _params: Any) -> types.ListToolsResult:
        look = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
        ask = types.ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
        tools = [
            types.Tool(
                name="current_config",
                title="Current configuration",
                annotations=look,
                description="Returns the network, git and image settings of this machine, as text and as data.",
                input_schema=object_schema({}),
            )
        ]
        tools += [
            types.Tool(name=k.tool, title=k.title, description=k.description, input_schema=k.schema, annotations=ask)
            for k in KINDS
        ]
        tools.append(
            types.Tool(
                name="proposal_status",
                title="Status of a proposal",
                annotations=look,
                description="Returns a proposal's status (pending, approved, denied) and whether it is in effect.",
                input_schema=_STATUS_SCHEMA,
            )
        )
        return types.ListToolsResult(tools=tools)

    async def _call(self, ctx: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
        arguments = params.arguments or {}
        known = params.name in self._kinds or params.name in ("current_config", "proposal_status")
        try:
            if kind := self._kinds.get(params.name):
                return await self._propose(ctx, kind, arguments)
            if params.name == "current_config":
                check(object_schema({}), arguments)
                return self._current_config()
            if params.name == "proposal_status":
                return await self._status(ctx, arguments)
            raise Invalid("the tool does not exist")
        except (Invalid, Refused) as error:
            code = error.code if isinstance(error, Refused) else "invalid"
            self._queue.note_refusal(params.name if known else "unknown", code)
            return _answer(f"Refused: {error}", {"status": "refused", "code": code}, is_error=True)

    async def _propose(self, ctx: ServerRequestContext, kind: Kind, arguments: dict[str, Any]) -> types.CallToolResult:
        change, reason = kind.parse(arguments)
        proposal, _new = self._queue.propose(kind.kind, change, reason)
        return _tell(proposal, await self._wait(ctx, proposal, self._settings.wait_seconds))

    async def _status(self, ctx: ServerRequestContext, arguments: dict[str, Any]) -> types.CallToolResult:
        check(_STATUS_SCHEMA, arguments)
        proposal = self._queue.find(arguments["id"])
        if proposal is None:
            raise Invalid(f"no proposal has this id; an id looks like {ID_PATTERN}")
        return _tell(proposal, await self._wait(ctx, proposal, arguments.get("wait_seconds", 0)))

    async def _wait(self, ctx: ServerRequestContext, proposal: Proposal, limit: float) -> Outcome:
        clock = asyncio.get_running_loop().time
        start = clock()
        next_progress = start
        while True:
            outcome = self._queue.outcome(proposal.id)
            assert outcome is not None
            now = clock()
            if outcome.state != "pending" or now - start >= limit or self._stopping():
                return outcome
            if now >= next_progress:
                next_progress = now + _PROGRESS_SECONDS
                # Sent only if the client asked for progress; it also keeps clients with short timeouts waiting.
                with contextlib.suppress(Exception):
                    await ctx.session.report_progress(
                        round(now - start, 1),
                        limit,
                        f"waiting for a person to decide on {proposal.id}",
                    )
            await asyncio.sleep(min(_POLL_SECONDS, start + limit - now))

    def _current_config(self) -> types.CallToolResult:
        words = _read_text(self._settings.config_dir / "posture.txt")
        data = _read_text(self._settings.config_dir / "posture.json")
        try:
            posture = json.loads(data) if data is not None else None
        except ValueError:
            posture = None  # The file is being rewritten; the text may still be complete.
        if words is None and posture is None:
            sorry = "The current configuration cannot be read; call again."
            return _answer(sorry, {"status": "unreadable"}, is_error=True)
        pending = [{"id": p.id, "kind": p.kind, "change": p.change} for p in self._queue.pending()]
        return _answer(
            words if words is not None else json.dumps(posture, indent=2),
            {"posture": posture, "pending": pending},
        )


def _tell(proposal: Proposal, outcome: Outcome) -> types.CallToolResult:
    data = {"id": proposal.id, "kind": proposal.kind, "change": proposal.change, "status": outcome.state}
    words = _headline(proposal, outcome)
    if outcome.applied:
        data["applied"] = outcome.applied
    if outcome.reason:
        data["reason"] = outcome.reason
        words += f" Reason: {_sentence(outcome.reason)}"
    return _answer(words, data)


def _headline(proposal: Proposal, outcome: Outcome) -> str:
    match outcome.state:
        case "pending":
            return f"Pending: a person has not decided yet. Ask again: proposal_status with id {proposal.id}."
        case "denied":
            return "Denied."
        case "approved":
            status, detail = (outcome.applied or {}).get("status", ""), (outcome.applied or {}).get("detail", "")
            # The detail says what changes and when. The headline must be true for each: a proxy that was stopped makes
            # an approval `recorded` that would have been `live`.
            words = {
                "live": "Approved. It is in effect now",
                "recorded": "Approved, but not in effect yet",
                "failed": "Approved, but it could not be applied",
            }.get(status, "Approved")
            return f"{words}: {_sentence(detail)}" if detail else f"{words}."
        case _:
            return "Void: the proposal's file was changed after it was queued, so no decision counts. Propose it again."


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _answer(words: str, data: dict[str, Any], *, is_error: bool = False) -> types.CallToolResult:
    # The text repeats the data, since not every client shows structured content to its model.
    text = f"{words}\n\n{json.dumps(data, ensure_ascii=False)}"
    return types.CallToolResult(
        content=[types.TextContent(text=text)],
        structured_content=data,
        is_error=is_error,
    )


def _read_text(path: Path) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            return file.read(_MAX_POSTURE_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return None

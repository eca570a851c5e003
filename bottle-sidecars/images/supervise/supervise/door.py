"""The HTTP side: what is answered, how many may knock, and the MCP endpoint behind it, which loads while others wait."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import MAX_CONNECTIONS

App = Callable[[Any, Any, Any], Awaitable[None]]


class Door:
    """`/healthz` at once, `/mcp` as soon as the endpoint is there, nothing else."""

    def __init__(self, endpoint: "asyncio.Future[App]") -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path == "/healthz" and method == "GET":
            await _plain(send, 200, "ok")
        elif path != "/mcp":
            await _plain(send, 404, "the MCP endpoint is /mcp")
        elif method != "POST":
            # There are no sessions to end and no events outside of a call: the protocol lets a server say so.
            await _plain(send, 405, "only POST", (b"allow", b"POST"))
        else:
            endpoint = await asyncio.shield(self._endpoint)
            await endpoint(scope, receive, send)


class _Knock(H11Protocol):
    """A connection; one too many is dropped before it can cost anything."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()


def server(app: App, port: int) -> Server:
    """The HTTP server for an application, tuned for one client on a private network."""
    return Server(Config(
        app,
        host="0.0.0.0",
        port=port,
        http=_Knock,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16 * 1024,
    ))


async def _plain(send: Any, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    head = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})

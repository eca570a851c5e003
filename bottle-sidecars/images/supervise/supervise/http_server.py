"""HTTP server: limits of connections and requests, the health check, and the MCP endpoint, which is loaded late."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import MAX_BODY_BYTES, MAX_CONNECTIONS

_MAX_DISCARDED_BYTES = 4 * 1024 * 1024
_DISCARD_SECONDS = 5

App = Callable[[Any, Any, Any], Awaitable[None]]


class Application:
    """Application that answers `/healthz` at once. The first request for `/mcp` loads the endpoint.

    It needs a running event loop.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.endpoint: asyncio.Future[App] = asyncio.get_running_loop().create_future()

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
            # There are no sessions and no events outside a call. The protocol allows 405 for that.
            await _plain(send, 405, "only POST", (b"allow", b"POST"))
        elif _declared_length(scope) > MAX_BODY_BYTES:
            # The body is read up to a limit. A close while the client still sends would discard the answer.
            await _discard(receive)
            await _plain(send, 413, f"a request has at most {MAX_BODY_BYTES} bytes")
        else:
            self.asked.set()
            endpoint = await asyncio.shield(self.endpoint)
            await endpoint(scope, receive, send)


class _Knock(H11Protocol):
    """Connection that is dropped at once when there are too many."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()


class _Server(Server):
    """Server that leaves signals to its caller. By default they are raised again at its end and stop the cleanup."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def server(app: App, port: int) -> Server:
    """Return an HTTP server for one client on a private network. It ends when `should_exit` is set."""
    return _Server(
        Config(
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
        )
    )


def _declared_length(scope: Any) -> int:
    # The HTTP parser has refused anything but a single number.
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


async def _discard(receive: Any) -> None:
    left = _MAX_DISCARDED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body"):
                    return
                left -= len(message["body"])


async def _plain(send: Any, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    head = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})

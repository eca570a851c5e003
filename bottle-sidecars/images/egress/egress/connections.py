"""The agent's connections, with limits on their number, their memory and their time."""

import asyncio
import contextlib
import logging
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from mitmproxy import ctx
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, layers, mode_servers, mode_specs
from mitmproxy.proxy.server import ConnectionIO

from . import answers, audit
from .firewall import Firewall
from .policy import Refusal

logger = logging.getLogger(__name__)

# Maximum number of simultaneous connections of the agent. If all of them stall during a transfer, memory stays well
# below the sidecar's default limit of 1 GiB (a test measures it).
MAX_CLIENTS = 1536

# Time limit for a connection's first request, for the TLS handshake after a CONNECT, and for the rest of a request's
# head. The connection is closed after it.
HANDSHAKE_SECONDS = 60.0
# Time limit for the connection to the firewall and the TLS handshake with the host. A request that pipelock inspects
# waits at most as long for its turn.
CONNECT_SECONDS = 90.0

# Maximum number of upstream connections that are opened at once. More wait. Pipelock resolves each name, and the
# engine's resolver loses some of a thousand simultaneous queries.
MAX_CONNECTING = 32

# Up to `_FEW` connections read in large pieces, which takes the least time for each byte. More connections read in
# small pieces, to bound their memory.
_FEW = 48
_LARGE = 256 * 1024
_SMALL = 16 * 1024

_handlers: dict[str, "Handler"] = {}


def handler_of(client: Client) -> "Handler":
    """Returns the handler of an agent's connection."""
    return _handlers[client.id]


class Handler(mode_servers.ProxyConnectionHandler):
    """One connection of the agent, with its at most one connection to the firewall."""

    def __init__(
        self,
        hooks: dict[str, list[Callable[..., Any]]],
        firewall: Firewall,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        options: Options,
        mode: mode_specs.ProxyMode,
    ) -> None:
        super().__init__(ctx.master, reader, writer, options, mode)  # type: ignore[no-untyped-call]
        self._hooks = hooks
        self._deadline: asyncio.TimerHandle | None = None
        self._connecting: asyncio.TimerHandle | None = None
        self._connected = asyncio.Event()
        self._connected.set()
        self.firewall = firewall
        self._turn_of: Connection | None = None
        self.admitted = False
        """True if the current request has a place among those that pipelock inspects."""
        self._admitted_on: Connection | None = None
        self._admitting: asyncio.Task[None] | None = None
        self.requesting = False
        """True from the head of a request until the end of its exchange."""
        self.intercepted = False
        """True if pipelock, and not the host, terminates TLS of the current upstream connection."""
        self.timed_out = False
        """True if the current upstream connection could not be opened in time."""
        self.idle_since = time.monotonic()

    async def handle_client(self) -> None:
        _handlers[self.client.id] = self
        self._expect(HANDSHAKE_SECONDS)
        try:
            await super().handle_client()
        finally:
            self._expect(None)
            self.connect_ended()
            if self._admitting is not None:
                await asyncio.wait({self._admitting})
            self.leave()
            del _handlers[self.client.id]

    # Reading: the size of a read depends on the number of connections, and a read waits until earlier data was written.

    async def handle_connection(self, connection: Connection) -> None:
        io = self.transports[connection]
        assert isinstance(io.reader, asyncio.StreamReader) and isinstance(io.writer, asyncio.StreamWriter)
        few = len(_handlers) <= _FEW
        io.writer.transport.set_write_buffer_limits(high=_LARGE if few else _SMALL)
        io.reader = _Reader(self, connection, io.reader, io.writer.transport)
        try:
            await super().handle_connection(connection)
        except asyncio.CancelledError:
            if connection in self.transports:
                # Closed while it waited in `before_read`, which mitmproxy does not expect.
                connection.state = ConnectionState.CLOSED
                await self.server_event(events.ConnectionClosed(connection))
                io.writer.close()
                del self.transports[connection]
            raise
        finally:
            if self.admitted and connection is self._admitted_on:
                self._leave_after(io.writer)

    async def before_read(self, connection: Connection) -> None:
        """Waits until earlier data of this connection has been written to the other side.

        For the agent's connection it also waits for data in the other direction, because an agent could cause refusals
        and never read them.
        """
        if connection is self.client:
            # Data that arrives while the upstream connection is opened would be queued without a limit.
            await self._connected.wait()
        for other, io in list(self.transports.items()):
            if io.writer is None or (connection is not self.client and other is not self.client):
                continue
            try:
                await io.writer.drain()
            except OSError as error:
                if io.handler is not None:
                    io.handler.cancel(f"Error sending data: {error}")

    async def drain_writers(self) -> None:
        """Does nothing, because `before_read` waits for the writers that concern the connection."""

    def arrived(self) -> None:
        if not self.requesting and self._deadline is None:
            # The first bytes of a request on a connection that was idle.
            self._expect(HANDSHAKE_SECONDS)

    # Time limits.

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        host, port = self.layer.context.server.address or (None, None)
        audit.Record("CONNECT" if host else "", host, port, None, refused="too-slow").write()
        self.drop()

    def drop(self) -> None:
        """Closes the connection at once."""
        io = self.transports.get(self.client)
        if io and io.writer:
            io.writer.transport.abort()

    def connect_began(self) -> None:
        """Notes that an upstream connection is being opened. Nothing is read from the agent until it is open."""
        self.connect_ended()
        self.intercepted = self.timed_out = False
        self._connected.clear()
        self._connecting = asyncio.get_running_loop().call_later(CONNECT_SECONDS, self._connect_too_slow)

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Waits for a free place, opens a connection to the firewall and serves it. Replaces mitmproxy's method."""
        connection = command.connection
        assert connection.address is not None
        try:
            await self.firewall.turns.acquire()
            self._turn_of = connection
            try:
                connection.timestamp_start = time.time()
                reader, writer = await self.firewall.connect(connection.address)
                connection.timestamp_tcp_setup = time.time()
                connection.state = ConnectionState.OPEN
                connection.peername = writer.get_extra_info("peername")
                connection.sockname = writer.get_extra_info("sockname")
                self.transports[connection] = ConnectionIO(asyncio.current_task(), reader, writer)
                await self.server_event(events.OpenConnectionCompleted(command, None))
                await self.handle_connection(connection)
            finally:
                self.transports.pop(connection, None)
                if self._turn_of is connection:
                    self._end_turn()
        except (OSError, asyncio.CancelledError) as error:
            if connection.timestamp_tcp_setup is None:
                connection.error = str(error) or "connection cancelled"
                await self.server_event(events.OpenConnectionCompleted(command, connection.error))
            if isinstance(error, asyncio.CancelledError):
                raise

    def _end_turn(self) -> None:
        if self._turn_of is not None:
            self._turn_of = None
            self.firewall.turns.release()

    def connect_ended(self) -> None:
        """Notes that the upstream connection is open or has failed."""
        self._end_turn()
        self._connected.set()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None

    def _connect_too_slow(self) -> None:
        self.timed_out = True
        for connection, io in list(self.transports.items()):
            if connection is not self.client and io.handler is not None:
                io.handler.cancel("timed out")

    # Requests that pipelock inspects: their number is limited.

    async def hook_task(self, hook: commands.StartHook) -> None:
        if not isinstance(hook, AdmitHook):
            await super().hook_task(hook)
            return
        # `handle_client` waits for this task, because the layers then continue with the request.
        self._admitting = asyncio.current_task()
        try:
            await super().hook_task(hook)
        finally:
            self._admitting = None

    async def _hold(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Waits for an add-on. Nothing more of the request is read meanwhile."""
        self._admitting = asyncio.current_task()
        self._connected.clear()
        try:
            await waiting
        finally:
            self._connected.set()
            self._admitting = None

    async def _admit(self) -> None:
        if self.admitted:
            return
        # Nothing more of the request is read until it can be sent.
        self._connected.clear()
        self.admitted = await self.firewall.enter(CONNECT_SECONDS, self.has_left)
        self._connected.set()
        if self.has_left():
            self.leave()

    def has_left(self) -> bool:
        """Returns true if the agent has closed its side. While nothing is read from it, only a poll can tell."""
        io = self.transports.get(self.client)
        if io is None or io.writer is None or io.writer.is_closing():
            return True
        poll = select.poll()
        poll.register(io.writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def sent_on(self, connection: Connection) -> None:
        """Notes the connection that carries the admitted request. The request ends with it."""
        self._admitted_on = connection

    def leave(self) -> None:
        """Releases the place of a request that was answered or never sent to pipelock."""
        if self.admitted:
            self.admitted, self._admitted_on = False, None
            self.firewall.leave()

    def _leave_after(self, writer: asyncio.StreamWriter) -> None:
        """Releases the place of an unanswered request once pipelock has closed its connection."""
        try:
            duplicate = writer.get_extra_info("socket").dup()
        except OSError:
            # Closed already, by the far side.
            self.leave()
        else:
            self.admitted, self._admitted_on = False, None
            self.firewall.leave_after(duplicate)

    # Events.

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Calls the add-ons. They are plain functions; one that has to wait returns a coroutine."""
        if isinstance(hook, AdmitHook):
            await self._admit()
            return
        (data,) = hook.args()
        match hook.name:
            case "http_connect":
                self._expect(HANDSHAKE_SECONDS)
            case "tls_established_client":
                self._expect(None)
            case "requestheaders":
                self._expect(None)
                self.requesting = True
        for function in self._hooks[hook.name]:
            try:
                if (waiting := function(data)) is not None:
                    await self._hold(waiting)
            except Exception:
                # The request continues as refused, its state at the start.
                logger.exception("an add-on failed")
        if hook.name in ("response", "error") and isinstance(data, HTTPFlow):
            switched = hook.name == "response" and data.response is not None and data.response.status_code == 101
            if hook.name == "response":
                self.leave()
            self.requesting = switched
            self.idle_since = time.monotonic()

    def is_alive(self, connection: Connection) -> bool:
        """Returns false if the far side has closed the connection or has sent unsolicited data."""
        io = self.transports.get(connection)
        return io is not None and isinstance(io.reader, _Reader) and io.reader.is_quiet()


@dataclass
class AdmitHook(commands.StartHook):
    """Waits until pipelock may inspect the current request. `Handler.admitted` then tells the result."""


class _Reader:
    """Reader of a stream that applies back pressure and chooses the size of each read."""

    def __init__(
        self,
        handler: Handler,
        connection: Connection,
        reader: asyncio.StreamReader,
        transport: asyncio.WriteTransport,
    ) -> None:
        self._handler = handler
        self._connection = connection
        self._reader = reader
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._resize()

    def _resize(self) -> None:
        size = _LARGE if len(_handlers) <= _FEW else _SMALL
        # Sizes of one read from the socket and of the stream's buffer. asyncio has no option for either.
        self._transport.max_size = size  # type: ignore[attr-defined]
        self._reader._limit = size // 2  # type: ignore[attr-defined]
        self._size = size

    async def read(self, _: int) -> bytes:
        await self._handler.before_read(self._connection)
        if (len(_handlers) <= _FEW) is not (self._size == _LARGE):
            self._resize()
        data = await self._reader.read(self._size)
        if data and self._connection is self._handler.client:
            self._handler.arrived()
            # Some clients (urllib3 through a proxy) send a body only after the acknowledgement of its head, which the
            # kernel delays by up to 40 ms. The kernel resets the option, so it is set after each read.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data

    def is_quiet(self) -> bool:
        if self._reader.at_eof() or self._transport.is_closing() or self._reader._buffer:  # type: ignore[attr-defined]
            return False
        # The event loop may not have seen it yet: the end of the connection makes the socket readable.
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return not poll.poll(0)


class Listener(Proxyserver):
    """Accepts the agent's connections. mitmproxy's own server sets no limit to their number."""

    # Name under which mitmproxy's core looks it up.
    name = "proxyserver"

    _server: asyncio.Server | None = None

    def __init__(self, max_inspected: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._max_inspected = max_inspected

    async def setup_servers(self) -> bool:
        """Does nothing. The runner calls `listen`, because it needs the result."""
        return True

    async def listen(self, host: str, port: int) -> None:
        """Opens the port.

        Raises:
            OSError: the port cannot be bound.
        """
        (mode,) = ctx.options.mode
        self._mode = mode_specs.ProxyMode.parse(mode)
        self._by_hook = _hooks(ctx.master.addons.chain)
        self._firewall = Firewall(MAX_CONNECTING, self._max_inspected)
        self._server = await asyncio.start_server(self._accept, host, port, limit=_SMALL, backlog=1024)

    def done(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.connections) >= MAX_CLIENTS and not self._make_room():
            # The health check comes from the container itself.
            if writer.get_extra_info("peername")[0] != "127.0.0.1":
                audit.Record("", None, None, None, status=503, refused="too-many-connections").write()
                busy = Refusal(503, "too-many-connections", f"more than {MAX_CLIENTS} connections are open at once")
                writer.write(answers.closing_message(busy))
                writer.close()
                return
        handler = Handler(self._by_hook, self._firewall, reader, writer, ctx.options, self._mode)
        handler.layer = layers.modes.HttpUpstreamProxy(handler.layer.context)
        with self.register_connection(handler.client.id, handler):
            await handler.handle_client()

    def _make_room(self) -> bool:
        """Closes the connection that has been idle for longest. Returns false if none is idle."""
        handlers = cast("list[Handler]", list(self.connections.values()))
        idle = [handler for handler in handlers if not handler.requesting]
        if not idle:
            return False
        min(idle, key=lambda handler: handler.idle_since).drop()
        return True


def _hooks(addons: list[object]) -> dict[str, list[Callable[..., Any]]]:
    """Returns the public functions of the add-ons, by the name of the event that they handle."""
    found: dict[str, list[Callable[..., Any]]] = defaultdict(list)
    for addon in addons:
        for name in dir(addon):
            function = getattr(addon, name)
            if not name.startswith("_") and callable(function):
                found[name].append(function)
    return found

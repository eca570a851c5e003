"""The limits on simultaneous work of pipelock, which all upstream connections share."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

Address = tuple[str, int]

# An abandoned request counts for as long as pipelock keeps its connection open, but no longer than this.
_ABANDONED_SECONDS = 300.0
# Time limit for a connection to the address that the last look-up gave.
_KNOWN_SECONDS = 1.0
# Hosts that are remembered as inspected.
_MAX_HOSTS = 1024


class Firewall:
    """Pipelock, with the limits that keep it alive.

    Pipelock buffers everything that it inspects: requests over plain HTTP, requests to hosts that it decrypts, and the
    answers. Therefore only `max_inspected` of these requests are sent to it at once.
    """

    def __init__(self, max_connecting: int, max_inspected: int) -> None:
        self.turns = asyncio.Semaphore(max_connecting)
        """Places for upstream connections that are being opened."""
        self._places = asyncio.Semaphore(max_inspected)
        self._inspected: dict[Address, None] = {}
        self._abandoned: set[asyncio.Task[None]] = set()
        self._known: dict[Address, str] = {}

    async def connect(self, address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a connection to pipelock.

        A name is looked up the first time, and again when its last address does not answer: a look-up takes longer than
        the connection.
        """
        name, port = address
        known = self._known.get(address)
        if known is not None:
            try:
                async with asyncio.timeout(_KNOWN_SECONDS):
                    return await asyncio.open_connection(known, port)
            except OSError:
                self._known.pop(address, None)
        reader, writer = await asyncio.open_connection(name, port)
        self._known[address] = writer.get_extra_info("peername")[0]
        return reader, writer

    def remember(self, host: Address, *, inspected: bool) -> None:
        """Notes for a host if pipelock decrypts it."""
        self._inspected.pop(host, None)
        if inspected:
            self._inspected[host] = None
            if len(self._inspected) > _MAX_HOSTS:
                del self._inspected[next(iter(self._inspected))]

    def inspects(self, host: Address) -> bool:
        """Returns true if pipelock decrypted this host at the last connection."""
        return host in self._inspected

    async def enter(self, seconds: float, given_up: Callable[[], bool]) -> bool:
        """Waits for one of the places for inspected requests.

        Returns false if none was free in time, or if `given_up`, which is called once a second, returned true.
        """
        if not self._places.locked():
            return await self._places.acquire()
        waiting = asyncio.get_running_loop().create_task(self._places.acquire())
        end = time.monotonic() + seconds
        try:
            while not waiting.done():
                left = end - time.monotonic()
                if left <= 0 or given_up():
                    return False
                await asyncio.wait({waiting}, timeout=min(left, 1.0))
        finally:
            waiting.cancel()
        return True

    def leave(self) -> None:
        """Releases a place."""
        self._places.release()

    def leave_after(self, connection: socket.socket) -> None:
        """Releases a place when pipelock has closed this connection, whose client has left.

        Pipelock continues to scan an answer after its client has left. Without this wait, an agent that gives up and
        retries could make it hold any number of answers.
        """
        task = asyncio.get_running_loop().create_task(self._leave_after(connection))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    async def _leave_after(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            with connection, contextlib.suppress(OSError, TimeoutError):
                connection.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(_ABANDONED_SECONDS):
                    while await loop.sock_recv(connection, 1 << 16):
                        pass
        finally:
            self.leave()

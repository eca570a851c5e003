"""The connection to the firewall."""

import asyncio
import socket
import unittest
from typing import Any

from egress.firewall import Firewall

NAME = "pipelock.test"


class Lookup(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.firewall = Firewall(1, 1)
        self.address = "127.0.0.1"
        self.lookups = 0
        loop: Any = asyncio.get_running_loop()
        self.addCleanup(setattr, loop, "getaddrinfo", loop.getaddrinfo)
        loop.getaddrinfo = self.look_up

    async def look_up(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.assertEqual(host, NAME)
        self.lookups += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (self.address, port))]

    async def serve(self, address: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(lambda _, writer: writer.close(), address, port)

    async def peer(self, port: int) -> str:
        _, writer = await self.firewall.connect((NAME, port))
        writer.close()
        return str(writer.get_extra_info("peername")[0])

    async def test_a_name_is_looked_up_once(self) -> None:
        async with await self.serve("127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for _ in range(3):
                self.assertEqual(await self.peer(port), "127.0.0.1")
        self.assertEqual(self.lookups, 1)

    async def test_it_is_looked_up_again_when_its_address_does_not_answer(self) -> None:
        async with await self.serve("127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await self.peer(port)
        with self.assertRaises(OSError):
            await self.peer(port)
        self.address = "127.0.0.2"
        async with await self.serve("127.0.0.2", port):
            for _ in range(2):
                self.assertEqual(await self.peer(port), "127.0.0.2")
        self.assertEqual(self.lookups, 3)

"""The address of the firewall: looked up once, and again when it has moved."""

import asyncio
import socket
import unittest
from unittest import mock

from egress.firewall import Firewall


class Address(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.firewall = Firewall(1, 1)
        self.addresses = ["127.0.0.1"]
        self.lookups = 0
        loop = asyncio.get_running_loop()
        patch = mock.patch.object(loop, "getaddrinfo", self.look_up)
        patch.start()
        self.addCleanup(patch.stop)

    async def look_up(self, host, port, **_):
        self.assertEqual(host, "pipelock")
        self.lookups += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def serve(self, address: str, port: int = 0) -> tuple[asyncio.Server, int]:
        server = await asyncio.start_server(lambda _, writer: writer.close(), address, port)
        return server, server.sockets[0].getsockname()[1]

    async def peer(self, port: int) -> str:
        _, writer = await self.firewall.connect(("pipelock", port))
        writer.close()
        return writer.get_extra_info("peername")[0]

    async def test_it_is_looked_up_once(self):
        server, port = await self.serve("127.0.0.1")
        async with server:
            for _ in range(5):
                self.assertEqual(await self.peer(port), "127.0.0.1")
        self.assertEqual(self.lookups, 1)

    async def test_and_again_after_a_minute(self):
        server, port = await self.serve("127.0.0.1")
        async with server:
            with mock.patch("egress.firewall._ADDRESS_SECONDS", 0):
                await self.peer(port)
            await self.peer(port)
        self.assertEqual(self.lookups, 2)

    async def test_a_firewall_that_has_moved_is_found_at_once(self):
        server, port = await self.serve("127.0.0.1")
        async with server:
            await self.peer(port)
        self.addresses = ["127.0.0.2"]
        moved, _ = await self.serve("127.0.0.2", port)
        async with moved:
            self.assertEqual(await self.peer(port), "127.0.0.2")
            self.assertEqual(await self.peer(port), "127.0.0.2")
        self.assertEqual(self.lookups, 2)

    async def test_without_one_the_connection_fails(self):
        server, port = await self.serve("127.0.0.1")
        async with server:
            await self.peer(port)
        for _ in range(2):
            with self.assertRaises(ConnectionRefusedError):
                await self.peer(port)


if __name__ == "__main__":
    unittest.main()

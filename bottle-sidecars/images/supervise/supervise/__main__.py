"""Starts the sidecar: checks the settings and opens the port. The first request loads the SDK, which is slow."""

import asyncio
import gc
import logging
import os
import signal
import sys

from .http_server import Application, server
from .proposals import Queue, QueueError
from .settings import Settings, SettingsError

_SETTLE_SECONDS = 1.0


def main() -> int:
    """Run until a signal."""
    logging.basicConfig(level=logging.ERROR, format="supervise: %(message)s")
    try:
        settings = Settings.from_env(os.environ)
        queue = Queue(settings.queue_dir, settings.decisions_dir, settings.slug)
    except (SettingsError, QueueError) as error:
        print(f"supervise: {error}", file=sys.stderr)
        return 1
    try:
        return asyncio.run(_serve(settings, queue))
    finally:
        queue.close()


async def _serve(settings: Settings, queue: Queue) -> int:
    application = Application()
    http = server(application, settings.port)

    def stop(*_: object) -> None:
        http.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)

    async def run_endpoint() -> None:
        # Half a second of processor time, which would slow down the launch of the bottle that this is a part of.
        await application.asked.wait()
        tools = await asyncio.to_thread(_load_tools)
        manager = tools(settings, queue, lambda: http.should_exit).manager()
        async with manager.run():
            application.endpoint.set_result(manager.handle_request)
            await asyncio.Event().wait()

    async def settle() -> None:
        # A decision is logged soon after it was made, whether or not the agent asks for it.
        while True:
            await asyncio.sleep(_SETTLE_SECONDS)
            queue.pending()

    settling = asyncio.create_task(settle())
    running = asyncio.create_task(run_endpoint())
    # The server is of no use without the endpoint, so it ends with it.
    running.add_done_callback(stop)
    await http.serve()
    failed = running.done()
    running.cancel()
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    await asyncio.gather(running, return_exceptions=not failed)
    return 1 if failed else 0


def _load_tools() -> type:
    # Loading creates about 100,000 objects that stay. Garbage collection would take a third of the loading time.
    gc.disable()
    from .tools import Tools

    gc.freeze()
    gc.enable()
    return Tools


sys.exit(main())

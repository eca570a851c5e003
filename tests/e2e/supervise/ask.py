"""The official SDK's client: reads a list of [tool, arguments], calls each, and prints what it answered, a line each."""

import asyncio
import json
import sys
import time

from mcp import Client


async def main() -> None:
    async with Client("http://supervise:9100/mcp") as client:
        for tool, arguments in json.load(sys.stdin):
            began = time.time()
            if tool == "list_tools":
                told = {"tools": [listed.name for listed in (await client.list_tools()).tools]}
            else:
                result = await client.call_tool(tool, arguments)
                told = {
                    "is_error": result.is_error, "text": result.content[0].text, "data": result.structured_content,
                }
            print(json.dumps(told | {"began": began, "ended": time.time()}), flush=True)


asyncio.run(main())

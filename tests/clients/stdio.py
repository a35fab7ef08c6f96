"""The official Python SDK, of the 1.x line, speaks standard input and output to `ringfence stdio`, as desktop clients do."""

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main(url: str, ringfence: str, state: str) -> None:
    server = StdioServerParameters(command=ringfence, args=["stdio", "--connect", url], env={"XDG_STATE_HOME": state})
    async with stdio_client(server) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            done = await session.call_tool("get_user_monthly_metrics", {"user_id": "u-1", "month": "2026-10"})
            refused = await session.call_tool("execute_sql", {"query": "DROP TABLE users"})
    print(json.dumps({
        "tools": [tool.name for tool in tools],
        "rows": done.structuredContent["rows"],
        "refused": refused.isError and refused.structuredContent["refusal"]["code"],
    }))


asyncio.run(main(*sys.argv[1:]))

"""The official Python SDK, of the 2.x line, speaks revision 2026-07-28 over standard input and output to `ringfence stdio`."""

import asyncio
import json
import sys

from mcp import Client, StdioServerParameters


async def main(url: str, ringfence: str, state: str) -> None:
    server = StdioServerParameters(command=ringfence, args=["stdio", "--connect", url], env={"XDG_STATE_HOME": state})
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
        done = await client.call_tool("get_user_monthly_metrics", {"user_id": "u-1", "month": "2026-10"})
        refused = await client.call_tool("execute_sql", {"query": "DROP TABLE users"})
        revision = client.protocol_version
    print(json.dumps({
        "tools": [tool.name for tool in tools],
        "rows": done.structured_content["rows"],
        "refused": refused.is_error and refused.structured_content["refusal"]["code"],
        "revision": revision,
    }))


asyncio.run(main(*sys.argv[1:]))

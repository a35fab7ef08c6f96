"""The official Python SDK, of the 2.x line, speaks revision 2026-07-28: it discovers, lists the tools and calls one."""

import asyncio
import json
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
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

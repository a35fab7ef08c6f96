"""The official Python SDK, of the 1.x line, lists the tools and calls one, with a bearer token."""

import asyncio
import json
import sys

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        async with streamable_http_client(url, http_client=http) as (read, write, _):
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

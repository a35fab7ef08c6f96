"""LangChain's MCP adapters list the tools and call one, with a bearer token."""

import asyncio
import json
import sys

from langchain_core.tools import ToolException
from langchain_mcp_adapters.client import MultiServerMCPClient


async def main(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    client = MultiServerMCPClient({"ringfence": {"transport": "streamable_http", "url": url, "headers": headers}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    read = tools["get_user_monthly_metrics"]
    done = await read.ainvoke({"user_id": "u-1", "month": "2026-10"})
    text = done if isinstance(done, str) else done[0]["text"]
    try:
        refused = str(await read.ainvoke({"user_id": "1; DROP TABLE users", "month": "2026-10"}))
    except ToolException as error:
        refused = str(error)
    print(json.dumps({
        "tools": list(tools),
        "rows": json.loads(text)["rows"],
        "refused": "argument_invalid" in refused and "argument_invalid",
    }))


asyncio.run(main(*sys.argv[1:]))

"""The official Python SDK, of the 1.x line, logs in by its own OAuth code, calls, refreshes, and calls again."""

import asyncio
import json
import sys

import httpx
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from person import BACK, Kept


async def main(url: str, user: str, further: str | None = None) -> None:
    kept = Kept(user)

    async def heard():
        return kept.heard["code"], kept.heard["state"]

    metadata = OAuthClientMetadata(client_name="ringfence-tests", redirect_uris=[BACK], token_endpoint_auth_method="none")
    auth = OAuthClientProvider(url, metadata, kept, redirect_handler=kept.open, callback_handler=heard)
    async with httpx.AsyncClient(auth=auth, timeout=30) as http:
        async with streamable_http_client(url, http_client=http) as (read, write, _):
            async with ClientSession(read, write) as session:
                await session.initialize()
                tools = (await session.list_tools()).tools
                arguments = {"user_id": "u-1", "month": "2026-10"}
                before = await session.call_tool("get_user_monthly_metrics", arguments)
                # As if its time were over.
                auth.context.token_expiry_time = 1
                after = await session.call_tool("get_user_monthly_metrics", arguments)
                # It takes a second login, for a further scope.
                seen = (await session.call_tool(further, {})).structuredContent if further else None
    print(json.dumps(kept.shown(tools, before.structuredContent, after.structuredContent, seen)))


asyncio.run(main(*sys.argv[1:]))

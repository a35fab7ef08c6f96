// The official TypeScript SDK lists the tools and calls one, with a bearer token.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const client = new Client({ name: "ringfence-tests", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
const { tools } = await client.listTools();
const call = (name, args) => client.callTool({ name, arguments: args });
const done = await call("get_user_monthly_metrics", { user_id: "u-1", month: "2026-10" });
const refused = await call("execute_sql", { query: "DROP TABLE users" });
await client.close();
console.log(JSON.stringify({
  tools: tools.map((tool) => tool.name),
  rows: done.structuredContent.rows,
  refused: refused.isError && refused.structuredContent.refusal.code,
}));

// The official TypeScript SDK, of the 1.x line, logs in by its own OAuth code.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as Transport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { loginAndCall } from "./person.mjs";

const [url, user] = process.argv.slice(2);
console.log(JSON.stringify(await loginAndCall({ Client, Transport, url, user })));

// The official TypeScript SDK, of the 1.x line, logs in by its own OAuth code.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as Transport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { loginAndCall } from "./person.mjs";

// For a further scope this line refreshes where it can, which gives none: it has to have nothing to refresh with.
const [url, user, further] = process.argv.slice(2);
console.log(JSON.stringify(await loginAndCall({ Client, Transport, url, user, further, refreshesInstead: true })));

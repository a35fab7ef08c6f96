// The official TypeScript client, of the 2.x line, logs in by its own OAuth code.
import { Client, StreamableHTTPClientTransport as Transport } from "@modelcontextprotocol/client";
import { loginAndCall } from "./person.mjs";

const [url, user, further] = process.argv.slice(2);
console.log(JSON.stringify(await loginAndCall({ Client, Transport, url, user, further })));

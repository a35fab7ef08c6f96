// mcp-remote, the bridge by which desktop clients that speak standard input and output alone reach a server, logs in.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { logIn } from "./person.mjs";

const [url, user] = process.argv.slice(2);
const folder = await mkdtemp(join(tmpdir(), "mcp-remote-"));
const bridge = spawn(process.execPath, [new URL("node_modules/mcp-remote/dist/proxy.js", import.meta.url).pathname, url], {
  // No browser: the person below is one.
  env: { ...process.env, MCP_REMOTE_CONFIG_DIR: folder, PATH: "", DISPLAY: "" },
});
const send = (message) => bridge.stdin.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const answers = new Map();
const answer = (id) => new Promise((resolve) => answers.set(id, resolve));

// It names the address a moment before it listens for the answer: no person is as fast as this one.
const back = async (to) => {
  for (let tries = 0; ; tries += 1) {
    try {
      return await fetch(to);
    } catch (error) {
      if (error.cause?.code !== "ECONNREFUSED" || tries === 100) throw error;
      await pause(100);
    }
  }
};

let said = "";
let logins = 0;
bridge.stderr.on("data", async (data) => {
  said += data;
  const address = said.match(/(http\S+\/authorize\?\S+)\s/)?.[1];
  if (address && logins === 0) {
    logins += 1;
    await back((await logIn(address, user)).to);
  }
});
let heard = "";
bridge.stdout.on("data", (data) => {
  const lines = (heard += data).split("\n");
  heard = lines.pop();
  for (const line of lines) {
    const message = JSON.parse(line);
    answers.get(message.id)?.(message.result);
  }
});
bridge.on("exit", (code) => {
  console.error(`mcp-remote ended with ${code}: ${said}`);
  process.exit(1);
});

const initialized = answer(1);
send({ id: 1, method: "initialize", params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "desktop", version: "1" } } });
await initialized;
send({ method: "notifications/initialized" });
const [listed, called] = [answer(2), answer(3)];
send({ id: 2, method: "tools/list" });
send({ id: 3, method: "tools/call", params: { name: "get_user_monthly_metrics", arguments: { user_id: "u-1", month: "2026-10" } } });
const [{ tools }, done] = await Promise.all([listed, called]);
bridge.removeAllListeners("exit");
bridge.kill();
await rm(folder, { recursive: true, force: true });
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), rows: done.structuredContent.rows, logins }));
process.exit(0);

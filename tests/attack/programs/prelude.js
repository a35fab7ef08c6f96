// What every Node program begins with, as prelude.py does for Python.
const fs = require("node:fs");
const net = require("node:net");
const { spawnSync } = require("node:child_process");
const say = (...words) => console.log(...words);
async function attempt(what, attack) {
  let result;
  try { result = await attack(); } catch (error) { say("refused", what, "-", error.code ?? error.name); return; }
  if (result === false || result === undefined || result === "") { say("refused", what); return; }
  say("reached", what);
  if (typeof result === "string") say(result);
}
const reads = (path) => () => fs.readFileSync(path, "utf8").slice(0, 4096);
const exists = (path) => () => fs.lstatSync(path) !== undefined;
const runs = (command, ...words) => () => spawnSync(command, words, { timeout: 5000 }).status === 0;
const connects = (...address) => () => new Promise((resolve, reject) => {
  const client = net.connect(...address);
  client.setTimeout(500, () => client.destroy(new Error("slow")));
  client.once("data", (data) => { resolve(data.toString().slice(0, 400)); client.destroy(); });
  client.once("error", reject);
  client.once("close", () => resolve(false));
});

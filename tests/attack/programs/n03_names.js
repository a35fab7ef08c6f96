const { Resolver } = require("node:dns").promises;
const resolver = new Resolver({ timeout: 300, tries: 1 });
resolver.setServers(["10.0.0.2"]);
await attempt("a question to a name server", async () => {
  try { await resolver.resolve4("canary.attacker.test"); } catch (error) { if (error.code !== "ETIMEOUT" && error.code !== "EBADRESP") throw error; }
  return true;
});

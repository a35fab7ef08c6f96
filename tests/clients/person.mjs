// The person at the browser: opens the login page, chooses a user, and is sent back. Gives where to, and what the client hears.
export async function logIn(address, user) {
  const page = await fetch(address);
  const html = await page.text();
  if (page.status !== 200) throw new Error(`the login page: ${page.status} ${html}`);
  const hidden = (name) => html.match(new RegExp(`name="${name}" value="([^"]*)"`))[1].replaceAll("&#38;", "&");
  const body = new URLSearchParams({ request: hidden("request"), seal: hidden("seal"), user, answer: "allow" });
  const action = new URL("/authorize", address);
  const answer = await fetch(action, { method: "POST", body, redirect: "manual" });
  if (answer.status !== 303) throw new Error(`the login: ${answer.status} ${await answer.text()}`);
  const to = new URL(answer.headers.get("location"));
  return { to, heard: to.searchParams };
}

// What a client keeps of its login, in memory.
export class Kept {
  redirectUrl = "http://127.0.0.1:4711/callback";
  clientMetadata = {
    client_name: "ringfence-tests",
    redirect_uris: [this.redirectUrl],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  };
  heard = undefined;
  logins = 0;
  given = [];

  constructor(user) {
    this.user = user;
  }
  state() {
    return (this.sent = crypto.randomUUID());
  }
  clientInformation() {
    return this.client;
  }
  saveClientInformation(client) {
    this.client = client;
  }
  tokens() {
    return this.now;
  }
  saveTokens(tokens) {
    this.now = tokens;
    this.given.push(tokens);
  }
  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }
  codeVerifier() {
    return this.verifier;
  }
  saveDiscoveryState(discovery) {
    this.discovery = discovery;
  }
  discoveryState() {
    return this.discovery;
  }
  async redirectToAuthorization(address) {
    this.logins += 1;
    this.heard = (await logIn(address, this.user)).heard;
    if (this.heard.get("state") !== this.sent) throw new Error("another state");
    if (this.heard.get("iss") !== address.origin) throw new Error("another issuer");
  }
  // As if its time were over: the gateway refuses it, and the client has to refresh.
  spoil() {
    this.now = { ...this.now, access_token: "spoilt" };
  }
}

// Logs in, calls, refreshes, calls again.
export async function loginAndCall({ Client, Transport, url, user, options = {} }) {
  const kept = new Kept(user);
  const transport = () => new Transport(new URL(url), { authProvider: kept });
  const connect = async (through) => {
    const client = new Client({ name: "ringfence-tests", version: "1" }, options);
    await client.connect(through);
    return client;
  };
  const first = transport();
  const refused = await connect(first).then(() => undefined, (error) => error);
  if (!kept.heard) throw refused ?? new Error("nobody had to log in");
  await first.finishAuth(kept.heard.get("code"), kept.heard.get("iss"));
  const client = await connect(transport());
  const call = () => client.callTool({ name: "get_user_monthly_metrics", arguments: { user_id: "u-1", month: "2026-10" } });
  const { tools } = await client.listTools();
  const before = await call();
  kept.spoil();
  const after = await call();
  await client.close();
  return {
    tools: tools.map((tool) => tool.name),
    rows: before.structuredContent.rows,
    rows_after_refresh: after.structuredContent.rows,
    logins: kept.logins,
    tokens: kept.given.length,
    rotated: kept.given[0].refresh_token !== kept.given.at(-1).refresh_token,
    client_id: kept.client.client_id,
  };
}

// The person at the browser: opens the login page, chooses a user, and is sent back. Gives where to, and what the client hears.
export async function logIn(address, user) {
  const cookies = new Map();
  const open = async (url, form) => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const body = form && new URLSearchParams(form);
    const answer = await fetch(url, { method: form ? "POST" : "GET", body, headers: { cookie }, redirect: "manual" });
    for (const set of answer.headers.getSetCookie()) cookies.set(...set.split(";")[0].split("=", 2));
    return answer;
  };
  let [url, answer] = [new URL(address), await open(address)];
  // Some show one page, some a second one that asks for consent.
  for (let steps = 0; steps < 10; steps += 1) {
    if (answer.status === 303 || answer.status === 302) {
      const to = new URL(answer.headers.get("location"), url);
      if (to.origin !== new URL(address).origin) return { to, heard: to.searchParams };
      answer = await open((url = to));
      continue;
    }
    const html = await answer.text();
    if (answer.status !== 200) throw new Error(`the login page ${url}: ${answer.status} ${html}`);
    const [, action] = html.match(/<form[^>]* action="([^"]*)"/);
    const hidden = [...html.matchAll(/type="hidden" name="([^"]*)" value="([^"]*)"/g)];
    const form = Object.fromEntries(hidden.map(([, name, value]) => [name, value.replaceAll("&#38;", "&")]));
    answer = await open((url = new URL(action, url)), { ...form, user, answer: "allow", login: user, password: "p" });
  }
  throw new Error("the login does not end");
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
    this.asked = address.searchParams.get("scope");
    this.heard = (await logIn(address, this.user)).heard;
    if (this.heard.get("state") !== this.sent) throw new Error("another state");
    if (this.heard.get("iss") !== address.origin) throw new Error("another issuer");
  }
  // As if its time were over: the gateway refuses it, and the client has to refresh.
  spoil() {
    this.now = { ...this.now, access_token: "spoilt" };
  }
}

// Logs in, calls, refreshes, calls again; then calls this tool, where one is named, which takes a second login for a further scope.
export async function loginAndCall({ Client, Transport, url, user, further, refreshesInstead, options = {} }) {
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
  const second = transport();
  const client = await connect(second);
  const call = () => client.callTool({ name: "get_user_monthly_metrics", arguments: { user_id: "u-1", month: "2026-10" } });
  const { tools } = await client.listTools();
  const before = await call();
  kept.spoil();
  const after = await call();
  const steppedUp = further && await stepUp();
  await client.close();
  async function stepUp() {
    if (refreshesInstead) kept.now = { ...kept.now, refresh_token: undefined };
    const sent = () => client.callTool({ name: further, arguments: {} });
    const refused = await sent().then(() => undefined, (error) => error);
    if (kept.logins !== 2) throw refused ?? new Error("nobody had to log in again");
    await second.finishAuth(kept.heard.get("code"), kept.heard.get("iss"));
    return { asked: kept.asked, seen: (await sent()).structuredContent };
  }
  return {
    tools: tools.map((tool) => tool.name),
    rows: before.structuredContent.rows,
    rows_after_refresh: after.structuredContent.rows,
    logins: kept.logins,
    tokens: kept.given.length,
    rotated: kept.given[0].refresh_token !== kept.given.at(-1).refresh_token,
    client_id: kept.client.client_id,
    ...(further && { stepped_up: steppedUp }),
  };
}

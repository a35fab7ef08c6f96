// An authorization server that knows nothing of this project: oidc-provider, and a system behind it that believes its tokens.
// Takes `{ "audiences": { URL: "SCOPES" }, "format": "jwt" | "opaque" }`, the resources beside the system; prints where both are.
import { createServer } from "node:http";
import Provider, { errors } from "oidc-provider";
import { createLocalJWKSet, createRemoteJWKSet, exportJWK, generateKeyPair, jwtVerify } from "jose";

const { audiences, format } = JSON.parse(process.argv[2]);
// Where it is, is all that goes to standard output.
console.info = console.error;
const USERS = {
  bob: { groups: ["analysts", "coders"], tenant: "acme" },
  eve: { groups: ["analysts"], tenant: "globex" },
};
const SECRET = "a-secret-of-the-tests";
const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";

const listen = async (server) => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
};
const [server, system] = [createServer(), createServer()];
const [issuer, place] = [await listen(server), await listen(system)];

const { privateKey } = await generateKeyPair("ES256", { extractable: true });
const key = { ...await exportJWK(privateKey), kid: "1", alg: "ES256", use: "sig" };
const disabled = new Set();
const seen = { exchanges: 0, introspections: 0 };
const resource = (scope, accessTokenFormat) => ({ scope, accessTokenFormat, accessTokenTTL: 600, jwt: { sign: { alg: "ES256" } } });

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  cookies: { keys: [SECRET] },
  clients: [
    { client_id: "gateway", client_secret: SECRET, grant_types: [EXCHANGE], redirect_uris: [], response_types: [] },
    {
      client_id: "desk", client_secret: SECRET, grant_types: ["authorization_code", "client_credentials"],
      redirect_uris: ["http://127.0.0.1:4711/callback"],
    },
  ],
  findAccount: (_, id) => (USERS[id] && !disabled.has(id) ? { accountId: id, claims: () => ({ sub: id }) } : undefined),
  // An application is its own subject (RFC 9068 section 2.2), also where the issuer is asked about its token.
  extraTokenClaims: (ctx, { accountId, clientId }) => ({ ...USERS[accountId], ...(!accountId && { sub: clientId, groups: [] }), act: ctx.acts }),
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token"),
  expiresWithSession: () => false,
  features: {
    registration: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_, client, token) => client.clientId === "gateway" && !disabled.has(token.accountId) },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, indicator) => {
        if (!Object.hasOwn(audiences, indicator)) throw new errors.InvalidTarget();
        return resource(audiences[indicator], format);
      },
    },
  },
});

// Signed tokens are kept by their name, as opaque ones are by themselves, so that they can be asked about, revoked and exchanged.
const keep = (token) => {
  const { jti, kind, accountId, clientId, grantId, gty, scope, aud, extra, expiration } = token;
  const now = Math.floor(Date.now() / 1000);
  const kept = { jti, kind, accountId, clientId, grantId, gty, scope, aud, extra, iat: now, exp: now + expiration };
  return provider[kind].adapter.upsert(jti, kept, expiration);
};
provider.on("access_token.issued", keep);
provider.on("client_credentials.issued", keep);
const keys = createLocalJWKSet({ keys: [{ ...key, d: undefined }] });
const nameOf = async (token) => {
  if (token.split(".").length !== 3) return token;
  return jwtVerify(token, keys, { issuer, typ: "at+jwt" }).then(({ payload }) => payload.jti, () => "none");
};

provider.registerGrantType(EXCHANGE, async (ctx) => {
  const { client, params } = ctx.oidc;
  const subject = await provider.AccessToken.find(await nameOf(params.subject_token ?? ""));
  if (!subject?.isValid || disabled.has(subject.accountId)) throw new errors.InvalidGrant("the subject token");
  if (params.audience !== place) throw new errors.InvalidTarget();
  if (params.scope !== "metrics:read") throw new errors.InvalidScope("the scope", params.scope);
  seen.exchanges += 1;
  ctx.acts = { sub: client.clientId, act: { sub: subject.clientId } };
  const token = new provider.AccessToken({ accountId: subject.accountId, client, gty: "exchange", scope: params.scope, expiresIn: 60 });
  token.resourceServer = new provider.ResourceServer(place, resource(params.scope, "jwt"));
  const [access_token, issued_token_type] = [await token.save(), "urn:ietf:params:oauth:token-type:access_token"];
  ctx.body = { access_token, issued_token_type, token_type: "Bearer", expires_in: 60, scope: params.scope };
}, ["subject_token", "subject_token_type", "requested_token_type", "audience", "scope"]);

provider.use(async (ctx, next) => {
  if (ctx.path === "/tests/disable") {
    disabled.add(ctx.query.user);
    ctx.body = {};
    return;
  }
  if (ctx.path === "/tests/seen") {
    ctx.body = seen;
    return;
  }
  if (/^\/(token\/(introspection|revocation)|reg)$/.test(ctx.path) && ctx.method === "POST") {
    let text = "";
    for await (const chunk of ctx.req) text += chunk;
    ctx.req.body = ctx.path === "/reg" ? JSON.parse(text) : Object.fromEntries(new URLSearchParams(text));
    // What a client registers with is what it was first asked for: it would bar it from asking for more.
    delete ctx.req.body.scope;
    if (ctx.req.body.token) ctx.req.body.token = await nameOf(ctx.req.body.token);
    seen.introspections += Number(ctx.path.endsWith("introspection"));
  }
  await next();
});
server.on("request", provider.callback());

// The system: it fetches the issuer's keys, and says whom it sees.
const published = createRemoteJWKSet(new URL(`${issuer}/jwks`));
system.on("request", async (request, answer) => {
  const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
  const verified = await jwtVerify(token, published, { issuer, audience: place, typ: "at+jwt" }).catch(() => undefined);
  const { sub: user, act: actor, aud: audience, scope } = verified?.payload ?? {};
  answer.writeHead(verified ? 200 : 401, { "content-type": "application/json" });
  answer.end(JSON.stringify({ user, actor, audience, scope }));
});
console.log(JSON.stringify({ issuer, system: place }));

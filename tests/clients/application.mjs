// An application's backend, as the issuer knows it: a token of its own, and one of the user that logged in to it.
import { createHash, randomBytes } from "node:crypto";
import { logIn } from "./person.mjs";

const [issuer, resource, user, secret] = process.argv.slice(2);
const back = "http://127.0.0.1:4711/callback";
const authorization = `Basic ${btoa(`desk:${secret}`)}`;
const token = async (form) => {
  const body = new URLSearchParams({ ...form, resource, scope: "tools" });
  const answer = await fetch(`${issuer}/token`, { method: "POST", headers: { authorization }, body });
  if (answer.status !== 200) throw new Error(await answer.text());
  return (await answer.json()).access_token;
};
const verifier = randomBytes(32).toString("base64url");
const asked = {
  client_id: "desk", response_type: "code", redirect_uri: back, resource, scope: "tools", state: "s",
  code_challenge: createHash("sha256").update(verifier).digest("base64url"), code_challenge_method: "S256",
};
const { heard } = await logIn(`${issuer}/auth?${new URLSearchParams(asked)}`, user);
console.log(JSON.stringify({
  application_token: await token({ grant_type: "client_credentials" }),
  user_token: await token({ grant_type: "authorization_code", code: heard.get("code"), redirect_uri: back, code_verifier: verifier }),
}));

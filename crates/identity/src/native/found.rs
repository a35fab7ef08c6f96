//! From a gateway's address to a client that a user can log in with: RFC 9728, RFC 8414, RFC 7591, in this order.

use ringfence_core::Instant;
use serde_json::{Value, json};
use url::Url;

use super::kept::Origin;
use super::{Login, NoLogin};
use crate::Endpoint;
use crate::challenge::metadata_url;
use crate::credential::ClientSettings;
use crate::discovery::{documents, published};
use crate::fetch::{self, Fetcher, NoAnswer};
use crate::login::{CodeClient, CodeClientSettings, NotLoggedIn, Pending, Returned};

/// The longest name of a client, in bytes: it can be an address.
const CLIENT_ID_MAX: usize = 2048;
/// The scope by which some issuers are asked for a refresh token (OpenID Connect Core §11).
const OFFLINE: &str = "offline_access";

/// What a gateway says of itself, as far as a login needs it.
pub struct Gateway {
    resource: String,
    /// By their names, and where each may be asked on the gateway's word alone.
    issuers: Vec<(String, Option<Endpoint>)>,
    scopes: Vec<String>,
}

/// An issuer where the user can log in.
pub struct Found {
    resource: String,
    issuer: String,
    scopes: Vec<String>,
    authorization_endpoint: Endpoint,
    token_endpoint: Endpoint,
    registration_endpoint: Option<Endpoint>,
    revocation_endpoint: Option<Endpoint>,
    /// It says that it names itself in every answer (RFC 9207 §3).
    names_itself: bool,
}

/// A client that one user can log in with.
pub struct NativeClient {
    code: CodeClient,
    found: Found,
    client_id: String,
    redirect_uri: String,
    scopes: Vec<String>,
}

fn texts(document: &Value, name: &str) -> Vec<String> {
    let list = document.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Gateway {
    /// Asks the gateway whose `/mcp` has this address.
    pub async fn at(address: &str) -> Result<Self, NoLogin> {
        let own = Endpoint::internal(address).map_err(|_| NoLogin::Address(address.to_owned()))?;
        let unanswered = |why: NoAnswer| NoLogin::Gateway(address.to_owned(), why.0);
        let document = Endpoint::internal(&metadata_url(address));
        let document = document.map_err(|_| NoLogin::Address(address.to_owned()))?;
        let fetcher = Fetcher::to(&document).map_err(unanswered)?;
        let (status, metadata) = fetch::json(fetcher.get(&document)).await.map_err(unanswered)?;
        if status != 200 {
            return Err(NoLogin::Gateway(address.to_owned(), format!("it answered {status}")));
        }
        Self::described(address, &own, &metadata)
    }

    /// RFC 9728 §3.3: a document about anything else MUST NOT be used.
    fn described(address: &str, own: &Endpoint, metadata: &Value) -> Result<Self, NoLogin> {
        let resource = metadata.get("resource").and_then(Value::as_str).unwrap_or_default();
        if resource != address {
            let shown = Url::parse(resource).map_or_else(|_| "nothing".to_owned(), String::from);
            return Err(NoLogin::Resource(shown));
        }
        if metadata.get("dpop_bound_access_tokens_required") == Some(&Value::Bool(true)) {
            return Err(NoLogin::Bound);
        }
        let named = texts(metadata, "authorization_servers").into_iter();
        let issuers = named.map(|name| (own.names(&name).ok(), name)).map(|(at, name)| (name, at));
        let scopes = texts(metadata, "scopes_supported");
        Ok(Self { resource: address.to_owned(), issuers: issuers.collect(), scopes })
    }

    /// One that is known without asking it: the operator's word for its resource, its issuers and its scopes.
    #[must_use]
    pub fn known(resource: String, issuers: Vec<String>, scopes: Vec<String>) -> Self {
        let issuers = issuers.into_iter().map(|name| (Endpoint::internal(&name).ok(), name));
        Self { resource, issuers: issuers.map(|(at, name)| (name, at)).collect(), scopes }
    }

    /// The issuer that is meant: the one that the user names, wherever it is, or the first that the gateway may send a user to.
    fn chosen(&self, wanted: Option<&str>) -> Result<(String, Endpoint), NoLogin> {
        let mut issuers = self.issuers.iter();
        let chosen = match wanted {
            Some(wanted) => issuers
                .find(|(name, _)| name == wanted)
                .and_then(|(name, _)| Some((name, Endpoint::internal(name).ok()?))),
            None => issuers.find_map(|(name, at)| Some((name, at.clone()?))),
        };
        let shown = || {
            let urls = self.issuers.iter().filter_map(|(name, _)| Endpoint::internal(name).ok());
            urls.map(|at| format!("`{}`", at.url())).collect::<Vec<_>>().join(", ")
        };
        chosen.map(|(name, at)| (name.clone(), at)).ok_or_else(|| NoLogin::NotItsIssuer(shown()))
    }

    /// Asks an issuer of the gateway: this one, or the first.
    pub async fn issuer(self, wanted: Option<&str>) -> Result<Found, NoLogin> {
        let (issuer, at) = self.chosen(wanted)?;
        let unsound = |why: String| NoLogin::Issuer(issuer.clone(), why);
        let documents = documents(&at).map_err(|why| unsound(why.0))?;
        let fetcher = Fetcher::to(&at).map_err(|why| unsound(why.0))?;
        let found = published(&fetcher, &documents, &issuer).await.map_err(|why| unsound(why.0))?;
        let nowhere = || unsound("it publishes no metadata".to_owned());
        let (document, metadata) = found.ok_or_else(nowhere)?;
        let lacking = |name: &str| unsound(format!("its metadata names no `{name}` that may be asked"));
        let endpoint = |name: &str| {
            let text = metadata.get(name).and_then(Value::as_str);
            text.map(|text| document.names(text).map_err(|_| lacking(name))).transpose()
        };
        // MCP, authorization, *code protection*: what does not say so is not used.
        if !texts(&metadata, "code_challenge_methods_supported").iter().any(|method| method == "S256") {
            return Err(unsound("it does not offer PKCE with `S256`".to_owned()));
        }
        let mut scopes = self.scopes;
        if !scopes.is_empty() && texts(&metadata, "scopes_supported").iter().any(|scope| scope == OFFLINE) {
            scopes.push(OFFLINE.to_owned());
        }
        let says = "authorization_response_iss_parameter_supported";
        Ok(Found {
            resource: self.resource,
            authorization_endpoint: endpoint("authorization_endpoint")?
                .ok_or_else(|| lacking("authorization_endpoint"))?,
            token_endpoint: endpoint("token_endpoint")?.ok_or_else(|| lacking("token_endpoint"))?,
            registration_endpoint: endpoint("registration_endpoint")?,
            revocation_endpoint: endpoint("revocation_endpoint")?,
            names_itself: metadata.get(says) == Some(&Value::Bool(true)),
            issuer,
            scopes,
        })
    }
}

impl Found {
    /// A client there: this one, or one that registers itself; for these scopes, or for all that the gateway names.
    pub async fn client(
        self,
        client_id: Option<String>,
        scopes: Vec<String>,
        redirect_uri: String,
    ) -> Result<NativeClient, NoLogin> {
        let client_id = match client_id {
            Some(client_id) => client_id,
            None => self.register(&redirect_uri).await?,
        };
        let scopes = if scopes.is_empty() { self.scopes.clone() } else { scopes };
        let code = CodeClient::new(CodeClientSettings {
            authorization_endpoint: self.authorization_endpoint.url().to_string(),
            client: ClientSettings {
                token_endpoint: self.token_endpoint.clone(),
                client_id: client_id.clone(),
                client_secret: None,
            },
            issuer: Some(self.issuer.clone()),
            resource: Some(self.resource.clone()),
            scopes: scopes.clone(),
        })?;
        Ok(NativeClient { code, found: self, client_id, redirect_uri, scopes })
    }

    /// RFC 7591 §3, as a public client (RFC 8252 §8.4). Gives its name.
    async fn register(&self, redirect_uri: &str) -> Result<String, NoLogin> {
        let refused = |why: &str| NoLogin::Unregistered(why.to_owned());
        let at = self.registration_endpoint.as_ref().ok_or_else(|| refused("nobody can there"))?;
        let metadata = json!({
            "client_name": "Ringfence (ringfence login)",
            "application_type": "native",
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        });
        let fetcher = Fetcher::to(at).map_err(|why| NoLogin::Unregistered(why.0))?;
        let asked = fetch::json(fetcher.post(at).json(&metadata)).await;
        let (status, answer) = asked.map_err(|why| NoLogin::Unregistered(why.0))?;
        if status != 201 && status != 200 {
            return Err(NoLogin::Unregistered(format!("it answered {status}")));
        }
        if answer.get("token_endpoint_auth_method").is_some_and(|method| method != "none") {
            return Err(refused("it gives secrets to all clients"));
        }
        let name = answer.get("client_id").and_then(Value::as_str).unwrap_or_default();
        let is_name = (1..=CLIENT_ID_MAX).contains(&name.len())
            && name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        is_name.then(|| name.to_owned()).ok_or_else(|| refused("it gave no name"))
    }
}

impl NativeClient {
    /// Where to send the user's browser, and what to keep meanwhile.
    pub fn begin(&self) -> Result<(String, Pending), NoLogin> {
        self.code.begin(&self.redirect_uri).ok_or(NoLogin::Randomness)
    }

    /// The login of the user who came back.
    pub async fn finish(
        &self,
        pending: &Pending,
        returned: Returned,
        now: Instant,
    ) -> Result<Login, NoLogin> {
        // One that always names itself and does not here was left out by somebody in between (RFC 9207 §2.4).
        if self.found.names_itself && !returned.names_issuer() {
            return Err(NotLoggedIn::Issuer.into());
        }
        let scopes = self.scopes.iter().map(String::as_str).collect();
        let asked = (!self.scopes.is_empty()).then_some(&scopes);
        let answered = self.code.redeem(pending, returned, asked, now).await?;
        Ok(Login::new(&self.found, &self.client_id, &self.scopes, answered, now))
    }

    /// The gateway that it is for.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.found.resource
    }

    /// Who is asked, as people know it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.found.issuer
    }
}

impl Found {
    pub(super) fn origin(&self) -> Origin {
        let text = |endpoint: &Endpoint| endpoint.url().to_string();
        Origin {
            resource: self.resource.clone(),
            issuer: self.issuer.clone(),
            authorization_endpoint: text(&self.authorization_endpoint),
            token_endpoint: text(&self.token_endpoint),
            revocation_endpoint: self.revocation_endpoint.as_ref().map(text),
        }
    }
}

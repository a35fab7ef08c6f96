//! An issuer that runs, and what a client does at it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::header::{HeaderMap, LOCATION};
use ringfence_core::{Digest, Instant, Secret};
use serde_json::Value;
use url::Url;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::development::{Client, Grant, Issuer, IssuerSettings, Logins, RedirectUri, User, new_key, router};

pub(super) const NOW: u64 = 1_800_000_000_000;
pub(super) const AGENTS: &str = "http://127.0.0.1:8787/mcp";
pub(super) const PEOPLE: &str = "http://127.0.0.1:8788";
pub(super) const TICKETS: &str = "https://tickets.example.com";
pub(super) const BACK: &str = "https://app.example.com/cb";
pub(super) const SECRET: &str = "a secret with : and % and +";
pub(super) const VERIFIER: &str = "a-verifier-of-forty-three-letters-or-more-1234";

pub(super) struct House {
    pub(super) issuer: Arc<Issuer>,
    pub(super) base: String,
    pub(super) http: reqwest::Client,
    clock: Arc<AtomicU64>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) fn user(tenant: &str) -> User {
    let claims = BTreeMap::from([("tenant".to_owned(), tenant.to_owned())]);
    User { groups: vec!["analysts".into()], claims, disabled: false }
}

fn client(id: &str, secret: Option<&str>, grants: &[Grant]) -> Client {
    let redirects = [BACK, "http://127.0.0.1/cb"].map(|text| RedirectUri::new(text).unwrap());
    Client {
        id: id.into(),
        name: Some(format!("The <{id}>")),
        secret: secret.map(|text| Secret::new(text.into())),
        redirect_uris: redirects.into(),
        grants: grants.iter().copied().collect(),
        may_exchange: BTreeMap::new(),
    }
}

fn scopes(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub(super) type Form<'a> = &'a [(&'a str, &'a str)];

/// What came back.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Came {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("{name}: {self:?}")).to_owned()
    }

    /// Status and error code.
    pub(super) fn error(&self) -> (u16, String) {
        (self.status, self.text("error"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Where the browser is sent, in two: the address, and the answer.
    pub(super) fn sent_back(&self) -> (String, BTreeMap<String, String>) {
        assert_eq!(self.status, 303, "{self:?}");
        let mut url = Url::parse(self.headers[LOCATION].to_str().unwrap()).unwrap();
        let answer = url.query_pairs().into_owned().collect();
        url.set_query(None);
        (url.into(), answer)
    }
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut IssuerSettings)) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let mut backend = client(
            "backend",
            Some(SECRET),
            &[Grant::AuthorizationCode, Grant::ClientCredentials, Grant::TokenExchange],
        );
        backend.may_exchange = BTreeMap::from([(AGENTS.to_owned(), scopes(&["tools", "admin"]))]);
        let mut settings = IssuerSettings {
            listen,
            groups_claim: "groups".into(),
            users: BTreeMap::from([("alice".into(), user("acme")), ("bob".into(), user("acme"))]),
            resources: vec![AGENTS.into(), PEOPLE.into()],
            downstream: BTreeMap::from([(TICKETS.into(), scopes(&["read", "edit"]))]),
            logins: Logins {
                scopes: vec!["tools".into()],
                further_scopes: scopes(&["mail.send"]),
                clients: vec![
                    client("app", None, &[Grant::AuthorizationCode]),
                    client("other", None, &[Grant::AuthorizationCode]),
                    backend,
                ],
                dynamic_registration: true,
                client_documents: true,
            },
        };
        change(&mut settings);
        let issuer = Arc::new(Issuer::new(&new_key().unwrap(), settings).unwrap());
        let clock = Arc::new(AtomicU64::new(NOW));
        let shown = clock.clone();
        let router = router(issuer.clone(), move || Instant(shown.load(Ordering::SeqCst)));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        Self { issuer, base: format!("http://{listen}"), http: http.build().unwrap(), clock, serving }
    }

    pub(super) fn now(&self) -> Instant {
        Instant(self.clock.load(Ordering::SeqCst))
    }

    pub(super) fn later(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> Came {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Came { status, headers, text: response.text().await.unwrap() }
    }

    pub(super) async fn get(&self, path: &str) -> Came {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    pub(super) async fn post(&self, path: &str, form: Form<'_>) -> Came {
        self.send(self.http.post(format!("{}{path}", self.base)).form(form)).await
    }

    /// As the gateway, or as `backend`.
    pub(super) async fn post_as(&self, id: &str, path: &str, form: Form<'_>) -> Came {
        let gateway = self.issuer.gateway_secret();
        let secret = if id == "backend" { SECRET } else { gateway.expose() };
        let form: Vec<_> =
            form.iter().copied().chain([("client_id", id), ("client_secret", secret)]).collect();
        self.post(path, &form).await
    }

    /// The authorization request of `app`, with some parameters changed; an empty one is left out.
    pub(super) fn request(changed: Form<'_>) -> String {
        let challenge = challenge();
        let mut asked = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", "app"),
            ("redirect_uri", BACK),
            ("state", "the state"),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ]);
        asked.extend(changed.iter().copied());
        asked.retain(|_, value| !value.is_empty());
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(asked).finish()
    }

    pub(super) async fn page(&self, changed: Form<'_>) -> Came {
        self.get(&format!("/authorize?{}", Self::request(changed))).await
    }

    /// Asks, and answers the page as this user.
    pub(super) async fn answer(&self, user: &str, changed: Form<'_>) -> Came {
        let page = self.page(changed).await;
        assert_eq!(page.status, 200, "{page:?}");
        let (request, seal) = (hidden(&page.text, "request"), hidden(&page.text, "seal"));
        let form = [("request", request.as_str()), ("seal", &seal), ("user", user), ("answer", "allow")];
        self.post("/authorize", &form).await
    }

    pub(super) async fn code(&self, user: &str, changed: Form<'_>) -> String {
        self.answer(user, changed).await.sent_back().1["code"].clone()
    }

    /// What `app` gets for a code, with some parameters changed.
    pub(super) async fn redeem(&self, code: &str, changed: Form<'_>) -> Came {
        self.post("/token", &pairs(&redemption(code, changed))).await
    }

    /// What `app` gets when this user logs in.
    pub(super) async fn login(&self, user: &str) -> Came {
        let came = self.redeem(&self.code(user, &[]).await, &[]).await;
        assert_eq!(came.status, 200, "{came:?}");
        came
    }

    pub(super) async fn refresh(&self, token: &str, changed: Form<'_>) -> Came {
        let mut form =
            BTreeMap::from([("grant_type", "refresh_token"), ("client_id", "app"), ("refresh_token", token)]);
        form.extend(changed.iter().copied());
        self.post("/token", &pairs(&form)).await
    }

    /// Whether the gateway is told that this token counts.
    pub(super) async fn is_active(&self, token: &str) -> bool {
        let came = self.post_as("ringfence-gateway", "/introspect", &[("token", token)]).await;
        came.json()["active"].as_bool().unwrap()
    }

    /// The claims of a token that is good at this door.
    pub(super) async fn claims(&self, token: &str, audience: &str) -> Value {
        let check = self.issuer.check(audience).unwrap();
        Value::Object(check.check(&Secret::new(token.to_owned()), self.now()).await.unwrap().claims)
    }
}

pub(super) fn redemption<'a>(code: &'a str, changed: Form<'a>) -> BTreeMap<&'a str, &'a str> {
    let mut form = BTreeMap::from([
        ("grant_type", "authorization_code"),
        ("client_id", "app"),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
        ("code", code),
    ]);
    form.extend(changed.iter().copied());
    form
}

pub(super) fn pairs<'a>(form: &BTreeMap<&'a str, &'a str>) -> Vec<(&'a str, &'a str)> {
    form.iter().map(|(name, value)| (*name, *value)).collect()
}

pub(super) fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(Digest::of(&[VERIFIER.as_bytes()]).as_bytes())
}

/// A hidden field of a page.
pub(super) fn hidden(page: &str, name: &str) -> String {
    let after = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{page}")).1;
    let value = after.split_once('"').unwrap().0;
    [("&#38;", "&"), ("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">")]
        .iter()
        .fold(value.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

//! Logins at a gateway and an issuer that say what a test tells them to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use ringfence_core::Secret;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::for_tests::NOW;
use crate::login::{Pending, Returned};

const BACK: &str = "http://127.0.0.1:4711/callback";
const RESOURCE: &str = "/.well-known/oauth-protected-resource/mcp";
const METADATA: &str = "/.well-known/oauth-authorization-server";

type Fields = HashMap<String, String>;

/// Gateway and issuer in one, on loopback.
struct House {
    origin: String,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    /// What is answered at each path, with the status.
    documents: Mutex<HashMap<String, (u16, Value)>>,
    posted: Mutex<Vec<(String, String)>>,
}

async fn answer(State(told): State<Arc<Told>>, method: Method, uri: Uri, body: Bytes) -> Response {
    if method == Method::POST {
        let body = String::from_utf8(body.to_vec()).unwrap();
        told.posted.lock().unwrap().push((uri.path().to_owned(), body));
    }
    let found = told.documents.lock().unwrap().get(uri.path()).cloned();
    let Some((status, document)) = found else { return StatusCode::NOT_FOUND.into_response() };
    let status = StatusCode::from_u16(status).unwrap();
    if status.is_redirection() {
        return (status, [(header::LOCATION, document.as_str().unwrap().to_owned())]).into_response();
    }
    (status, Json(document)).into_response()
}

impl House {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::new(Told::default());
        let router = Router::new().fallback(answer).with_state(told.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let house = Self { origin, told };
        let at = |path: &str| format!("{}{path}", house.origin);
        house.say(
            RESOURCE,
            200,
            json!({
                "resource": house.gateway(),
                "authorization_servers": [house.origin],
                "scopes_supported": ["tools", "mail"],
            }),
        );
        house.say(
            METADATA,
            200,
            json!({
                "issuer": house.origin,
                "authorization_endpoint": at("/authorize"),
                "token_endpoint": at("/token"),
                "registration_endpoint": at("/register"),
                "revocation_endpoint": at("/revoke"),
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            }),
        );
        house.say("/register", 201, json!({ "client_id": "c-1", "token_endpoint_auth_method": "none" }));
        house.say("/revoke", 200, json!({}));
        house.gives("access-one", "refresh-one");
        house
    }

    fn gateway(&self) -> String {
        format!("{}/mcp", self.origin)
    }

    fn say(&self, path: &str, status: u16, document: Value) {
        self.told.documents.lock().unwrap().insert(path.to_owned(), (status, document));
    }

    /// Changes one member of what is answered at a path.
    fn alter(&self, path: &str, name: &str, value: Value) {
        self.told.documents.lock().unwrap().get_mut(path).unwrap().1[name] = value;
    }

    fn gives(&self, access: &str, refresh: &str) {
        let answer = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": 600, "scope": "tools",
            "refresh_token": refresh,
        });
        self.say("/token", 200, answer);
    }

    /// What was sent to this path last.
    fn posted(&self, path: &str) -> String {
        let posted = self.told.posted.lock().unwrap();
        posted.iter().rev().find(|(to, _)| to == path).unwrap().1.clone()
    }

    fn form(&self, path: &str) -> Fields {
        url::form_urlencoded::parse(self.posted(path).as_bytes()).into_owned().collect()
    }

    async fn client(&self) -> Result<NativeClient, NoLogin> {
        let found = Gateway::at(&self.gateway()).await?.issuer(None).await?;
        found.client(None, Vec::new(), BACK.to_owned()).await
    }

    /// What the browser brings back, with these members in place of the good ones; an empty one is left out.
    fn back(&self, url: &str, changed: &[(&str, &str)]) -> Returned {
        let asked: Fields = Url::parse(url).unwrap().query_pairs().into_owned().collect();
        let mut back =
            HashMap::from([("code", "the-code"), ("state", &asked["state"]), ("iss", &self.origin)]);
        back.extend(changed.iter().copied());
        back.retain(|_, value| !value.is_empty());
        serde_json::from_value(json!(back)).unwrap()
    }

    async fn logged_in(&self) -> Login {
        let client = self.client().await.unwrap();
        let (url, pending) = client.begin().unwrap();
        client.finish(&pending, self.back(&url, &[]), NOW).await.unwrap()
    }
}

fn why<T>(result: Result<T, impl std::fmt::Display>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn a_login_needs_nothing_but_the_gateways_address() {
    let house = House::new().await;
    let client = house.client().await.unwrap();
    let registered: Value = serde_json::from_str(&house.posted("/register")).unwrap();
    assert_eq!(
        registered,
        json!({
            "client_name": "Ringfence (ringfence login)",
            "application_type": "native",
            "redirect_uris": [BACK],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        })
    );
    let (url, pending) = client.begin().unwrap();
    let asked: Fields = Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    let shown = ["response_type", "client_id", "redirect_uri", "code_challenge_method", "scope", "resource"];
    assert_eq!(
        shown.map(|name| asked[name].as_str()),
        ["code", "c-1", BACK, "S256", "tools mail", house.gateway().as_str()]
    );
    let login = client.finish(&pending, house.back(&url, &[]), NOW).await.unwrap();
    let sent = house.form("/token");
    let shown = ["grant_type", "code", "redirect_uri", "client_id", "resource"];
    assert_eq!(
        shown.map(|name| sent[name].as_str()),
        ["authorization_code", "the-code", BACK, "c-1", house.gateway().as_str()]
    );
    assert!(sent["code_verifier"].len() >= 43 && !url.contains(&sent["code_verifier"]));
    assert_eq!(login.access_token().expose(), "access-one");
    // The scopes are those that were granted.
    assert_eq!((login.resource(), login.scopes()), (house.gateway().as_str(), &["tools".to_owned()][..]));
    assert_eq!(login.expires(), Some(NOW.seconds() + 600));
}

#[tokio::test]
async fn a_login_is_renewed_and_given_back() {
    let house = House::new().await;
    // As it comes out of its file.
    let kept = house.logged_in().await.to_text().unwrap();
    let login = Login::from_text(&kept).unwrap();
    let later = |seconds: u64| ringfence_core::Instant(NOW.0 + seconds * 1000);
    assert!(login.is_fresh(later(569)) && !login.is_fresh(later(570)));
    house.gives("access-two", "refresh-two");
    let renewed = login.renew(later(570)).await.unwrap();
    let sent = house.form("/token");
    let shown = ["grant_type", "refresh_token", "scope", "client_id", "resource"];
    assert_eq!(
        shown.map(|name| sent[name].as_str()),
        ["refresh_token", "refresh-one", "tools", "c-1", house.gateway().as_str()]
    );
    assert_eq!((renewed.access_token().expose(), renewed.is_fresh(later(570))), ("access-two", true));
    assert!(renewed.revoke().await.unwrap());
    let given_back = [("token", "refresh-two"), ("token_type_hint", "refresh_token"), ("client_id", "c-1")];
    let given_back: Fields = given_back.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(house.form("/revoke"), given_back);
    // What the issuer refuses is over; what does not answer is not.
    house.say("/token", 400, json!({ "error": "invalid_grant" }));
    assert!(matches!(login.renew(NOW).await, Err(NotRenewed::Ended(_))));
    house.say("/token", 503, json!({}));
    assert!(matches!(login.renew(NOW).await, Err(NotRenewed::Unreachable(_))));
    // A token that is wider than what the user agreed to is none.
    house.say(
        "/token",
        200,
        json!({ "access_token": "access-three", "token_type": "Bearer", "scope": "tools all" }),
    );
    assert!(matches!(login.renew(NOW).await, Err(NotRenewed::Ended(_))));
    house.say("/revoke", 503, json!({}));
    assert!(login.revoke().await.is_err());
    assert!(Login::from_text(&Secret::new("{}".into())).is_none());
}

#[tokio::test]
async fn what_speaks_of_another_or_is_not_safe_is_not_used() {
    let said = async |path: &str, name: &str, value: Value| {
        let house = House::new().await;
        house.alter(path, name, value);
        why(house.client().await).replace(&house.origin, "ORIGIN")
    };
    let table = [
        (
            RESOURCE,
            "resource",
            json!("https://other.example/mcp"),
            "calls itself `https://other.example/mcp`",
        ),
        (RESOURCE, "resource", json!(null), "calls itself `nothing`"),
        (RESOURCE, "dpop_bound_access_tokens_required", json!(true), "bound to a key"),
        (RESOURCE, "authorization_servers", json!([]), "one that the gateway names"),
        (
            RESOURCE,
            "authorization_servers",
            json!(["https://10.0.0.1"]),
            "these that you know: `https://10.0.0.1/`",
        ),
        (METADATA, "issuer", json!("https://other.example"), "another issuer"),
        (METADATA, "code_challenge_methods_supported", json!(["plain"]), "PKCE with `S256`"),
        (METADATA, "code_challenge_methods_supported", json!(null), "PKCE with `S256`"),
        (
            METADATA,
            "token_endpoint",
            json!("http://login.example/token"),
            "no `token_endpoint` that may be asked",
        ),
        (
            METADATA,
            "token_endpoint",
            json!("https://169.254.169.254/"),
            "no `token_endpoint` that may be asked",
        ),
        (METADATA, "authorization_endpoint", json!("file:///etc/passwd"), "no `authorization_endpoint`"),
        (METADATA, "registration_endpoint", json!(null), "write `--client-id ID`"),
        ("/register", "token_endpoint_auth_method", json!("client_secret_basic"), "secrets to all clients"),
        ("/register", "client_id", json!("a\nb"), "it gave no name"),
    ];
    for (path, name, value, expected) in table {
        let refused = said(path, name, value.clone()).await;
        assert!(refused.contains(expected), "{name} = {value}: {refused}");
    }
    assert_eq!(said(RESOURCE, "resource_name", json!("x")).await, "", "the control");
    for address in ["http://gateway.example/mcp", "ftp://x/mcp", "https://user:word@x/mcp", "x"] {
        assert!(why(Gateway::at(address).await).contains("not an address"), "{address}");
    }
}

#[tokio::test]
async fn nobody_is_led_elsewhere() {
    let house = House::new().await;
    let document = house.told.documents.lock().unwrap()[RESOURCE].1.clone();
    house.say("/elsewhere", 200, document);
    house.say(RESOURCE, 302, json!("/elsewhere"));
    assert!(why(house.client().await).contains("it answered 302"));
}

#[tokio::test]
async fn an_answer_of_somebody_else_is_not_taken() {
    let house = House::new().await;
    let client = house.client().await.unwrap();
    let finish = async |changed: &[(&str, &str)]| {
        let (url, pending): (String, Pending) = client.begin().unwrap();
        why(client.finish(&pending, house.back(&url, changed), NOW).await)
    };
    assert_eq!(finish(&[]).await, "", "the control");
    let table: [(&[(&str, &str)], &str); 6] = [
        (&[("state", "another")], "does not belong to this browser"),
        (&[("state", "")], "does not belong to this browser"),
        (&[("iss", "https://evil.example")], "another issuer answered"),
        (&[("iss", "")], "another issuer answered"),
        (&[("code", "")], "sent no code"),
        (&[("error", "access_denied")], "the issuer said no: access_denied"),
    ];
    let tokens_before = house.told.posted.lock().unwrap().iter().filter(|(path, _)| path == "/token").count();
    for (changed, expected) in table {
        let refused = finish(changed).await;
        assert!(refused.contains(expected), "{changed:?}: {refused}");
    }
    let tokens = house.told.posted.lock().unwrap().iter().filter(|(path, _)| path == "/token").count();
    assert_eq!(tokens, tokens_before, "no code was shown to anybody");
    // An issuer that does not promise to name itself need not; one that does so all the same has to be the right one.
    house.alter(METADATA, "authorization_response_iss_parameter_supported", json!(false));
    let client = house.client().await.unwrap();
    let (url, pending) = client.begin().unwrap();
    assert_eq!(why(client.finish(&pending, house.back(&url, &[("iss", "")]), NOW).await), "");
}

//! Who may be a client, how it becomes one, and who may speak to the issuer at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::house::{AGENTS, BACK, Came, House, PEOPLE};
use crate::development::{Issuer, IssuerRefused, IssuerSettings, Logins, new_key};

#[tokio::test]
async fn the_metadata_says_what_there_is_at_both_addresses() {
    let house = House::new().await;
    let document = house.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(house.get("/.well-known/openid-configuration").await.json(), document);
    let base = &house.base;
    let anyone = json!(["none", "client_secret_basic", "client_secret_post"]);
    let expected = json!({
        "issuer": base,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/jwks.json"),
        "revocation_endpoint": format!("{base}/revoke"),
        "introspection_endpoint": format!("{base}/introspect"),
        "scopes_supported": ["tools", "mail.send"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            "authorization_code", "refresh_token", "client_credentials",
            "urn:ietf:params:oauth:grant-type:token-exchange"
        ],
        "token_endpoint_auth_methods_supported": anyone,
        "revocation_endpoint_auth_methods_supported": anyone,
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": true,
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "protected_resources": [AGENTS, PEOPLE],
        "registration_endpoint": format!("{base}/register"),
    });
    assert_eq!(document, expected);
}

async fn register(house: &House, metadata: &Value) -> Came {
    house.send(house.http.post(format!("{}/register", house.base)).json(metadata)).await
}

#[tokio::test]
async fn a_client_registers_itself_and_lets_users_log_in() {
    let house = House::new().await;
    let metadata = json!({
        "redirect_uris": [BACK], "client_name": "An <editor>", "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"], "logo_uri": "https://app.example.com/logo"
    });
    let registered = register(&house, &metadata).await;
    assert_eq!((registered.status, registered.header("cache-control")), (201, "no-store"));
    assert_eq!(registered.json().get("client_secret"), None);
    let id = registered.text("client_id");
    assert!(house.page(&[("client_id", &id)]).await.text.contains("An &#60;editor&#62;"));
    let code = house.code("bob", &[("client_id", &id)]).await;
    let given = house.redeem(&code, &[("client_id", &id)]).await;
    assert_eq!(house.claims(&given.text("access_token"), AGENTS).await["client_id"], json!(id));
    // With a secret where it asks for one, and then not without.
    let registered = register(&house, &json!({ "redirect_uris": [BACK] })).await;
    let (id, secret) = (registered.text("client_id"), registered.text("client_secret"));
    let code = house.code("bob", &[("client_id", &id)]).await;
    assert_eq!(house.redeem(&code, &[("client_id", &id)]).await.error(), (401, "invalid_client".into()));
    assert_eq!(house.redeem(&code, &[("client_id", &id), ("client_secret", &secret)]).await.status, 200);
    let own = [("grant_type", "client_credentials"), ("client_id", &id), ("client_secret", &secret)];
    assert_eq!(house.post("/token", &own).await.error().1, "unauthorized_client", "and nothing else");
}

#[tokio::test]
async fn a_client_that_would_like_more_gets_what_there_is() {
    let house = House::new().await;
    // As editors register: several addresses, ports that they find later, grants that are not spoken here.
    let metadata = json!({
        "client_name": "Visual Studio Code", "client_uri": "https://code.visualstudio.com", "application_type": "native",
        "redirect_uris": ["https://vscode.dev/redirect", "http://localhost/", "http://127.0.0.1/", "http://127.0.0.1:33418/"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"], "token_endpoint_auth_method": "none", "scope": "tools"
    });
    let registered = register(&house, &metadata).await;
    assert_eq!(registered.json()["grant_types"], json!(["authorization_code", "refresh_token"]));
    let id = registered.text("client_id");
    for back in ["https://vscode.dev/redirect", "http://127.0.0.1:33419/", "http://localhost:40000"] {
        let changed = [("client_id", id.as_str()), ("redirect_uri", back)];
        assert_eq!(house.page(&changed).await.status, 200, "{back}");
    }
}

#[tokio::test]
async fn a_registration_that_asks_for_more_is_refused() {
    let house = House::new().await;
    assert_eq!(register(&house, &json!({ "redirect_uris": [BACK] })).await.status, 201, "the control");
    let many: Vec<String> = (0..17).map(|number| format!("{BACK}/{number}")).collect();
    for (metadata, code) in [
        (json!({}), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": many }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [BACK, "http://evil.example/cb"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["javascript:alert(1)"] }), "invalid_redirect_uri"),
        (
            json!({ "redirect_uris": [BACK], "grant_types": ["client_credentials"] }),
            "invalid_client_metadata",
        ),
        (json!({ "redirect_uris": [BACK], "response_types": ["token"] }), "invalid_client_metadata"),
        (
            json!({ "redirect_uris": [BACK], "token_endpoint_auth_method": "private_key_jwt" }),
            "invalid_client_metadata",
        ),
        (json!([]), "invalid_client_metadata"),
    ] {
        assert_eq!(register(&house, &metadata).await.error(), (400, code.into()), "{metadata}");
    }
    let long = json!({ "redirect_uris": [BACK], "client_name": "x".repeat(40_000) });
    assert_eq!(register(&house, &long).await.status, 413);
    let closed = House::with(|settings| settings.logins.dynamic_registration = false).await;
    assert_eq!(register(&closed, &json!({ "redirect_uris": [BACK] })).await.status, 404);
    let document = closed.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(document.get("registration_endpoint"), None);
}

#[tokio::test]
async fn registrations_have_a_bound_and_those_that_nobody_uses_make_room() {
    let house = House::new().await;
    let metadata = json!({ "redirect_uris": [BACK], "token_endpoint_auth_method": "none" });
    let used = register(&house, &metadata).await.text("client_id");
    let unused = register(&house, &metadata).await.text("client_id");
    house.redeem(&house.code("bob", &[("client_id", &used)]).await, &[("client_id", &used)]).await;
    for _ in 2..1000 {
        assert_eq!(register(&house, &metadata).await.status, 201);
    }
    assert_eq!(register(&house, &metadata).await.error(), (503, "temporarily_unavailable".into()));
    house.later(3_600_000);
    assert_eq!(register(&house, &metadata).await.status, 201);
    assert_eq!(house.page(&[("client_id", &used)]).await.status, 200);
    assert_eq!(house.page(&[("client_id", &unused)]).await.status, 400);
}

/// A server on loopback that says this of itself: its address, and how often it was asked.
async fn saying(made: impl Fn(&str) -> (StatusCode, &'static str, String)) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let id = format!("http://{}/client.json", listener.local_addr().unwrap());
    let (status, kind, body) = made(&id);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let router = Router::new().fallback(move || {
        count.fetch_add(1, Ordering::SeqCst);
        let moved = [(header::CONTENT_TYPE, kind), (header::LOCATION, "http://127.0.0.1:9/secret")];
        let answer = (status, moved, body.clone()).into_response();
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (id, asked)
}

fn sound(id: &str) -> Value {
    json!({ "client_id": id, "client_name": "Documented", "redirect_uris": [BACK] })
}

#[tokio::test]
async fn a_client_that_is_an_address_is_what_its_document_says() {
    let house = House::new().await;
    let (id, asked) = saying(|id| (StatusCode::OK, "application/json", sound(id).to_string())).await;
    assert!(house.page(&[("client_id", &id)]).await.text.contains("Documented"));
    let code = house.code("bob", &[("client_id", &id)]).await;
    let given = house.redeem(&code, &[("client_id", &id)]).await;
    assert_eq!(house.claims(&given.text("access_token"), AGENTS).await["client_id"], json!(id));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it is kept for a while");
    let evil = [("client_id", id.as_str()), ("redirect_uri", "https://evil.example/cb")];
    assert_eq!(house.page(&evil).await.status, 400);
    house.later(300_000);
    assert_eq!(house.page(&[("client_id", &id)]).await.status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "and not for ever");
    let closed = House::with(|settings| settings.logins.client_documents = false).await;
    assert_eq!(closed.page(&[("client_id", &id)]).await.status, 400);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_document_that_is_not_sound_names_no_client() {
    let house = House::new().await;
    let with = |id: &str, name: &str, value: Value| {
        let mut document = sound(id);
        document[name] = value;
        (StatusCode::OK, "application/json", document.to_string())
    };
    let ok = StatusCode::OK;
    let (good, _) = saying(|id| with(id, "x", json!(1))).await;
    assert_eq!(house.page(&[("client_id", &good)]).await.status, 200, "the control");
    let documents = [
        saying(|_| (ok, "application/json", sound("http://127.0.0.1:9/client.json").to_string())).await,
        saying(|id| (ok, "application/json", sound(&format!("{id}/")).to_string())).await,
        saying(|id| with(id, "client_secret", json!("x"))).await,
        saying(|id| with(id, "token_endpoint_auth_method", json!("client_secret_basic"))).await,
        saying(|id| with(id, "redirect_uris", json!(["http://evil.example/cb"]))).await,
        saying(|id| with(id, "client_name", json!("x".repeat(20_000)))).await,
        saying(|id| (ok, "text/html", sound(id).to_string())).await,
        saying(|_| (ok, "application/json", "SECRET OF ANOTHER SERVICE".to_owned())).await,
        saying(|id| (StatusCode::FOUND, "application/json", sound(id).to_string())).await,
        saying(|id| (StatusCode::CREATED, "application/json", sound(id).to_string())).await,
    ];
    for (number, (id, asked)) in documents.into_iter().enumerate() {
        let came = house.page(&[("client_id", &id)]).await;
        assert_eq!((came.status, asked.load(Ordering::SeqCst)), (400, 1), "{number}");
        assert!(!came.text.contains("SECRET"), "{came:?}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_public_is_never_dialled() {
    let house = House::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = dialled.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let inside = [
        format!("https://localhost:{port}/client.json"),
        format!("https://127.0.0.1:{port}/client.json"),
        format!("https://[::ffff:127.0.0.1]:{port}/client.json"),
        format!("http://localhost:{port}/client.json"),
    ];
    for id in &inside {
        assert_eq!(house.page(&[("client_id", id)]).await.status, 400, "{id}");
    }
    assert_eq!(dialled.load(Ordering::SeqCst), 0);
    // The control: whoever does not look dials the very same name, and is let in.
    let careless = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(careless.get(&inside[0]).send().await.is_err(), "it speaks no TLS");
    assert!(dialled.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn no_page_of_the_web_speaks_to_the_issuer() {
    let house = House::new().await;
    let metadata = format!("{}/.well-known/oauth-authorization-server", house.base);
    let with =
        async |name: &str, value: &str| house.send(house.http.get(&metadata).header(name, value)).await;
    let port = house.base.rsplit_once(':').unwrap().1;
    let inspector = with("origin", "http://localhost:6274").await;
    assert_eq!(
        (inspector.status, inspector.header("access-control-allow-origin")),
        (200, "http://localhost:6274")
    );
    assert_eq!(with("host", &format!("localhost:{port}")).await.status, 200);
    // A name of the attacker's that points here.
    assert_eq!(with("host", &format!("rebound.evil.example:{port}")).await.status, 403);
    for origin in
        ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example"]
    {
        let came = with("origin", origin).await;
        assert_eq!((came.status, came.header("access-control-allow-origin")), (403, ""), "{origin}");
    }
    let preflight = house.http.request(reqwest::Method::OPTIONS, format!("{}/register", house.base));
    let preflight = house.send(preflight.header("origin", "http://localhost:6274")).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, "GET, POST"));
    // The page itself is read by nobody.
    let page = house.http.get(format!("{}/authorize?{}", house.base, House::request(&[])));
    let page = house.send(page.header("origin", "http://localhost:6274")).await;
    assert_eq!((page.status, page.header("access-control-allow-origin")), (200, ""));
}

#[test]
fn no_client_has_the_name_of_a_user() {
    let refused = |id: &str| {
        let client = crate::development::Client {
            id: id.into(),
            name: None,
            secret: None,
            redirect_uris: Vec::new(),
            grants: std::collections::BTreeSet::new(),
            may_exchange: std::collections::BTreeMap::new(),
        };
        let settings = IssuerSettings {
            listen: ([127, 0, 0, 1], 8789).into(),
            groups_claim: "groups".into(),
            users: [("bob".to_owned(), crate::development::User::default())].into(),
            resources: vec![AGENTS.into()],
            downstream: std::collections::BTreeMap::new(),
            logins: Logins { clients: vec![client], ..Logins::default() },
        };
        Issuer::new(&new_key().unwrap(), settings).err()
    };
    assert!(refused("robot").is_none(), "the control");
    for taken in ["bob", "ringfence-gateway"] {
        assert!(matches!(refused(taken), Some(IssuerRefused::NameTaken(name)) if name == taken));
    }
}

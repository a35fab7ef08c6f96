//! Browsers of honest and dishonest users at the pages, with an identity provider and a third party in this process.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use url::Url;

use super::*;
use crate::credential::{AccountSettings, AccountsSettings, NoCredential, Sealer};
use crate::for_tests::{FakeGrants, FakeIssuer, NOW, Wish, system};
use crate::login::CodeClientSettings;

const ISSUER: &str = "https://login.example";

struct Stage {
    base: String,
    provider: FakeIssuer,
    party: FakeIssuer,
    grants: Arc<FakeGrants>,
    accounts: Arc<Accounts>,
}

/// Whoever has the code `NAME` is that user; whoever has the code `account-NAME` has that account.
async fn stage() -> Stage {
    let provider = FakeIssuer::start(|asked| {
        (200, json!({ "access_token": format!("login-of-{}", asked["code"]), "token_type": "Bearer", "scope": "openid more" }))
    })
    .await;
    let party = FakeIssuer::start(|asked| {
        let name = asked.get("code").or_else(|| asked.get("refresh_token")).unwrap().clone();
        (200, json!({ "access_token": format!("access-of-{name}"), "token_type": "bearer", "refresh_token": name, "expires_in": 60 }))
    })
    .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let base = format!("http://{host}");
    let client = |issuer: &FakeIssuer, name: Option<&str>| CodeClientSettings {
        authorization_endpoint: format!("{}/authorize", issuer.url),
        client: issuer.client(),
        issuer: name.map(str::to_owned),
        resource: None,
        scopes: vec!["openid".into()],
    };
    let grants = Arc::new(FakeGrants::default());
    let accounts = AccountsSettings {
        base: base.clone(),
        sealer: Sealer::new(&Secret::new(STANDARD.encode((0..32).collect::<Vec<u8>>()))).unwrap(),
        store: grants.clone(),
        systems: BTreeMap::from([(system("tickets"), AccountSettings { client: client(&party, None) })]),
    };
    let accounts = Arc::new(Accounts::new(accounts).unwrap());
    let person: Person = Arc::new(|token| {
        let subject = token.expose().strip_prefix("login-of-").map(str::to_owned);
        Box::pin(async move { subject.map(|subject| (ISSUER.to_owned(), subject)) })
    });
    let settings = ConnectSettings {
        accounts: accounts.clone(),
        login: CodeClient::new(client(&provider, Some(ISSUER))).unwrap(),
        person,
        base: base.clone(),
        hosts: vec![host],
        now: || NOW,
    };
    let router = router(settings);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Stage { base, provider, party, grants, accounts }
}

impl Stage {
    /// The link that this user's agent is given.
    async fn link(&self, user: &str) -> String {
        match self.accounts.token_for(Wish::of(user).at(NOW)).await.map(drop) {
            Err(NoCredential::NotConnected(refused)) => refused.link.unwrap().url,
            other => panic!("{other:?}"),
        }
    }

    async fn token(&self, user: &str) -> Option<String> {
        self.accounts.token_for(Wish::of(user).at(NOW)).await.ok().map(|token| token.expose().to_owned())
    }
}

/// A browser: it keeps one cookie, and says where it is sent.
#[derive(Clone, Default)]
struct Browser {
    cookie: Option<String>,
}

struct Seen {
    status: u16,
    location: Option<Url>,
    text: String,
    headers: HeaderMap,
}

impl Browser {
    async fn get(&mut self, url: &str) -> Seen {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let mut request = client.get(url);
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let response = request.send().await.unwrap();
        let headers = response.headers().clone();
        if let Some(set) = headers.get("set-cookie") {
            self.cookie = Some(set.to_str().unwrap().split(';').next().unwrap().to_owned());
        }
        let location = headers.get("location").map(|to| Url::parse(to.to_str().unwrap()).unwrap());
        let status = response.status().as_u16();
        Seen { status, location, text: response.text().await.unwrap(), headers }
    }
}

fn query(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Where the button of a page leads.
fn button(seen: &Seen) -> Url {
    let from = seen.text.split("<a href=\"").nth(1).unwrap_or_else(|| panic!("{}", seen.text));
    Url::parse(&from.split('"').next().unwrap().replace("&amp;", "&")).unwrap()
}

/// Comes back from where it was sent, with this code.
fn back(sent_to: &Url, code: &str) -> String {
    format!("{}?code={code}&state={}", query(sent_to, "redirect_uri"), query(sent_to, "state"))
}

#[tokio::test]
async fn a_user_connects_an_account_once_and_calls_go_under_it() {
    let stage = stage().await;
    let (link, mut browser) = (stage.link("bob").await, Browser::default());
    let to_login = browser.get(&link).await;
    let login = to_login.location.unwrap();
    assert_eq!(
        (to_login.status, login.as_str().split('?').next().unwrap()),
        (303, format!("{}/authorize", stage.provider.url).as_str())
    );
    assert_eq!(query(&login, "redirect_uri"), format!("{}/connect-login", stage.base));
    assert_eq!(
        (
            query(&login, "code_challenge_method").as_str(),
            query(&login, "code_challenge").len(),
            query(&login, "state").len()
        ),
        ("S256", 43, 43)
    );
    let cookie = to_login.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax; Max-Age=600"), "{cookie}");
    let offered = browser.get(&back(&login, "bob")).await;
    let party = button(&offered);
    assert_eq!(offered.status, 200);
    assert!(
        offered.text.contains("<b>bob</b>") && offered.text.contains("<code>tickets</code>"),
        "{}",
        offered.text
    );
    assert_eq!(offered.headers["referrer-policy"], "no-referrer");
    assert!(stage.token("bob").await.is_none(), "nothing is connected before the user says so");
    let connected = browser.get(&back(&party, "account-bob")).await;
    assert_eq!(connected.status, 200, "{}", connected.text);
    assert_eq!(stage.token("bob").await.as_deref(), Some("access-of-account-bob"));
    assert_eq!(stage.token("eve").await, None);
    // Nothing of it can be used again.
    for (url, status) in [(link.clone(), 404), (back(&login, "bob"), 400), (back(&party, "account-eve"), 400)]
    {
        assert_eq!(browser.get(&url).await.status, status, "{url}");
    }
    assert_eq!(stage.token("bob").await.as_deref(), Some("access-of-account-bob"));
}

#[tokio::test]
async fn a_stolen_link_connects_neither_the_thiefs_account_nor_the_victims() {
    let stage = stage().await;
    let link = stage.link("bob").await;
    // Eve follows Bob's link and logs in as herself.
    let mut eve = Browser::default();
    let login = eve.get(&link).await.location.unwrap();
    let refused = eve.get(&back(&login, "eve")).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("This link is another user"), "{}", refused.text);
    assert!(stage.party.asked().is_empty());
    // She cannot make up a place at the third party either.
    let nowhere =
        format!("{}/connect/tickets/back?code=account-eve&state={}", stage.base, query(&login, "state"));
    assert_eq!(eve.get(&nowhere).await.status, 400);
    assert!(stage.grants.kept.lock().unwrap().is_empty());
    // The control: the same link still is good for Bob.
    let mut bob = Browser::default();
    let login = bob.get(&link).await.location.unwrap();
    assert_eq!(bob.get(&back(&login, "bob")).await.status, 200);
}

#[tokio::test]
async fn what_one_browser_began_no_other_ends() {
    let stage = stage().await;
    let (mut bob, mut eve) = (Browser::default(), Browser::default());
    let login = bob.get(&stage.link("bob").await).await.location.unwrap();
    let eves_login = eve.get(&stage.link("eve").await).await.location.unwrap();
    // Eve sends Bob's browser to where hers would go on, and the other way round.
    assert_eq!(bob.clone().get(&back(&eves_login, "eve")).await.status, 400);
    assert_eq!(eve.clone().get(&back(&login, "bob")).await.status, 400);
    assert_eq!(Browser::default().get(&back(&login, "bob")).await.status, 400, "no cookie");
    let party = button(&bob.get(&back(&login, "bob")).await);
    let eves_party = button(&eve.get(&back(&eves_login, "eve")).await);
    // Her account into his place: her code in his browser, with her state and with none.
    assert_eq!(bob.clone().get(&back(&eves_party, "account-eve")).await.status, 400);
    let without = format!("{}?code=account-eve", query(&party, "redirect_uri"));
    assert_eq!(bob.clone().get(&without).await.status, 400);
    assert_eq!(eve.clone().get(&back(&party, "account-eve")).await.status, 400);
    assert!(stage.grants.kept.lock().unwrap().is_empty());
    assert_eq!(bob.get(&back(&party, "account-bob")).await.status, 200, "the control");
    assert_eq!(stage.token("bob").await.as_deref(), Some("access-of-account-bob"));
}

#[tokio::test]
async fn another_issuer_another_host_and_a_no_are_refused() {
    let stage = stage().await;
    let mut browser = Browser::default();
    let begun = async |browser: &mut Browser| browser.get(&stage.link("bob").await).await.location.unwrap();
    let login = begun(&mut browser).await;
    let mixed_up = format!("{}&iss=https%3A%2F%2Fevil.example", back(&login, "bob"));
    assert_eq!(browser.get(&mixed_up).await.status, 403);
    assert!(stage.provider.asked().is_empty(), "the code went nowhere");
    let login = begun(&mut browser).await;
    let denied =
        format!("{}?error=access_denied&state={}", query(&login, "redirect_uri"), query(&login, "state"));
    assert_eq!(browser.get(&denied).await.status, 403);
    let login = begun(&mut browser).await;
    let named = format!("{}&iss=https%3A%2F%2Flogin.example", back(&login, "bob"));
    assert_eq!(browser.get(&named).await.status, 200, "the control");
    let link = stage.link("bob").await;
    let rebound = reqwest::Client::new().get(&link).header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status().as_u16(), 403);
    for lost in [
        link.replace("/tickets?", "/payroll?"),
        link.replace("ticket=", "ticket=x"),
        format!("{}/connect/tickets", stage.base),
    ] {
        assert_eq!(Browser::default().get(&lost).await.status, 404, "{lost}");
    }
}

#[tokio::test]
async fn no_request_says_where_a_browser_is_sent() {
    let stage = stage().await;
    let link = stage.link("bob").await;
    for more in ["redirect_uri=https://evil.example", "next=//evil.example", "return_to=https://evil.example"]
    {
        let mut browser = Browser::default();
        let seen = browser.get(&format!("{link}&{more}")).await;
        let login = seen.location.unwrap();
        assert!(!login.as_str().contains("evil"), "{login}");
        let offered = browser.get(&format!("{}&{more}", back(&login, "eve"))).await;
        assert!(offered.location.is_none() && !offered.text.contains("evil"), "{}", offered.text);
    }
}

#[test]
fn a_cookie_over_tls_is_this_hosts_alone() {
    assert_eq!(
        Flows::new("https://people.example").cookie("v"),
        "__Host-ringfence-connect=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=600; Secure"
    );
}

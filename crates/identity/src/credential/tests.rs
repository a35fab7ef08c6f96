//! Credentials against an authorization server that answers soundly, wider than asked, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_core::{Instant, Secret};
use serde_json::{Value, json};

use super::*;
use crate::for_tests::{FakeGrants, FakeIssuer, Fields, NOW, Wish, jwt, system};
use crate::login::CodeClientSettings;

const TICKETS: &str = "https://tickets.example";
const ISSUED: &str = "urn:ietf:params:oauth:token-type:access_token";

fn exchange(issuer: &FakeIssuer, act_required: bool) -> Exchange {
    let scopes = vec!["read".to_owned(), "write".to_owned()];
    let target = Target::Resource(TICKETS.into());
    Exchange::new(ExchangeSettings { client: issuer.client(), target, scopes, act_required }).unwrap()
}

fn on_behalf_of(issuer: &FakeIssuer, also_given: &[&str]) -> OnBehalfOf {
    OnBehalfOf::new(OnBehalfOfSettings {
        client: issuer.client(),
        audience: None,
        scopes: vec!["api://crm/read".into(), "api://crm/write".into()],
        also_given: also_given.iter().map(|scope| (*scope).to_owned()).collect(),
    })
    .unwrap()
}

fn sound(token: &str, scope: &str) -> Value {
    json!({
        "access_token": token, "token_type": "Bearer", "expires_in": 60, "scope": scope, "issued_token_type": ISSUED
    })
}

fn shown(token: Result<Secret, NoCredential>) -> Result<String, String> {
    token.map(|token| token.expose().to_owned()).map_err(|error| error.to_string())
}

fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}

#[tokio::test]
async fn a_token_is_asked_for_with_the_scopes_of_the_tool_alone() {
    let issuer = FakeIssuer::start(|asked| (200, sound("downstream-token", field(asked, "scope")))).await;
    let exchange = exchange(&issuer, false);
    let wish = Wish::of("bob").with_scopes(&["read"]);
    assert_eq!(shown(exchange.token_for(wish.at(NOW)).await), Ok("downstream-token".into()));
    assert_eq!(shown(exchange.token_for(wish.at(NOW)).await), Ok("downstream-token".into()), "kept");
    assert_eq!(shown(exchange.token_for(Wish::of("bob").at(NOW)).await), Ok("downstream-token".into()));
    let mut asked = issuer.asked();
    assert_eq!(asked.len(), 2, "one for the tool, one for the system as a whole");
    assert_eq!(asked.pop().unwrap()["scope"], "read write");
    let credentials = format!("Basic {}", STANDARD.encode("gate%3Away:se%2Bcret"));
    let wanted = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "token-of-bob"),
        ("subject_token_type", ISSUED),
        ("requested_token_type", ISSUED),
        ("resource", TICKETS),
        ("scope", "read"),
        ("(authorization)", credentials.as_str()),
    ];
    let wanted: Fields =
        wanted.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(asked.pop().unwrap(), wanted);
}

#[tokio::test]
async fn an_answer_that_is_wider_than_asked_is_refused() {
    let now = NOW.seconds();
    let claims = |name: &str, value: Value| {
        let mut claims = json!({ "aud": TICKETS, "scope": "read", "exp": now + 60, "act": { "sub": "gate:way", "act": { "sub": "agent-7" } } });
        claims[name] = value;
        json!(jwt(&claims))
    };
    let narrower = "the token carries scopes that were not asked for";
    let audience = "the token is not for the audience that was asked for, or not for it alone";
    let lifetime = "the token has ended already, or lives for more than two days";
    let cases: Vec<(&str, Value, Option<&str>)> = vec![
        ("more", Value::Null, None),
        ("access_token", claims("more", Value::Null), None),
        ("access_token", claims("aud", json!([TICKETS])), None),
        ("access_token", claims("act", json!({ "sub": "gate:way" })), None),
        ("scope", json!("read write"), Some(narrower)),
        ("scope", json!(["read"]), Some("its scope is not a text")),
        ("access_token", claims("scope", json!("read write")), Some(narrower)),
        ("access_token", claims("scp", json!(["read", "admin"])), Some(narrower)),
        ("access_token", claims("aud", json!("https://payroll.example")), Some(audience)),
        ("access_token", claims("aud", json!([TICKETS, "https://payroll.example"])), Some(audience)),
        ("access_token", claims("aud", json!([])), Some(audience)),
        ("access_token", claims("aud", Value::Null), Some(audience)),
        ("access_token", json!(jwt(&json!({ "scope": "read", "exp": now + 60 }))), Some(audience)),
        ("access_token", claims("exp", json!(now + 10_000_000)), Some(lifetime)),
        ("access_token", claims("exp", json!(now - 1)), Some(lifetime)),
        (
            "access_token",
            claims("act", json!({ "sub": "agent-8" })),
            Some("the token does not name the agent that acts"),
        ),
        ("access_token", json!("token-of-bob"), Some("it is the token that was sent")),
        ("access_token", json!("short"), Some("there is no token in it")),
        ("access_token", json!("a token with spaces"), Some("there is no token in it")),
        ("access_token", Value::Null, Some("there is no token in it")),
        ("token_type", json!("N_A"), Some("the token is not a bearer token")),
        ("token_type", json!("DPoP"), Some("the token is not a bearer token")),
        (
            "issued_token_type",
            json!("urn:ietf:params:oauth:token-type:id_token"),
            Some("it is not an access token"),
        ),
        ("expires_in", json!(31_536_000), Some(lifetime)),
        ("expires_in", json!(0), Some(lifetime)),
        ("expires_in", json!(-60), Some("its lifetime is not a number of seconds")),
    ];
    for (changed, value, refused) in cases {
        let mut answer = sound("downstream-token", "read");
        answer[changed] = value.clone();
        let issuer = FakeIssuer::start(move |_| (200, answer.clone())).await;
        let wish = Wish::of("bob").with_scopes(&["read"]);
        let said = exchange(&issuer, false)
            .token_for(wish.at(NOW))
            .await
            .map(drop)
            .map_err(|error| error.to_string());
        let wanted = refused
            .map_or(Ok(()), |why| Err(format!("the issuer's answer is not what was asked for: {why}")));
        assert_eq!(said, wanted, "{changed}: {value}");
    }
}

#[tokio::test]
async fn a_token_can_be_required_to_name_the_agent() {
    for (token, is_named) in [
        (jwt(&json!({ "aud": TICKETS, "act": { "sub": "gate:way", "act": { "sub": "agent-7" } } })), true),
        (jwt(&json!({ "aud": TICKETS, "act": { "sub": "gate:way" } })), false),
        (jwt(&json!({ "aud": TICKETS })), false),
        ("opaque-token".to_owned(), false),
    ] {
        let answer = sound(&token, "read write");
        let issuer = FakeIssuer::start(move |_| (200, answer.clone())).await;
        let named = exchange(&issuer, true).token_for(Wish::of("bob").at(NOW)).await;
        assert_eq!(named.is_ok(), is_named, "{token}");
        assert!(
            exchange(&issuer, false).token_for(Wish::of("bob").at(NOW)).await.is_ok(),
            "the control: {token}"
        );
    }
}

#[tokio::test]
async fn a_refusal_says_what_would_help_and_repeats_nothing() {
    let said = async |status: u16, code: &str| {
        let answer = json!({ "error": code, "error_description": "token-of-bob" });
        let issuer = FakeIssuer::start(move |_| (status, answer.clone())).await;
        exchange(&issuer, false)
            .token_for(Wish::of("bob").with_scopes(&["write"]).at(NOW))
            .await
            .map(drop)
            .unwrap_err()
    };
    assert!(matches!(said(400, "invalid_scope").await, NoCredential::Scopes(scopes) if scopes == ["write"]));
    assert_eq!(said(400, "invalid_target").await.to_string(), "the issuer refused: invalid_target");
    assert_eq!(said(400, "token-of-bob").await.to_string(), "the issuer refused: a code that is not known");
    assert!(matches!(said(503, "server_error").await, NoCredential::Unreachable(_)));
}

#[tokio::test]
async fn on_behalf_of_is_asked_in_the_form_of_its_issuer() {
    let issuer = FakeIssuer::start(|asked| {
        let given = format!("{} User.Read", field(asked, "scope"));
        (200, json!({ "access_token": "entra-token", "token_type": "Bearer", "expires_in": 3599, "scope": given }))
    })
    .await;
    let wish = Wish::of("bob").with_scopes(&["api://crm/read"]);
    let wider = on_behalf_of(&issuer, &[]).token_for(wish.at(NOW)).await;
    assert!(shown(wider).unwrap_err().ends_with("scopes that were not asked for"));
    let told = on_behalf_of(&issuer, &["User.Read"]).token_for(wish.at(NOW)).await;
    assert_eq!(shown(told), Ok("entra-token".into()), "what the operator expects may come with it");
    let wanted = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", "token-of-bob"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "api://crm/read"),
        ("client_id", "gate:way"),
        ("client_secret", "se+cret"),
    ];
    let wanted: Fields =
        wanted.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(issuer.asked().pop().unwrap(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_of_two_users_are_never_crossed_and_ask_once_for_each() {
    let issuer = FakeIssuer::start(|asked| {
        (200, sound(&format!("{}-for-tickets", field(asked, "subject_token")), field(asked, "scope")))
    })
    .await;
    let exchange = Arc::new(exchange(&issuer, false));
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let exchange = exchange.clone();
            tokio::spawn(async move {
                let user = if number % 2 == 0 { "bob" } else { "alice" };
                (user, shown(exchange.token_for(Wish::of(user).at(NOW)).await).unwrap())
            })
        })
        .collect();
    for call in calls {
        let (user, token) = call.await.unwrap();
        assert_eq!(token, format!("token-of-{user}-for-tickets"));
    }
    let asked: Vec<Fields> = issuer.asked();
    let subjects: BTreeSet<&str> = asked.iter().map(|asked| field(asked, "subject_token")).collect();
    assert_eq!((asked.len(), subjects), (2, ["token-of-alice", "token-of-bob"].into()));
    // The control: a run whose tokens were dropped, since it was revoked, has them asked for again.
    exchange.forget(owner(Wish::of("bob").run.id()));
    for user in ["alice", "bob"] {
        assert!(exchange.token_for(Wish::of(user).at(NOW)).await.is_ok());
    }
    assert_eq!(issuer.asked().len(), 3);
}

/// Accounts at a third party, and what Bob has connected there.
fn accounts<S: GrantStore + 'static>(issuer: &FakeIssuer, grants: &Arc<S>) -> Accounts {
    let client = CodeClientSettings {
        authorization_endpoint: format!("{}/authorize", issuer.url),
        client: issuer.client(),
        issuer: None,
        resource: None,
        scopes: vec!["read".into(), "write".into()],
    };
    let key = Secret::new(STANDARD.encode((0..32).collect::<Vec<u8>>()));
    let settings = AccountsSettings {
        base: "https://people.example".into(),
        sealer: Sealer::new(&key).unwrap(),
        store: grants.clone(),
        systems: BTreeMap::from([(system("tickets"), AccountSettings { client })]),
    };
    Accounts::new(settings).unwrap()
}

fn whose(subject: &str) -> Owner {
    Owner { issuer: "https://login.example".into(), subject: subject.into(), system: system("tickets") }
}

async fn connect(accounts: &Accounts, subject: &str) {
    let (url, pending) = accounts.begin(&system("tickets")).unwrap();
    let url = url::Url::parse(&url).unwrap();
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let returned = serde_json::from_value(json!({ "code": "the-code-itself", "state": state })).unwrap();
    accounts.finish(&whose(subject), &pending, returned, NOW).await.unwrap();
}

/// A third party whose refresh tokens are good once.
async fn rotating() -> FakeIssuer {
    let turn = Arc::new(AtomicU64::new(1));
    FakeIssuer::start(move |asked| {
        if field(asked, "grant_type") == "refresh_token" {
            let good = format!("refresh-{}", turn.load(Ordering::SeqCst));
            if field(asked, "refresh_token") != good {
                return (400, json!({ "error": "invalid_grant" }));
            }
        }
        let now = turn.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answer = sound(&format!("access-token-{now}"), field(asked, "scope"));
        answer["refresh_token"] = json!(format!("refresh-{now}"));
        (200, answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_used_by_its_user_alone_and_its_refresh_token_rotates() {
    let (issuer, grants) = (rotating().await, Arc::new(FakeGrants::default()));
    let accounts = Arc::new(accounts(&issuer, &grants));
    connect(&accounts, "bob").await;
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                let scope = if number % 2 == 0 { "read" } else { "write" };
                accounts.token_for(Wish::of("bob").with_scopes(&[scope]).at(NOW)).await.map(drop)
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let asked = issuer.asked();
    assert_eq!(asked.len(), 3, "the code, and one refresh for each set of scopes: {asked:?}");
    assert_eq!(field(&asked[0], "code_verifier").len(), 43);
    let stored = format!("{:?}", grants.kept.lock().unwrap());
    assert!(stored.contains("sealed") && !stored.contains("refresh-"), "{stored}");
    let Err(NoCredential::NotConnected(eve)) = accounts.token_for(Wish::of("eve").at(NOW)).await.map(drop)
    else {
        panic!("Eve has no account")
    };
    assert!(eve.link.unwrap().url.starts_with("https://people.example/connect/tickets?ticket="));
    // Disconnected in another process: so at once, whatever is kept here.
    grants.kept.lock().unwrap().clear();
    let gone = accounts.token_for(Wish::of("bob").with_scopes(&["read"]).at(NOW)).await.map(drop);
    assert!(matches!(gone, Err(NoCredential::NotConnected(_))), "{gone:?}");
}

#[tokio::test]
async fn a_rotation_that_is_lost_ends_the_connection_and_says_so() {
    let (issuer, grants) = (rotating().await, Arc::new(FakeGrants::default()));
    let accounts = accounts(&issuer, &grants);
    connect(&accounts, "bob").await;
    let bob = Wish::of("bob");
    assert!(accounts.token_for(bob.at(NOW)).await.is_ok(), "the control");
    grants.is_full.store(true, Ordering::SeqCst);
    let later = Instant(NOW.0 + 60_000);
    let lost = shown(accounts.token_for(bob.at(later)).await).unwrap_err();
    assert!(lost.ends_with("the disk is full"), "{lost}");
    grants.is_full.store(false, Ordering::SeqCst);
    let ended = shown(accounts.token_for(bob.at(later)).await).unwrap_err();
    assert!(
        ended.ends_with("the third party has ended the connection, or a renewal of it was lost"),
        "{ended}"
    );
    assert!(grants.kept.lock().unwrap().is_empty());
    connect(&accounts, "bob").await;
    assert!(accounts.token_for(bob.at(later)).await.is_ok(), "connected anew");
}

#[tokio::test]
async fn what_another_process_renewed_is_used_and_never_overwritten() {
    let (issuer, grants) = (rotating().await, Arc::new(FakeGrants::default()));
    let (here, there) = (accounts(&issuer, &grants), accounts(&issuer, &grants));
    connect(&here, "bob").await;
    let bob = Wish::of("bob");
    for at in [0, 60_000, 120_000] {
        assert!(here.token_for(bob.at(Instant(NOW.0 + at))).await.is_ok());
        assert!(there.token_for(bob.at(Instant(NOW.0 + at))).await.is_ok(), "{at}");
    }
    // What is moved to another user's place does not open there.
    let bobs = grants.kept.lock().unwrap()[&whose("bob")].clone();
    grants.kept.lock().unwrap().insert(whose("eve"), bobs);
    let stolen = shown(here.token_for(Wish::of("eve").at(NOW)).await).unwrap_err();
    assert!(stolen.ends_with("what is kept of the account cannot be opened"), "{stolen}");
}

/// A store in which what was renewed is kept only after everybody has read what was there before.
struct SlowToReplace {
    grants: FakeGrants,
    reads_left: AtomicU64,
}

impl GrantStore for SlowToReplace {
    fn read(&self, owner: &Owner) -> Result<Option<StoredGrant>, GrantsUnavailable> {
        let read = self.grants.read(owner);
        let _none_left =
            self.reads_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        read
    }

    fn put(&self, owner: &Owner, grant: &StoredGrant, now: Instant) -> Result<(), GrantsUnavailable> {
        self.grants.put(owner, grant, now)
    }

    fn replace(&self, owner: &Owner, was: &StoredGrant, sealed: &[u8]) -> Result<bool, GrantsUnavailable> {
        let began = std::time::Instant::now();
        tokio::task::block_in_place(|| {
            while self.reads_left.load(Ordering::SeqCst) > 0 {
                assert!(began.elapsed().as_secs() < 60, "the loser was never refused");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        self.grants.replace(owner, was, sealed)
    }

    fn remove(&self, owner: &Owner, was: &StoredGrant) -> Result<(), GrantsUnavailable> {
        self.grants.remove(owner, was)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_loses_the_race_to_renew_an_account_does_not_remove_what_the_winner_keeps() {
    let issuer = rotating().await;
    // Each reads what is there when it is asked and when it begins; the loser also after it was refused.
    let store = Arc::new(SlowToReplace { grants: FakeGrants::default(), reads_left: AtomicU64::new(5) });
    let (here, there) = (accounts(&issuer, &store), accounts(&issuer, &store));
    connect(&here, "bob").await;
    let race = [here, there].map(|accounts| {
        tokio::spawn(async move { accounts.token_for(Wish::of("bob").at(NOW)).await.map(drop) })
    });
    for racer in race {
        assert!(racer.await.unwrap().is_ok());
    }
    let refreshes = issuer.asked().len() - 1;
    assert_eq!(
        refreshes, 3,
        "the control: the winner's, the loser's, and the loser's with what the winner kept"
    );
    assert!(store.grants.kept.lock().unwrap().contains_key(&whose("bob")));
}

#[tokio::test]
async fn a_third_party_without_refresh_tokens_serves_until_its_token_ends() {
    let issuer = FakeIssuer::start(|_| (200, sound("access-token", "read"))).await;
    let grants = Arc::new(FakeGrants::default());
    let accounts = accounts(&issuer, &grants);
    connect(&accounts, "bob").await;
    assert_eq!(shown(accounts.token_for(Wish::of("bob").at(NOW)).await), Ok("access-token".into()));
    let ended = shown(accounts.token_for(Wish::of("bob").at(Instant(NOW.0 + 61_000))).await).unwrap_err();
    assert!(ended.ends_with("the account's token has ended"), "{ended}");
}

//! What becomes of tokens when their issuer changes its keys, is flooded with junk, falls silent, or leads elsewhere.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ringfence_core::Instant;
use serde_json::{Value, json};

use super::NOW;
use super::fake::{Fake, Key, with};
use crate::{Endpoint, KeySource, KeyTimes, TokenCheck, TokenRefused};

fn later(seconds: u64) -> Instant {
    Instant(NOW.0 + seconds * 1000)
}

const TIMES: KeyTimes = KeyTimes { refresh_seconds: 100, stale_max_seconds: 1000 };

fn check(issuer: &Fake) -> TokenCheck {
    TokenCheck::keeping_keys(issuer.rules(), issuer.at("/jwks"), TIMES).unwrap()
}

/// What becomes of a token that is fresh at this time.
async fn judge(check: &TokenCheck, issuer: &Fake, key: &Key, now: Instant) -> Option<TokenRefused> {
    check.check(&key.token(&issuer.claims_at(now)), now).await.err()
}

/// Waits for what a task beside the calls does.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("this never came: {what}");
}

#[tokio::test]
async fn a_new_key_is_found_and_a_withdrawn_one_stops_within_the_refresh_time() {
    let (old, new) = (Key::named("old"), Key::named("new"));
    let issuer = Fake::publishing(&[&old]).await;
    let check = check(&issuer);
    assert_eq!(judge(&check, &issuer, &old, NOW).await, None);
    issuer.publish(&[&new]);
    assert_eq!(judge(&check, &issuer, &old, later(9)).await, None, "still known");
    assert_eq!(judge(&check, &issuer, &new, later(9)).await, Some(TokenRefused::Key), "asked just now");
    assert_eq!(judge(&check, &issuer, &new, later(11)).await, None, "rotation");
    assert_eq!(
        judge(&check, &issuer, &old, later(11)).await,
        Some(TokenRefused::Key),
        "found out on the way"
    );
    // Nobody names an unknown key this time.
    issuer.publish(&[&old]);
    assert_eq!(judge(&check, &issuer, &new, later(70)).await, None);
    until("the keys are refreshed beside", async || issuer.keys_asked() == 3).await;
    until("the withdrawn key stops", async || judge(&check, &issuer, &new, later(72)).await.is_some()).await;
    assert_eq!(judge(&check, &issuer, &old, later(72)).await, None);
    // After a silence longer than the refresh time, the issuer is asked before anything is believed.
    issuer.publish(&[&new]);
    assert_eq!(judge(&check, &issuer, &old, later(500)).await, Some(TokenRefused::Key));
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_no_flood_at_the_issuer() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let check = std::sync::Arc::new(check(&issuer));
    assert_eq!(judge(&check, &issuer, &key, NOW).await, None);
    let flood = |now: Instant| {
        let asking = (0..100).map(|number| {
            let (check, token) =
                (check.clone(), Key::named(&format!("junk-{number}")).token(&issuer.claims_at(now)));
            tokio::spawn(async move { check.check(&token, now).await.err() })
        });
        asking.collect::<Vec<_>>()
    };
    for (now, asked) in [(later(20), 2), (later(21), 2), (later(40), 3)] {
        for refused in flood(now) {
            assert_eq!(refused.await.unwrap(), Some(TokenRefused::Key));
        }
        assert_eq!(issuer.keys_asked(), asked);
        assert_eq!(judge(&check, &issuer, &key, now).await, None, "the known key");
    }
}

#[tokio::test]
async fn known_keys_go_on_for_a_bounded_time_while_the_issuer_is_down() {
    let (known, unknown) = (Key::named("known"), Key::named("unknown"));
    let issuer = Fake::publishing(&[&known]).await;
    let check = check(&issuer);
    assert_eq!(judge(&check, &issuer, &known, NOW).await, None);
    issuer.fail();
    assert_eq!(judge(&check, &issuer, &known, later(150)).await, None, "asked in vain");
    assert_eq!(judge(&check, &issuer, &unknown, later(151)).await, Some(TokenRefused::Unavailable));
    assert_eq!(judge(&check, &issuer, &known, later(999)).await, None, "nearly at the bound");
    assert_eq!(judge(&check, &issuer, &known, later(1000)).await, Some(TokenRefused::Unavailable));
    // It answers again, and has withdrawn the key.
    issuer.publish(&[&unknown]);
    until("the key stops", async || {
        judge(&check, &issuer, &known, later(1020)).await == Some(TokenRefused::Key)
    })
    .await;
    assert_eq!(judge(&check, &issuer, &unknown, later(1020)).await, None);
    // The control: an issuer that was never reached vouches for nothing.
    let silent = Fake::publishing(&[&known]).await;
    silent.fail();
    let fresh = self::check(&silent);
    assert_eq!(judge(&fresh, &silent, &known, NOW).await, Some(TokenRefused::Unavailable));
}

#[tokio::test]
async fn keys_are_found_through_metadata_that_is_the_issuers_own() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let judge = async |name: &str, value: Value| {
        let own = json!({ "issuer": issuer.name, "jwks_uri": format!("{}/jwks", issuer.name) });
        *issuer.told.metadata.lock().unwrap() = with(own, name, value);
        let source = KeySource::Discovered(Endpoint::new(&issuer.name).unwrap());
        let check = TokenCheck::new(issuer.rules(), source).unwrap();
        judge(&check, &issuer, &key, NOW).await
    };
    assert_eq!(judge("x", Value::Null).await, None, "the control");
    for (name, value) in [
        ("issuer", json!(format!("{}/", issuer.name))),
        ("issuer", json!("https://evil.example")),
        ("issuer", Value::Null),
        ("jwks_uri", Value::Null),
        // Where a document must not lead.
        ("jwks_uri", json!("http://169.254.169.254/latest/meta-data")),
        ("jwks_uri", json!("https://10.0.0.1/jwks")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("jwks_uri", json!("https://localhost/jwks")),
    ] {
        let refused = judge(name, value.clone()).await;
        assert_eq!(refused, Some(TokenRefused::Unavailable), "{name} = {value}");
    }
    assert_eq!(issuer.keys_asked(), 1, "the control's");
}

#[tokio::test]
async fn an_answer_that_leads_elsewhere_or_never_ends_gives_no_keys() {
    let key = Key::named("1");
    let issuer = Fake::publishing(&[&key]).await;
    let judge = async |path: &str| {
        let check = TokenCheck::new(issuer.rules(), issuer.at(path)).unwrap();
        judge(&check, &issuer, &key, NOW).await
    };
    assert_eq!(judge("/elsewhere").await, None, "the control: asked directly, it has the keys");
    assert_eq!(issuer.told.elsewhere_asked.load(Ordering::SeqCst), 1);
    for path in ["/redirect", "/long", "/missing"] {
        assert_eq!(judge(path).await, Some(TokenRefused::Unavailable), "{path}");
    }
    assert_eq!(issuer.told.elsewhere_asked.load(Ordering::SeqCst), 1, "no redirect was followed");
}

#[tokio::test]
async fn a_token_that_was_verified_before_ends_with_its_key_and_with_itself() {
    let (old, new) = (Key::named("1"), Key::named("1"));
    let issuer = Fake::publishing(&[&old]).await;
    let check = check(&issuer);
    let token = old.token(&issuer.claims());
    let judge = async |now: Instant| check.check(&token, now).await.err();
    assert_eq!(judge(NOW).await, None);
    assert_eq!(judge(later(1)).await, None, "the control");
    // Another audience is another question, also for a token that is known.
    let people = check.for_audience(super::PEOPLE.into());
    assert_eq!(people.check(&token, later(1)).await.err(), Some(TokenRefused::Audience));
    // The issuer has another key of the same name now.
    issuer.publish(&[&new]);
    assert_eq!(judge(later(200)).await, Some(TokenRefused::Signature));
    issuer.publish(&[&old]);
    assert_eq!(judge(later(400)).await, None);
    assert_eq!(judge(later(605)).await, Some(TokenRefused::Expired));
}

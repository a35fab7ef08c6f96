//! Tokens that are kept until they end: bounded, one request at a time for one key, and none beyond its life.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use ringfence_core::{Digest, Instant, Secret};
use tokio::task::JoinHandle;
use tokio::time::Instant as Moment;

use super::NoCredential;

/// Tokens that are kept at the most.
const KEPT_MAX: usize = 10_000;
/// A kept token is not used in the last part of its life, in milliseconds.
const MARGIN_MS: u64 = 10_000;
/// A token is kept no longer than this, however long its issuer lets it live.
const KEEP_MAX_MS: u64 = 300_000;
/// Runs of which it is known that they are over; a call outlives its run by minutes at the most.
const FORGOTTEN_MAX: usize = 100_000;
/// How often what has ended is dropped.
const SWEEP: Duration = Duration::from_secs(5);

/// A token as its issuer gave it.
pub(super) struct Minted {
    pub(super) token: Secret,
    /// How long it lives; none means that nobody knows, and then it is used once.
    pub(super) lifetime_seconds: Option<u64>,
    /// What it was made from, where that can change.
    pub(super) made_from: Digest,
}

/// What is kept under one name.
pub(super) struct Key {
    pub(super) name: Digest,
    /// The run.
    pub(super) owner: Digest,
    /// What a kept token has to be made from.
    pub(super) made_from: Digest,
}

#[derive(Default)]
pub(super) struct Cache {
    slots: Arc<Slots>,
    sweeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Slots {
    kept: Mutex<HashMap<Digest, Arc<Slot>>>,
    /// The last runs that are over, for whose late calls nothing is kept.
    forgotten: Mutex<Forgotten>,
}

#[derive(Default)]
struct Forgotten {
    owners: HashSet<Digest>,
    order: VecDeque<Digest>,
}

struct Slot {
    owner: Digest,
    /// How often it was asked for: whoever waited for a failure takes it as its own.
    rounds: AtomicU64,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    failed: Option<NoCredential>,
}

struct Kept {
    token: Secret,
    made_from: Digest,
    until: Instant,
    ends: Moment,
}

impl Cache {
    /// The token of this key; those who want the same at once wait for one answer, and share it where it is a no.
    pub(super) async fn token(
        &self,
        key: Key,
        now: Instant,
        mint: impl AsyncFnOnce() -> Result<Minted, NoCredential>,
    ) -> Result<Secret, NoCredential> {
        let slot = self.slots.slot(&key);
        let seen = slot.rounds.load(Ordering::Acquire);
        let mut state = slot.state.lock().await;
        let fits = |kept: &&Kept| now.0 < kept.until.0 && kept.made_from == key.made_from;
        if let Some(kept) = state.kept.as_ref().filter(fits) {
            return Ok(kept.token.clone());
        }
        if let Some(failed) = state.failed.as_ref().filter(|_| slot.rounds.load(Ordering::Acquire) != seen) {
            return Err(failed.clone());
        }
        let minted = mint().await;
        slot.rounds.fetch_add(1, Ordering::AcqRel);
        match minted {
            Ok(minted) => {
                let token = minted.token.clone();
                *state = State { kept: Kept::of(minted, now), failed: None };
                drop(state);
                self.sweep_from_now_on();
                Ok(token)
            }
            Err(failed) => {
                *state = State { kept: None, failed: Some(failed.clone()) };
                Err(failed)
            }
        }
    }

    /// Drops what is kept for a run that is over. A token that is being made meanwhile, or later, serves the call that asked
    /// for it alone.
    pub(super) fn forget(&self, owner: Digest) {
        if let Ok(mut forgotten) = self.slots.forgotten.lock() {
            forgotten.add(owner);
        }
        if let Ok(mut slots) = self.slots.kept.lock() {
            slots.retain(|_, slot| slot.owner != owner);
        }
    }

    fn sweep_from_now_on(&self) {
        let Ok(mut sweeper) = self.sweeper.lock() else { return };
        let slots = Arc::downgrade(&self.slots);
        sweeper.get_or_insert_with(|| tokio::spawn(sweep(slots)));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.kept.lock().map_or(0, |slots| slots.len())
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Ok(Some(sweeper)) = self.sweeper.get_mut().map(Option::take) {
            sweeper.abort();
        }
    }
}

async fn sweep(slots: Weak<Slots>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(slots) = slots.upgrade() else { return };
        slots.drop_ended(Moment::now());
    }
}

impl Slots {
    /// The place of a key. Where there is no room, or its run is over, one that nobody shares: asked for each time, and never kept.
    fn slot(&self, key: &Key) -> Arc<Slot> {
        let new = || Arc::new(Slot::new(key.owner));
        let is_full =
            self.kept.lock().is_ok_and(|slots| slots.len() >= KEPT_MAX && !slots.contains_key(&key.name));
        if is_full {
            self.drop_ended(Moment::now());
        }
        let Ok(mut slots) = self.kept.lock() else { return new() };
        // Looked at while the places are held, so that whoever forgets a run comes before this, or after it and drops it.
        let is_over = self.forgotten.lock().map_or(true, |forgotten| forgotten.owners.contains(&key.owner));
        if is_over || slots.len() >= KEPT_MAX && !slots.contains_key(&key.name) {
            return new();
        }
        slots.entry(key.name).or_insert_with(new).clone()
    }

    fn drop_ended(&self, now: Moment) {
        if let Ok(mut slots) = self.kept.lock() {
            slots.retain(|_, slot| match slot.state.try_lock() {
                Ok(state) => state.kept.as_ref().is_some_and(|kept| now < kept.ends),
                // Somebody is asking for it.
                Err(_) => true,
            });
        }
    }
}

impl Forgotten {
    fn add(&mut self, owner: Digest) {
        if self.owners.insert(owner) {
            self.order.push_back(owner);
        }
        if self.order.len() > FORGOTTEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }
}

impl Slot {
    fn new(owner: Digest) -> Self {
        Self { owner, rounds: AtomicU64::new(0), state: tokio::sync::Mutex::default() }
    }
}

impl Kept {
    fn of(minted: Minted, now: Instant) -> Option<Self> {
        let lifetime_ms = minted.lifetime_seconds?.saturating_mul(1000);
        let usable_ms = lifetime_ms.saturating_sub(MARGIN_MS).min(KEEP_MAX_MS);
        let until = Instant(now.0.saturating_add(usable_ms));
        let ends = Moment::now() + Duration::from_millis(usable_ms);
        let kept = Self { token: minted.token, made_from: minted.made_from, until, ends };
        (usable_ms > 0).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { name: Digest::of(&[name.as_bytes()]), owner: Digest::of(&[b"bob"]), made_from: Digest::ZERO }
    }

    fn minted(token: &str, lifetime_seconds: Option<u64>) -> Minted {
        Minted { token: Secret::new(token.into()), lifetime_seconds, made_from: Digest::ZERO }
    }

    async fn token(cache: &Cache, at: u64, minted: Minted) -> String {
        let token = cache.token(key("k"), Instant(at), async || Ok(minted)).await;
        token.map_or_else(|error| error.to_string(), |token| token.expose().to_owned())
    }

    #[tokio::test]
    async fn a_token_is_used_until_shortly_before_its_end_and_then_dropped() {
        let cache = Cache::default();
        assert_eq!(token(&cache, 0, minted("first", Some(60))).await, "first");
        assert_eq!(token(&cache, 49_999, minted("second", Some(60))).await, "first");
        cache.slots.drop_ended(Moment::now());
        assert_eq!(cache.len(), 1, "the control");
        cache.slots.drop_ended(Moment::now() + Duration::from_secs(50));
        assert_eq!(cache.len(), 0, "nobody asked, and it is gone");
        assert_eq!(token(&cache, 50_000, minted("third", None)).await, "third");
        assert_eq!(token(&cache, 50_000, minted("fourth", Some(86_400))).await, "fourth", "used once");
        assert_eq!(token(&cache, 349_999, minted("fifth", Some(60))).await, "fourth");
        assert_eq!(
            token(&cache, 350_000, minted("fifth", Some(60))).await,
            "fifth",
            "five minutes at the most"
        );
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_waited_and_by_nobody_later() {
        let cache = Arc::new(Cache::default());
        let asked = Arc::new(AtomicU64::new(0));
        let go = Arc::new(tokio::sync::Semaphore::new(0));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let (cache, asked, go) = (cache.clone(), asked.clone(), go.clone());
                tokio::spawn(async move {
                    let mint = async || {
                        asked.fetch_add(1, Ordering::SeqCst);
                        let _until_all_wait = go.acquire().await;
                        Err(NoCredential::Refused("invalid_grant"))
                    };
                    cache.token(key("k"), Instant(0), mint).await.is_err()
                })
            })
            .collect();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        go.add_permits(1);
        for call in calls {
            assert!(call.await.unwrap());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "one answer for all");
        assert_eq!(token(&cache, 0, minted("later", Some(60))).await, "later");
    }

    #[tokio::test]
    async fn what_is_forgotten_or_made_from_something_else_is_made_anew() {
        let cache = Cache::default();
        assert_eq!(token(&cache, 0, minted("first", Some(60))).await, "first");
        let other = Key { made_from: Digest::of(&[b"x"]), ..key("k") };
        let made = Minted {
            token: Secret::new("second".into()),
            lifetime_seconds: Some(60),
            made_from: other.made_from,
        };
        assert_eq!(cache.token(other, Instant(0), async || Ok(made)).await.unwrap().expose(), "second");
        cache.forget(Digest::of(&[b"eve"]));
        assert_eq!(cache.len(), 1);
        cache.forget(Digest::of(&[b"bob"]));
        assert_eq!(cache.len(), 0);
    }

    #[tokio::test]
    async fn nothing_is_kept_for_a_run_that_is_over_whenever_it_was_asked_for() {
        let cache = Cache::default();
        assert_eq!(token(&cache, 0, minted("before", Some(60))).await, "before");
        assert_eq!(cache.len(), 1, "the control");
        cache.forget(Digest::of(&[b"bob"]));
        let amid = async || {
            cache.forget(Digest::of(&[b"eve"]));
            Ok(minted("amid", Some(60)))
        };
        let eves = Key { owner: Digest::of(&[b"eve"]), ..key("e") };
        assert_eq!(cache.token(eves, Instant(0), amid).await.unwrap().expose(), "amid");
        for late in ["late", "later"] {
            assert_eq!(token(&cache, 0, minted(late, Some(60))).await, late, "made anew each time");
        }
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_last_runs_that_are_over_are_known_and_no_more() {
        let mut forgotten = Forgotten::default();
        let run = |number: usize| Digest::of(&[&number.to_be_bytes()]);
        (0..=FORGOTTEN_MAX).for_each(|number| forgotten.add(run(number)));
        assert_eq!((forgotten.owners.len(), forgotten.order.len()), (FORGOTTEN_MAX, FORGOTTEN_MAX));
        assert!(!forgotten.owners.contains(&run(0)) && forgotten.owners.contains(&run(FORGOTTEN_MAX)));
    }

    #[tokio::test]
    async fn ten_thousand_are_kept_and_no_more() {
        let cache = Cache::default();
        for number in 0..KEPT_MAX + 10 {
            let key = key(&number.to_string());
            assert!(cache.token(key, Instant(0), async || Ok(minted("a-token", Some(60)))).await.is_ok());
        }
        assert_eq!(cache.len(), KEPT_MAX);
    }
}

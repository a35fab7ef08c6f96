//! Accounts at third parties: connected once by the user that they belong to, used in that user's name alone.
//!
//! What is kept on disk is the refresh token, sealed. Access tokens stay in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use ringfence_core::{Digest, Instant, Secret, SystemName};
use serde_json::{Value, json};

use super::cache::{Cache, Key, Minted};
use super::grant::StoredGrant;
use super::{
    Answered, GrantStore, GrantsUnavailable, Link, Links, NoCredential, Owner, Sealer, Wanted, digest, owner,
};
use crate::login::{
    CodeClient, CodeClientRefused, CodeClientSettings, NotLoggedIn, Pending, Returned, random_text,
};

/// How long another process may take to keep what it has renewed.
const RENEWAL: Duration = Duration::from_secs(5);

/// One system whose users connect accounts.
pub struct AccountSettings {
    /// The third party.
    pub client: CodeClientSettings,
}

/// All systems whose users connect accounts.
pub struct AccountsSettings {
    /// The people's door as browsers reach it.
    pub base: String,
    /// Seals what is kept.
    pub sealer: Sealer,
    /// Keeps it.
    pub store: Arc<dyn GrantStore>,
    /// The systems.
    pub systems: BTreeMap<SystemName, AccountSettings>,
}

/// The accounts of all users.
pub struct Accounts {
    base: String,
    sealer: Sealer,
    store: Arc<dyn GrantStore>,
    clients: BTreeMap<SystemName, CodeClient>,
    pub(crate) links: Links,
    cache: Cache,
    /// One request at a time for one grant: a refresh token that rotates is good once.
    turns: Mutex<HashMap<Owner, Weak<tokio::sync::Mutex<()>>>>,
}

/// Why there is no account, and where to connect one.
#[derive(Clone)]
pub struct NotConnected {
    /// What happened to it.
    pub why: &'static str,
    /// For the user; none where there are too many.
    pub link: Option<Link>,
}

/// What is sealed.
struct Grant {
    /// Good for more access tokens.
    refresh: Option<Secret>,
    /// Where the third party gives no refresh token: the access token, and its end.
    access: Option<(Secret, Option<Instant>)>,
}

/// Without the link, which is for the user.
impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl fmt::Debug for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotConnected({:?})", self.why)
    }
}

impl Accounts {
    /// Accounts of these systems.
    pub fn new(settings: AccountsSettings) -> Result<Self, CodeClientRefused> {
        let AccountsSettings { base, sealer, store, systems } = settings;
        let clients = systems.into_iter().map(|(name, system)| Ok((name, CodeClient::new(system.client)?)));
        Ok(Self {
            base,
            sealer,
            store,
            clients: clients.collect::<Result<_, CodeClientRefused>>()?,
            links: Links::default(),
            cache: Cache::default(),
            turns: Mutex::default(),
        })
    }

    /// The token of the principal's account at this system.
    pub async fn token_for(&self, wanted: Wanted<'_>) -> Result<Secret, NoCredential> {
        let principal = wanted.run.principal();
        let (issuer, subject) = (principal.issuer().to_owned(), principal.subject().to_owned());
        let whose = Owner { issuer, subject, system: wanted.system.clone() };
        let client = self.client(wanted.system)?;
        let scopes = wanted.scopes.unwrap_or(client.scopes());
        // Read each time, so that an account that was disconnected is so at once, by whichever process.
        let Some(stored) = self.store.read(&whose)? else {
            return Err(self.not_connected("no account was ever connected", &whose, wanted.now));
        };
        let owner = owner(wanted.run.id());
        let key = Key {
            name: digest(&[&owner.to_string(), wanted.system.as_str(), &scopes.join(" ")]),
            owner,
            made_from: digest(&[&stored.connection]),
        };
        self.cache.token(key, wanted.now, async || self.mint(client, &whose, scopes, wanted.now).await).await
    }

    pub(super) fn forget(&self, owner: Digest) {
        self.cache.forget(owner);
    }

    fn client(&self, system: &SystemName) -> Result<&CodeClient, NoCredential> {
        self.clients.get(system).ok_or(NoCredential::Unsound("this system has no accounts"))
    }

    async fn mint(
        &self,
        client: &CodeClient,
        owner: &Owner,
        scopes: &[String],
        now: Instant,
    ) -> Result<Minted, NoCredential> {
        let turn = self.turn(owner);
        let _mine = turn.lock().await;
        // Whoever had the turn before, here or in another process, may have changed it.
        let Some(stored) = self.store.read(owner)? else {
            return Err(self.not_connected("the account was disconnected", owner, now));
        };
        match self.mint_from(client, owner, &stored, scopes, now).await {
            Err(NoCredential::Refused("invalid_grant")) => {
                match self.renewed_elsewhere(owner, &stored).await? {
                    Some(renewed) => self.mint_from(client, owner, &renewed, scopes, now).await,
                    None => {
                        self.store.remove(owner, &stored)?;
                        Err(self.not_connected(
                            "the third party has ended the connection, or a renewal of it was lost",
                            owner,
                            now,
                        ))
                    }
                }
            }
            other => other,
        }
    }

    /// What another process keeps instead of a grant that was refused. It may have spent the refresh token a moment ago and
    /// keep the next one in a moment: removed meanwhile, that one would be lost.
    async fn renewed_elsewhere(
        &self,
        owner: &Owner,
        refused: &StoredGrant,
    ) -> Result<Option<StoredGrant>, NoCredential> {
        let until = tokio::time::Instant::now() + RENEWAL;
        loop {
            let stored = self.store.read(owner)?.filter(|stored| stored != refused);
            if stored.is_some() || tokio::time::Instant::now() >= until {
                return Ok(stored);
            }
            tokio::time::sleep(RENEWAL / 50).await;
        }
    }

    async fn mint_from(
        &self,
        client: &CodeClient,
        owner: &Owner,
        stored: &StoredGrant,
        scopes: &[String],
        now: Instant,
    ) -> Result<Minted, NoCredential> {
        let made_from = digest(&[&stored.connection]);
        let grant = match self.sealer.open(owner, &stored.sealed) {
            Ok(text) => Grant::read(&text).ok_or(NoCredential::Unsound("what was sealed is no grant"))?,
            Err(error) => {
                tracing::error!(%error, system = %owner.system, "a connected account cannot be opened");
                return Err(self.not_connected("what is kept of the account cannot be opened", owner, now));
            }
        };
        let Some(refresh) = &grant.refresh else {
            let (token, lifetime_seconds) = self.lasting(grant, owner, now)?;
            return Ok(Minted { token, lifetime_seconds, made_from });
        };
        let answered = client.refresh(refresh, scopes, now).await?;
        if let Some(renewed) = answered.refresh_token.filter(|renewed| renewed.expose() != refresh.expose()) {
            self.keep_renewed(owner, stored, renewed, now)?;
        }
        Ok(Minted { token: answered.token, lifetime_seconds: answered.lifetime_seconds, made_from })
    }

    /// The one access token of a third party that gives no refresh token.
    fn lasting(
        &self,
        grant: Grant,
        owner: &Owner,
        now: Instant,
    ) -> Result<(Secret, Option<u64>), NoCredential> {
        let (token, until) = grant.access.ok_or(NoCredential::Unsound("what was sealed is no grant"))?;
        match until.map(|until| until.seconds().saturating_sub(now.seconds())) {
            Some(0) => Err(self.not_connected("the account's token has ended", owner, now)),
            left => Ok((token, left)),
        }
    }

    /// The old refresh token is good no more. Where the new one cannot be kept the connection is lost, and that is said.
    fn keep_renewed(
        &self,
        owner: &Owner,
        was: &StoredGrant,
        renewed: Secret,
        now: Instant,
    ) -> Result<(), NoCredential> {
        let grant = Grant { refresh: Some(renewed), access: None };
        let sealed = self.sealer.seal(owner, &grant.text()).ok_or(NoCredential::Unsound("no randomness"))?;
        match self.store.replace(owner, was, &sealed) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.not_connected("the account was disconnected meanwhile", owner, now)),
            Err(error) => {
                tracing::error!(%error, system = %owner.system, "a renewed account could not be kept, and its connection is lost");
                Err(error.into())
            }
        }
    }

    fn turn(&self, owner: &Owner) -> Arc<tokio::sync::Mutex<()>> {
        let Ok(mut turns) = self.turns.lock() else { return Arc::default() };
        if let Some(turn) = turns.get(owner).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(owner.clone(), Arc::downgrade(&turn));
        turn
    }

    fn not_connected(&self, why: &'static str, owner: &Owner, now: Instant) -> NoCredential {
        let ticket = self.links.issue(owner, now);
        let url =
            |ticket: Secret| format!("{}/connect/{}?ticket={}", self.base, owner.system, ticket.expose());
        NoCredential::NotConnected(NotConnected { why, link: ticket.map(|ticket| Link { url: url(ticket) }) })
    }

    /// Where to send a browser so that its user connects an account, and what to keep meanwhile.
    pub(crate) fn begin(&self, system: &SystemName) -> Option<(String, Pending)> {
        self.clients.get(system)?.begin(&self.back(system))
    }

    /// Who is asked, and for which scopes.
    pub(crate) fn described(&self, system: &SystemName) -> Option<(&str, &[String])> {
        self.clients.get(system).map(|client| (client.host(), client.scopes()))
    }

    /// Where the third party sends browsers back to: a place for each, so that the answer of one is never taken for another's
    /// (RFC 9700 §4.4.2.2).
    fn back(&self, system: &SystemName) -> String {
        format!("{}/connect/{system}/back", self.base)
    }

    /// Keeps the account that somebody has come back with.
    pub(crate) async fn finish(
        &self,
        owner: &Owner,
        pending: &Pending,
        returned: Returned,
        now: Instant,
    ) -> Result<(), NotLoggedIn> {
        let answered = self.client(&owner.system)?.finish(pending, returned, now).await?;
        let sealed = self.sealer.seal(owner, &Grant::of(answered, now).text());
        let no_randomness = NoCredential::Unsound("no randomness");
        let (Some(sealed), Some(connection)) = (sealed, random_text()) else {
            return Err(no_randomness.into());
        };
        let turn = self.turn(owner);
        let _mine = turn.lock().await;
        let grant = StoredGrant { connection: connection.expose().to_owned(), sealed };
        self.store.put(owner, &grant, now).map_err(NoCredential::from)?;
        Ok(())
    }
}

impl Grant {
    fn of(answered: Answered, now: Instant) -> Self {
        let Answered { token, lifetime_seconds, refresh_token, .. } = answered;
        if refresh_token.is_some() {
            return Self { refresh: refresh_token, access: None };
        }
        let until =
            lifetime_seconds.map(|seconds| Instant(now.0.saturating_add(seconds.saturating_mul(1000))));
        Self { refresh: None, access: Some((token, until)) }
    }

    fn text(&self) -> Secret {
        let access = self.access.as_ref().map(|(token, until)| json!([token.expose(), until]));
        let refresh = self.refresh.as_ref().map(Secret::expose);
        Secret::new(json!({ "refresh": refresh, "access": access }).to_string())
    }

    fn read(text: &Secret) -> Option<Self> {
        let mut read: Value = serde_json::from_str(text.expose()).ok()?;
        let secret = |value: Value| match value {
            Value::String(text) => Some(Secret::new(text)),
            _ => None,
        };
        let refresh = secret(read.get_mut("refresh")?.take());
        let access = match read.get_mut("access")?.take() {
            Value::Array(mut pair) => {
                let until = serde_json::from_value(pair.pop()?).ok()?;
                Some((secret(pair.pop()?)?, until))
            }
            _ => None,
        };
        Some(Self { refresh, access })
    }
}

impl From<GrantsUnavailable> for NoCredential {
    fn from(error: GrantsUnavailable) -> Self {
        Self::Unreachable(error.to_string())
    }
}

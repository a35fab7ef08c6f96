//! Runs: an application starts one for its user, a client that logs in directly gets one of its own, and each can be revoked.

mod revoke;
mod start;
mod token;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use ringfence_core::{AgentId, Instant, Label, Refusal, RunId, Secret};
use ringfence_identity::{Application, Door, Identified, TokenRefused, VerifiedToken};
use ringfence_store::{Begun, Ending, Lifetime, NoRun, Owner, Revocation, RunFilter, Runs, Scope, StoredRun};
use uuid::Uuid;

use crate::caller::{NotIdentified, Sent};
use crate::pipeline::Inner;
use crate::{Caller, Gateway};

pub use revoke::NotRevoked;
pub use start::{NotStarted, Start, Started};
pub(crate) use token::is_one as is_run_token;

/// How long runs may live.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Those that no application started.
    pub implicit: Lifetime,
    /// Those that an application starts, in milliseconds: at the most, and where it does not say.
    pub started_max_ms: u64,
}

impl Default for RunLimits {
    /// An hour without a call and twelve in all; an hour for those that an application starts.
    fn default() -> Self {
        const HOUR_MS: u64 = 3_600_000;
        Self { implicit: Lifetime { idle_ms: HOUR_MS, total_ms: 12 * HOUR_MS }, started_max_ms: HOUR_MS }
    }
}

/// An application that may start runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApplicationRule {
    /// The issuer that vouches for it and its users; where one alone is trusted, it need not be said.
    pub issuer: Option<String>,
    /// Its OAuth client.
    pub client: AgentId,
    /// The agents that it may start runs of.
    pub agents: BTreeSet<AgentId>,
}

impl ApplicationRule {
    fn is_for(&self, issuer: &str, client: &AgentId) -> bool {
        self.client == *client && self.issuer.as_ref().is_none_or(|known| known == issuer)
    }
}

/// The runs of a gateway, with what of them is kept in memory alone.
pub(crate) struct RunBook {
    pub(crate) stored: Runs,
    pub(crate) limits: RunLimits,
    applications: Vec<ApplicationRule>,
    /// The tokens of the users that applications started runs for, to be exchanged for those of systems. They are on no disk:
    /// a run that outlives its gateway does without.
    subject_tokens: Mutex<HashMap<RunId, Secret>>,
    /// The last change that this gateway has acted upon.
    seen: Mutex<u64>,
}

impl RunBook {
    pub(crate) fn new(stored: Runs, limits: RunLimits, applications: Vec<ApplicationRule>) -> Self {
        // What ended before has nothing here that could go on.
        let seen = Mutex::new(stored.last_change().unwrap_or(0));
        Self { stored, limits, applications, subject_tokens: Mutex::default(), seen }
    }

    /// What the project says of this application.
    fn application(&self, issuer: &str, client: &AgentId) -> Option<&ApplicationRule> {
        self.applications.iter().find(|rule| rule.is_for(issuer, client))
    }

    /// Whether the application of a run may still start runs of its agent.
    fn may_start(&self, run: &StoredRun) -> bool {
        let rule = run.terms.application.as_ref().and_then(|client| self.application(&run.issuer, client));
        rule.is_some_and(|rule| rule.agents.contains(&run.agent))
    }

    fn subject_token(&self, run: &RunId) -> Option<Secret> {
        self.subject_tokens.lock().ok()?.get(run).cloned()
    }
}

impl Inner {
    /// The caller behind a run's token.
    pub(crate) async fn caller_of_run(&self, sent: &Sent<'_>, now: Instant) -> Result<Caller, NotIdentified> {
        let run = match self.runs.stored.with_token(&token::hash(&sent.token), now) {
            Ok(run) => run,
            Err(refused) => return Err(self.no_run(refused).await),
        };
        let owner = (run.issuer.as_str(), run.subject.as_str());
        let proved = self.identity.check_key(&sent.presented(), run.key.as_deref(), owner, now);
        self.judged(proved).await?;
        // Without the user's token nobody could be asked whether the user still has access.
        let is_asked = self.identity.is_rechecked(&run.issuer);
        let cannot_ask = is_asked && self.runs.subject_token(&run.id).is_none();
        if cannot_ask || !self.runs.may_start(&run) {
            return Err(self.no_run(NoRun::Ended(Ending::Revoked)).await);
        }
        let restored = self.restored(run);
        let caller = self.judged(restored).await?;
        if let Some(token) = &caller.subject_token {
            self.vouched_for(&caller.run, token, now).await?;
        }
        Ok(caller)
    }

    /// Asks the issuer, as often as the project says, whether it still vouches for the user of a run. If not, the run is over.
    async fn vouched_for(&self, run: &RunId, token: &Secret, now: Instant) -> Result<(), NotIdentified> {
        let Err(refused) = self.identity.still_good(Door::People, token, now).await else { return Ok(()) };
        if refused == TokenRefused::Unavailable {
            return self.judged(Err(refused)).await;
        }
        let scope = Scope::Run(run.to_string());
        let reason = refused.to_string();
        let revocation = Revocation { scope: &scope, by: "the issuer of the user's token", reason: &reason };
        if let Err(error) = self.revoke(&revocation).await {
            tracing::error!(%error, "a run that its issuer no longer vouches for could not be revoked");
        }
        Err(self.no_run(NoRun::Ended(Ending::Revoked)).await)
    }

    fn restored(&self, run: StoredRun) -> Result<Caller, TokenRefused> {
        let StoredRun { id, issuer, subject, agent, terms, expires, claims, scopes, .. } = run;
        let scopes = scopes.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        let client = agent.as_str().to_owned();
        let verified = VerifiedToken { subject, client, scopes, expires, claims };
        let identified = self.identity.restored(&issuer, verified)?;
        let subject_token = self.runs.subject_token(&id);
        Ok(Caller { identified: Arc::new(identified), subject_token, run: id, terms: Arc::new(terms) })
    }

    /// The caller that logged in directly: its run is the one of its user and its client.
    pub(crate) async fn caller_of_client(
        &self,
        identified: Identified,
        token: Secret,
        now: Instant,
    ) -> Result<Caller, NotIdentified> {
        let scopes = words(&identified);
        let owner = owner(&identified, &scopes);
        let fresh = RunId::new(Uuid::now_v7());
        let (run, begun) = match self.runs.stored.implicit(&owner, &fresh, self.runs.limits.implicit, now) {
            Ok(found) => found,
            Err(refused) => return Err(self.no_run(refused).await),
        };
        let expires = identified.expires.min(run.expires);
        let caller = Caller {
            identified: Arc::new(Identified { expires, ..identified }),
            subject_token: Some(token),
            run: run.id,
            terms: Arc::new(run.terms),
        };
        if let Some(begun) = begun {
            self.begin(&caller, begun, now).await?;
        }
        Ok(caller)
    }

    /// Records that a run begins, with the labels of the one that it follows: an engine that waits forgets nothing.
    async fn begin(&self, caller: &Caller, begun: Begun, now: Instant) -> Result<(), NotIdentified> {
        let labels = begun.follows.map_or_else(|| Ok(BTreeSet::new()), |before| self.labels(&before));
        let labels = labels.map_err(|_| NotIdentified::Unavailable)?;
        self.journal.run_started(&caller.run(labels), now).await.map_err(|error| {
            tracing::error!(%error, "a run could not be recorded, so it has not begun");
            NotIdentified::Unavailable
        })?;
        // Until here whoever comes for the same run records it too: a client that hangs up leaves none without its labels.
        self.runs.stored.recorded(&caller.run).map_err(|error| {
            tracing::error!(%error, "a run could not be recorded, so it has not begun");
            NotIdentified::Unavailable
        })
    }

    /// A run that may not go on: journalled, and said in a way that makes a client log in where that helps.
    async fn no_run(&self, refused: NoRun) -> NotIdentified {
        let (code, refusal) = match refused {
            NoRun::Unknown => ("run_unknown", NotIdentified::RunUnknown),
            NoRun::Ended(_) | NoRun::Spent(_) | NoRun::TooMany(_) => ("run_ended", NotIdentified::RunEnded),
            NoRun::LoginNeeded => ("run_revoked", NotIdentified::LoginNeeded),
            NoRun::Unusable(error) => {
                tracing::error!(error, "a run could not be looked up, so nothing was done");
                ("runs_unreadable", NotIdentified::Unavailable)
            }
        };
        self.journal.rejected(self.clock.now(), code).await;
        refusal
    }
}

impl Gateway {
    /// Runs, newest first.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<StoredRun>, NoRun> {
        self.inner.runs.stored.list(filter, self.inner.clock.now())
    }

    /// What a run has touched so far.
    pub fn labels(&self, run: &RunId) -> Result<BTreeSet<Label>, Refusal> {
        self.inner.labels(run)
    }

    /// Whether the project names this application.
    #[must_use]
    pub fn knows(&self, application: &Application) -> bool {
        self.inner.runs.application(&application.issuer, &application.client).is_some()
    }

    /// What time it is here.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.inner.clock.now()
    }

    /// One run.
    pub fn run(&self, run: &str) -> Result<Option<StoredRun>, NoRun> {
        self.inner.runs.stored.find(run)
    }
}

fn owner<'a>(identified: &'a Identified, scopes: &'a str) -> Owner<'a> {
    let principal = &identified.principal;
    // OpenID Connect Core §2, RFC 9068 §2.2.1: when the user logged in, which no refresh changes.
    let login = principal.claims().get("auth_time").and_then(serde_json::Value::as_u64);
    Owner {
        issuer: principal.issuer(),
        subject: principal.subject(),
        agent: &identified.agent,
        claims: principal.claims(),
        scopes,
        login: login.map(|seconds| Instant(seconds.saturating_mul(1000))),
    }
}

fn words(identified: &Identified) -> String {
    identified.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

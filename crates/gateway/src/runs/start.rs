//! An application starts a run: for a user whose token it holds, for an agent of its own, narrower than both.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_actions::nearest_tools;
use ringfence_core::{AgentId, Instant, RunId, Secret, Terms, ToolName};
use ringfence_identity::{Application, Door, Identified, TokenRefused};
use ringfence_store::{NoRun, Starting};
use uuid::Uuid;

use super::{owner, token, words};
use crate::{Caller, Gateway};

/// The longest request or purpose, in bytes.
const WORDS_MAX: usize = 16 << 10;

/// A run that an application asks for.
pub struct Start {
    /// The token that the user gave to the application.
    pub user_token: Secret,
    /// The agent that will act.
    pub agent: AgentId,
    /// What it is started with.
    pub terms: Terms,
    /// How long it lives, in seconds; none: as long as it may.
    pub expires_in_seconds: Option<u64>,
    /// The thumbprint of the key that the agent will prove to have (RFC 9449 §6).
    pub key: Option<String>,
}

/// A run that was started.
pub struct Started {
    /// Its name.
    pub run: RunId,
    /// What the agent shows at the agents' door.
    pub token: Secret,
    /// When it ends.
    pub expires: Instant,
    /// The tools that it can see.
    pub tools: Vec<ToolName>,
}

/// Why no run was started. The text is for the application.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The user's token was refused.
    #[error("the user's token was refused: {0}")]
    UserToken(TokenRefused),
    /// It was given to another client.
    #[error("the user's token was given to another client than this application")]
    AnothersToken,
    /// The agent is not one of the application's.
    #[error("this application may not start runs of this agent; name it in the application's `agents`")]
    ForeignAgent,
    /// It has as many as it may.
    #[error("{0}")]
    TooMany(String),
    /// The user has to log in again, since something of this user's was revoked.
    #[error("this user or agent was revoked; it takes a fresh login (`auth_time` of the user's token)")]
    LoginNeeded,
    /// A tool does not exist.
    #[error("there is no tool `{0}`{1}")]
    UnknownTool(String, String),
    /// Something is too long, or nothing.
    #[error("{0}")]
    Unfit(&'static str),
    /// It could not be recorded.
    #[error("the run could not be recorded, so it was not started; try again later")]
    NotRecorded,
}

impl NotStarted {
    /// The word for it on the wire and in the journal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UserToken(refused) => refused.code(),
            Self::AnothersToken => "user_token_of_another_client",
            Self::ForeignAgent => "foreign_agent",
            Self::TooMany(_) => "too_many_runs",
            Self::LoginNeeded => "login_needed",
            Self::UnknownTool(..) => "unknown_tool",
            Self::Unfit(_) => "unfit",
            Self::NotRecorded => "not_recorded",
        }
    }
}

impl Gateway {
    /// Starts a run for an application that proved who it is. Never longer than the user's token lives.
    pub async fn start_run(&self, application: &Application, start: Start) -> Result<Started, NotStarted> {
        let started = self.started(application, start).await;
        if let Err(refused) = &started {
            self.rejected(refused.code()).await;
        }
        started
    }

    async fn started(&self, application: &Application, start: Start) -> Result<Started, NotStarted> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let rule = inner.runs.application(&application.issuer, &application.client);
        if !rule.is_some_and(|rule| rule.agents.contains(&start.agent)) {
            return Err(NotStarted::ForeignAgent);
        }
        let user = inner.identity.handed_over(Door::People, &start.user_token, application, now).await;
        let user = user.map_err(NotStarted::UserToken)?;
        if user.agent != application.client || user.principal.issuer() != application.issuer {
            return Err(NotStarted::AnothersToken);
        }
        let terms = Terms { application: Some(application.client.clone()), ..start.terms };
        self.check(&terms)?;
        // RFC 7638 §3: SHA-256, in base64url without padding.
        if start
            .key
            .as_ref()
            .is_some_and(|key| URL_SAFE_NO_PAD.decode(key).map_or(0, |hash| hash.len()) != 32)
        {
            return Err(NotStarted::Unfit("`dpop_jkt` is no thumbprint of a key (RFC 7638)"));
        }
        let asked_ms = start.expires_in_seconds.unwrap_or(u64::MAX).saturating_mul(1000);
        let most = Instant(now.0.saturating_add(asked_ms.min(inner.runs.limits.started_max_ms)));
        let identified = Identified { agent: start.agent, expires: user.expires.min(most), ..user };
        let token = token::fresh().ok_or(NotStarted::NotRecorded)?;
        let (id, expires, scopes) = (RunId::new(Uuid::now_v7()), identified.expires, words(&identified));
        let starting = Starting {
            id: id.clone(),
            token: token::hash(&token),
            key: start.key.as_deref(),
            owner: owner(&identified, &scopes),
            terms: &terms,
            expires,
        };
        inner.runs.stored.start(&starting, now).map_err(|refused| match refused {
            NoRun::LoginNeeded => NotStarted::LoginNeeded,
            NoRun::TooMany(_) => NotStarted::TooMany(refused.to_string()),
            other => {
                tracing::error!(error = %other, "a run could not be started");
                NotStarted::NotRecorded
            }
        })?;
        let subject_token = Some(start.user_token);
        let (identified, terms) = (Arc::new(identified), Arc::new(terms));
        let caller = Caller { identified, subject_token, run: id.clone(), terms };
        self.record_start(&caller, now).await?;
        let tools = self.tools(&caller).await.map_err(|_| NotStarted::NotRecorded)?;
        let tools = tools.into_iter().map(|tool| tool.name().clone()).collect();
        Ok(Started { run: id, token, expires, tools })
    }

    /// Only a run that the journal knows of gets its token.
    async fn record_start(&self, caller: &Caller, now: Instant) -> Result<(), NotStarted> {
        let run = caller.run(BTreeSet::new());
        if let Err(error) = self.inner.journal.run_started(&run, now).await {
            tracing::error!(%error, "a run could not be recorded, so it was not started");
            return Err(NotStarted::NotRecorded);
        }
        if let (Ok(mut tokens), Some(token)) = (self.inner.runs.subject_tokens.lock(), &caller.subject_token)
        {
            tokens.insert(run.id().clone(), token.clone());
        }
        // Whoever revoked it meanwhile found no token to forget.
        let found = self.inner.runs.stored.find(run.id().as_str());
        if !found.is_ok_and(|found| found.is_some_and(|found| found.ended.is_none())) {
            self.inner.end_run(run.id());
            return Err(NotStarted::LoginNeeded);
        }
        Ok(())
    }

    fn check(&self, terms: &Terms) -> Result<(), NotStarted> {
        let texts = [&terms.request, &terms.purpose];
        if texts.iter().any(|text| text.as_ref().is_some_and(|text| text.len() > WORDS_MAX)) {
            return Err(NotStarted::Unfit("`request` and `purpose` may have 16 KiB each"));
        }
        let space = &self.inner.space;
        let all: Vec<&ToolName> = space.tools().map(ringfence_actions::Tool::name).collect();
        let unknown = terms.tools.iter().flatten().find(|tool| space.tool(tool.as_str()).is_none());
        match unknown {
            Some(tool) => {
                let nearest = nearest_tools(tool.as_str(), &all);
                let hint = nearest.first().map(|name| format!("; the nearest is `{name}`"));
                Err(NotStarted::UnknownTool(tool.to_string(), hint.unwrap_or_default()))
            }
            None => Ok(()),
        }
    }
}

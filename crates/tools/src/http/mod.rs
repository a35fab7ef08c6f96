//! HTTP tools: a request is put together from values, sent to one fixed origin under the principal's own credential,
//! and only the declared fields of the answer come back.

mod answer;
mod request;

use std::time::Duration;

use reqwest::redirect;
use ringfence_actions::{HttpRequest, Tool};
use ringfence_core::{Call, Effect, Refusal, RefusalClass, Retry, RunId, Secret, Wall};
use ringfence_identity::credential::{Credential, Held, NoCredential, NotConnected, Wanted};
use url::Url;

use crate::outcome::Used;
use crate::{Ended, Outcome, Watch};

/// A system of kind `http`.
pub struct HttpSettings {
    /// The origin, with a path prefix or without. Every request goes there and nowhere else.
    pub base_url: Url,
    /// What the request carries to prove in whose name it comes; nothing where the system is open to all.
    pub credential: Option<Credential>,
}

pub(crate) struct Http {
    settings: HttpSettings,
    client: Option<reqwest::Client>,
}

impl Http {
    pub(crate) fn new(settings: HttpSettings) -> Self {
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(16)
            .user_agent(concat!("ringfence/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { settings, client: client.ok() }
    }

    pub(crate) async fn run(
        &self,
        tool: &Tool,
        request: &HttpRequest,
        call: &Call,
        subject_token: Option<&Secret>,
        watch: &Watch,
    ) -> Outcome {
        let Some(client) = &self.client else {
            return Outcome::failed(Refusal::internal("http_unavailable", Wall::System));
        };
        let Ok(url) = request::url(&self.settings.base_url, request, call.arguments()) else {
            return Outcome::failed(misfit());
        };
        if let Err(refusal) = watch.wanted() {
            return Outcome::failed(refusal);
        }
        // Waited for to its end, which has a limit: an answer that nobody takes may hold the only refresh token of an account.
        let credential = match self.credential(tool, call, subject_token).await {
            Ok(credential) => credential,
            Err(ended) => return Outcome { ended, used: Used::default() },
        };
        let timeout = Duration::from_secs(tool.limits().seconds);
        let built =
            request::build(client, url, request, call.arguments(), credential.as_ref()).timeout(timeout);
        if let Err(refusal) = watch.wanted() {
            return Outcome::failed(refusal);
        }
        match built.send().await {
            Ok(response) => answer::read(response, tool, request, credential.as_ref()).await,
            Err(error) => broken(&error, tool.effect()),
        }
    }

    /// Drops the credentials of a run that has ended.
    pub(crate) fn end_run(&self, run: &RunId) {
        if let Some(credential) = &self.settings.credential {
            credential.forget(run);
        }
    }

    /// The credential for this principal, this system and this tool.
    async fn credential(
        &self,
        tool: &Tool,
        call: &Call,
        subject_token: Option<&Secret>,
    ) -> Result<Option<Held>, Ended> {
        let Some(credential) = &self.settings.credential else { return Ok(None) };
        let (run, system, scopes, now) = (call.run(), call.system(), tool.scopes(), call.at());
        let held = credential.for_call(Wanted { run, subject_token, system, scopes, now }).await;
        held.map(Some).map_err(|error| {
            tracing::warn!(%error, %system, "there is no credential for a call");
            no_credential(error)
        })
    }
}

/// Why there is no credential: more scopes would help, trying again would, the user could, or nothing that an agent can do.
fn no_credential(error: NoCredential) -> Ended {
    let refuse = |code, class, retry, message| Refusal::new(code, class, Wall::Identity, retry, message);
    match error {
        NoCredential::Scopes(scopes) => {
            let message =
                "the user's token does not reach this system; log in again with the scopes that it needs";
            let refusal = refuse("insufficient_scope", RefusalClass::Policy, Retry::WithChange, message);
            Ended::NeedsScopes(scopes, refusal)
        }
        NoCredential::NoSubjectToken => {
            let message = "the gateway was started anew and no longer has the user's token; the application has to start another run";
            Ended::Failed(refuse("credential_unavailable", RefusalClass::Upstream, Retry::Never, message))
        }
        NoCredential::Unreachable(_) => {
            let message = "the identity provider did not answer; nothing was done";
            Ended::Failed(refuse("credential_unavailable", RefusalClass::Upstream, Retry::Later, message))
        }
        NoCredential::Refused(_) | NoCredential::Unsound(_) => {
            let message = "the identity provider gave no credential for this system under the user's name";
            Ended::Failed(refuse("credential_refused", RefusalClass::Upstream, Retry::Never, message))
        }
        NoCredential::NotConnected(NotConnected { link: Some(link), .. }) => {
            let message =
                format!("the user has to connect an account first, at {}; then call again", link.url);
            let refusal =
                Refusal::new("account_needed", RefusalClass::Upstream, Wall::Identity, Retry::Later, message);
            Ended::NeedsAccount(link.url, refusal)
        }
        NoCredential::NotConnected(NotConnected { link: None, .. }) => {
            let message = "the user has to connect an account first, and too many are doing that now";
            Ended::Failed(refuse("account_needed", RefusalClass::Upstream, Retry::Later, message))
        }
    }
}

/// What broke before an answer came. Only a connection that was never made is certain to have had no effect.
fn broken(error: &reqwest::Error, effect: Effect) -> Outcome {
    tracing::warn!(error = %chain(error), "an HTTP system did not answer");
    let message =
        "the system did not answer; whether it acted is not known where the request had left already";
    let refusal =
        Refusal::new("system_unreachable", RefusalClass::Upstream, Wall::System, Retry::Later, message);
    if effect == Effect::Read || error.is_connect() {
        return Outcome::failed(refusal);
    }
    Outcome::unknown(Refusal { code: "outcome_unknown", retry: Retry::Never, ..refusal })
}

/// The causes of an error, without the URL, which holds arguments.
fn chain(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts.join(": ")
}

fn misfit() -> Refusal {
    let message = "a value would change the shape of the request's path or query; use plain identifiers, and lists that are neither empty nor hold commas";
    Refusal::new("argument_invalid", RefusalClass::Arguments, Wall::ActionSpace, Retry::WithChange, message)
}

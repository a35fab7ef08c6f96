//! The agents' door: MCP at `/mcp`, the metadata that a client needs to log in, and health.

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use ringfence_core::{Instant, Refusal, RefusalClass};
use ringfence_identity::{ProofRule, challenge};
use ringfence_mcp::{
    Challenge, Content, NotRead, OpenUrl, ResourceContents, ResourceDescription, Service, Settings, ToolCall,
    ToolDescription, ToolResult,
};
use serde_json::json;
use url::Url;

use crate::artifacts::ArtifactRefused;
use crate::{
    Asked, Caller, Clock, Gateway, Handed, Link, NotIdentified, Reply, Request, Sink, Watch,
    refuse_token_in_query,
};

/// What the door has to know of itself.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// The URL of `/mcp` as clients spell it; also the audience of their tokens.
    pub resource: String,
    /// The issuers that clients can log in at.
    pub issuers: Vec<String>,
    /// The scopes that every token needs.
    pub scopes: Vec<String>,
    /// Whether tokens have to be bound to a key.
    pub proofs: ProofRule,
    /// The `Host` headers that are answered, with their ports.
    pub hosts: Vec<String>,
    /// The `Origin` headers that are answered; none means no browser.
    pub origins: Vec<String>,
}

/// Everything that listens at the agents' door.
pub fn agents_door(gateway: &Gateway, settings: &DoorSettings) -> Router {
    let url = Url::parse(&settings.resource).ok();
    let service = Arc::new(AgentsDoor { gateway: gateway.clone(), settings: settings.clone(), url });
    let wire = Settings {
        allowed_hosts: settings.hosts.clone(),
        allowed_origins: settings.origins.clone(),
        ..Settings::new("ringfence", env!("CARGO_PKG_VERSION"))
    };
    metadata_routes(gateway, settings)
        .merge(health_routes(gateway))
        .merge(ringfence_mcp::router(service, wire))
        .layer(middleware::from_fn_with_state(gateway.clone(), refuse_token_in_query))
}

/// `/healthz`: the process answers. `/readyz`: calls can be recorded, and so carried.
pub fn health_routes(gateway: &Gateway) -> Router {
    let gateway = gateway.clone();
    let ready = move || {
        let ready = gateway.is_ready();
        async move {
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, if ready { "ready\n" } else { "not ready: calls cannot be recorded\n" })
        }
    };
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

/// RFC 9728 §3: the document under the path of the resource and at the root.
fn metadata_routes(gateway: &Gateway, settings: &DoorSettings) -> Router {
    let scopes = all_scopes(gateway, settings);
    let document = challenge::metadata(&settings.resource, &settings.issuers, &scopes, settings.proofs);
    challenge::metadata_paths(&settings.resource).into_iter().fold(Router::new(), |routes, path| {
        let document = document.clone();
        routes.route(&path, get(move || async move { Json(document).into_response() }))
    })
}

fn all_scopes(gateway: &Gateway, settings: &DoorSettings) -> Vec<String> {
    let of_tools = gateway.inner.space.tools().filter_map(|tool| tool.scope().map(str::to_owned));
    let all: std::collections::BTreeSet<String> = settings.scopes.iter().cloned().chain(of_tools).collect();
    all.into_iter().collect()
}

struct AgentsDoor {
    gateway: Gateway,
    settings: DoorSettings,
    /// The URL of `/mcp`, for which proofs are made.
    url: Option<Url>,
}

#[async_trait]
impl Service for AgentsDoor {
    type Caller = Caller;

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Challenge> {
        // The one method that is answered here (transports, *sending messages*).
        let request = Request { headers, method: "POST", url: self.url.as_ref() };
        match self.gateway.caller(request).await {
            Ok(caller) => self.with_scopes(caller).await,
            Err(refused) if refused.retry_after_seconds().is_some() => {
                Err(later(503, refused.retry_after_seconds(), refused.to_string()))
            }
            // No challenge: a client that logged in again would be as unknown as before.
            Err(refused) if refused.is_forbidden() => Err(Challenge {
                status: 403,
                www_authenticate: None,
                retry_after_seconds: None,
                message: refused.to_string(),
            }),
            Err(refused) => Err(self.unauthorized(refused)),
        }
    }

    async fn tools(&self, caller: &Caller) -> Result<Vec<ToolDescription>, Challenge> {
        match self.gateway.tools(caller).await {
            Ok(tools) => Ok(tools.into_iter().map(describe).collect()),
            Err(refusal) if refusal.class == RefusalClass::Budget => {
                Err(later(429, Some(1), refusal.to_string()))
            }
            Err(refusal) => Err(later(503, None, refusal.to_string())),
        }
    }

    async fn call(
        &self,
        caller: Caller,
        call: ToolCall,
        watch: ringfence_mcp::Watch,
    ) -> Result<ToolResult, Challenge> {
        let asked = Asked { tool: call.name, arguments: call.arguments };
        let watch = watched(&watch, caller.identified.expires, self.gateway.inner.clock.clone());
        match self.gateway.call(caller, asked, watch).await {
            Reply::Done { structured, text, artifacts } => Ok(done(structured, text, &artifacts)),
            Reply::Refused(refusal) => Ok(refused(&refusal)),
            Reply::NeedsAccount { url, refusal } => {
                let message = "connect your account, so that the agent can act there in your name".to_owned();
                Ok(ToolResult { open_first: Some(OpenUrl { url, message }), ..refused(&refusal) })
            }
            Reply::NeedsScope { scopes, .. } => Err(self.insufficient(&scopes)),
        }
    }

    fn owner(&self, caller: &Caller) -> String {
        caller.run.to_string()
    }

    async fn resources(&self, caller: &Caller) -> Vec<ResourceDescription> {
        self.gateway.artifacts(caller).iter().map(describe_link).collect()
    }

    async fn read(&self, caller: &Caller, uri: &str) -> Result<ResourceContents, NotRead> {
        match self.gateway.artifact(caller, uri).await {
            Ok(kept) => Ok(ResourceContents {
                uri: kept.link.uri.clone(),
                mime_type: kept.link.mime_type.clone(),
                bytes: kept.bytes.clone(),
            }),
            Err(ArtifactRefused::Unknown) => Err(NotRead::Unknown),
            Err(ArtifactRefused::Failed(refusal)) => Err(NotRead::Failed(refusal.to_string())),
        }
    }
}

impl AgentsDoor {
    async fn with_scopes(&self, caller: Caller) -> Result<Caller, Challenge> {
        let lacks = |scope: &&String| !caller.identified.scopes.contains(scope.as_str());
        if !caller.is_started() && self.settings.scopes.iter().any(|scope| lacks(&scope)) {
            self.gateway.rejected("insufficient_scope").await;
            return Err(self.insufficient(&[]));
        }
        Ok(caller)
    }

    /// One challenge with all that is needed: the base scopes and those of the tool (MCP authorization, scope challenges).
    fn insufficient(&self, of_tool: &[String]) -> Challenge {
        let all: Vec<String> = self.settings.scopes.iter().chain(of_tool).cloned().collect();
        let error = Some("insufficient_scope");
        let metadata = challenge::metadata_url(&self.settings.resource);
        let header = match self.settings.proofs {
            ProofRule::Always => challenge::proof_challenge(error, &all, &metadata),
            ProofRule::WhereBound => challenge::bearer_challenge(error, &all, &metadata),
        };
        challenged(403, header, "the token lacks a scope; log in again with those named")
    }

    fn unauthorized(&self, refused: NotIdentified) -> Challenge {
        let (error, scopes) = (refused.error(), &self.settings.scopes);
        let metadata = challenge::metadata_url(&self.settings.resource);
        let header = if refused.wants_proof() || self.settings.proofs == ProofRule::Always {
            challenge::proof_challenge(error, scopes, &metadata)
        } else {
            challenge::either_challenge(error, scopes, &metadata)
        };
        challenged(401, header, &refused.to_string())
    }
}

fn challenged(status: u16, www_authenticate: String, why: &str) -> Challenge {
    Challenge {
        status,
        www_authenticate: Some(www_authenticate),
        retry_after_seconds: None,
        message: why.to_owned(),
    }
}

/// Not now, for a reason that lies with the gateway and not with the token.
fn later(status: u16, retry_after_seconds: Option<u64>, message: String) -> Challenge {
    Challenge { status, www_authenticate: None, retry_after_seconds, message }
}

fn describe(tool: &ringfence_actions::Tool) -> ToolDescription {
    let reads = tool.effect() == ringfence_core::Effect::Read;
    ToolDescription {
        name: tool.name().to_string(),
        title: None,
        description: tool.describe().to_owned(),
        input_schema: tool.input_schema(),
        output_schema: None,
        annotations: Some(json!({
            "readOnlyHint": reads,
            "destructiveHint": tool.effect() == ringfence_core::Effect::Irreversible,
            "openWorldHint": tool.external(),
        })),
    }
}

/// The client's watch, as the tools know one. Its token is all that lets it listen: what a call says after the token's end is
/// not heard. The result still comes, since the call was allowed when it began, and its caller must learn what was done.
fn watched(watch: &ringfence_mcp::Watch, until: Instant, clock: Clock) -> Watch {
    let client = watch.clone();
    let tell = move |text: &str| {
        if clock.now().0 < until.0 {
            client.send(text);
        }
    };
    let sink = watch.is_heard().then(|| -> Sink { Arc::new(tell) });
    Watch::new(sink, watch.cancellation().clone())
}

fn describe_link(link: &Link) -> ResourceDescription {
    ResourceDescription {
        uri: link.uri.clone(),
        name: link.name.clone(),
        mime_type: link.mime_type.clone(),
        bytes: link.bytes,
    }
}

fn done(structured: serde_json::Value, text: String, artifacts: &[Handed]) -> ToolResult {
    let mut content = vec![Content::text(text)];
    content.extend(artifacts.iter().map(|artifact| match artifact {
        Handed::Image { mime_type, bytes } => Content::image(mime_type, bytes),
        Handed::Link(link) => Content::resource_link(&describe_link(link)),
    }));
    ToolResult { content, structured: Some(structured), is_error: false, open_first: None }
}

fn refused(refusal: &Refusal) -> ToolResult {
    ToolResult {
        content: vec![Content::text(refusal.to_string())],
        structured: Some(Reply::refusal_json(refusal)),
        is_error: true,
        open_first: None,
    }
}

//! A program in a sandbox that was built for this call and is destroyed after it.

use std::sync::Arc;
use std::time::Duration;

use ringfence_actions::Limits;
use ringfence_core::{Call, ParamName, Refusal, RefusalClass, Retry, Value, Wall};
use ringfence_sandbox::{Language, Probe, Profile, Program, Refused, Unwatched};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::turns::Turns;
use crate::{Ended, Outcome, Output, Used};

/// A system of kind `sandbox`.
pub struct SandboxSettings {
    /// What the sandbox is, as the operator says. A request cannot change it.
    pub profile: Profile,
    /// Sandboxes that run at the same time; more wait for their turn.
    pub parallel_max: usize,
}

pub(crate) struct Sandbox {
    sandbox: ringfence_sandbox::Sandbox,
    language: Language,
    turns: Turns,
}

impl Sandbox {
    pub(crate) fn new(settings: SandboxSettings) -> Self {
        let language = settings.profile.language;
        let sandbox = ringfence_sandbox::Sandbox::new(settings.profile);
        Self { sandbox, language, turns: Turns::new(settings.parallel_max) }
    }

    pub(crate) async fn self_attack(&self) -> Result<Vec<Probe>, Refused> {
        let probes = ringfence_sandbox::self_attack(&self.sandbox, self.language).await?;
        self.sandbox.warm().await?;
        Ok(probes)
    }

    pub(crate) async fn run(&self, call: &Call, source: &ParamName, limits: Limits) -> Outcome {
        let Some(Value::String(source)) = call.arguments().value(source.as_str()) else {
            return Outcome::failed(Refusal::internal("program_missing", Wall::ActionSpace));
        };
        let limit = Duration::from_secs(limits.seconds);
        let until = tokio::time::Instant::now() + limit;
        let Some(_turn) = self.turns.take(call.run().id(), until).await else {
            return Outcome::failed(busy());
        };
        let program = Program {
            // The tool may be stricter than its system, never the other way round. Two streams share the bytes of a result.
            wall_max: Some(limit),
            output_bytes_max: Some(limits.bytes / 2),
            ..Program::new(source.as_str())
        };
        match self.sandbox.run(program, Arc::new(Unwatched), CancellationToken::new()).await {
            Ok(outcome) => ended(&outcome),
            Err(refused) => {
                tracing::error!(%refused, "a sandbox could not be built as its profile says, or was lost");
                Outcome::failed(not_built())
            }
        }
    }
}

/// How the program ended is a result, not a failure of the tool: the agent reads the error and mends its program.
fn ended(outcome: &ringfence_sandbox::Outcome) -> Outcome {
    let structured = json!({
        "ended": outcome.ended,
        "stdout": outcome.stdout.text,
        "stderr": outcome.stderr.text,
        "value": outcome.value,
        "truncated": outcome.stdout.cut || outcome.stderr.cut,
        "receipt": outcome.receipt,
    });
    let bytes = outcome.stdout.bytes_total + outcome.stderr.bytes_total;
    Outcome { ended: Ended::Done(Output { text: None, structured }), used: Used { rows: 0, bytes } }
}

fn not_built() -> Refusal {
    let message = "the sandbox could not be built as its profile demands, or was lost; nothing of it remains, and its operator has to look";
    Refusal::new("sandbox_unavailable", RefusalClass::Internal, Wall::Sandbox, Retry::Later, message)
}

fn busy() -> Refusal {
    let message = "as many programs are running as may; try again in a moment";
    Refusal::new("system_busy", RefusalClass::Upstream, Wall::Limits, Retry::Later, message)
}

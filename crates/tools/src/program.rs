//! A program in a sandbox that was built for this call and is destroyed after it.

use std::time::Duration;

use ringfence_actions::Limits;
use ringfence_core::{Call, ParamName, Refusal, RefusalClass, Retry, Value, Wall};
use ringfence_sandbox::{Probe, Profile, Program, Refused};
use serde_json::json;

use crate::turns::Turns;
use crate::{Ended, Outcome, Output, Used, Watch};

/// A system of kind `sandbox`.
pub struct SandboxSettings {
    /// What the sandbox is, as the operator says. A request cannot change it.
    pub profile: Profile,
    /// Sandboxes that run at the same time; more wait for their turn.
    pub parallel_max: usize,
}

pub(crate) struct Sandbox {
    profile: Profile,
    turns: Turns,
}

impl Sandbox {
    pub(crate) fn new(settings: SandboxSettings) -> Self {
        Self { profile: settings.profile, turns: Turns::new(settings.parallel_max) }
    }

    pub(crate) async fn self_attack(&self) -> Result<Vec<Probe>, Refused> {
        ringfence_sandbox::self_attack(&self.profile).await
    }

    pub(crate) async fn run(
        &self,
        call: &Call,
        source: &ParamName,
        limits: Limits,
        watch: &Watch,
    ) -> Outcome {
        let Some(Value::String(source)) = call.arguments().value(source.as_str()) else {
            return Outcome::failed(Refusal::internal("program_missing", Wall::ActionSpace));
        };
        let limit = Duration::from_secs(limits.seconds);
        let until = tokio::time::Instant::now() + limit;
        let turn = tokio::select! {
            turn = self.turns.take(call.run().id(), until) => turn,
            () = watch.cancelled() => return Outcome::failed(cancelled()),
        };
        let Some(_turn) = turn else { return Outcome::failed(busy()) };
        // The tool may be stricter than its system, never the other way round.
        let mut profile = self.profile.clone();
        profile.limits.wall = profile.limits.wall.min(limit);
        // Two streams share the bytes of a result.
        profile.limits.output_bytes = profile.limits.output_bytes.min(limits.bytes / 2);
        let program = Program { source: source.clone(), files: Vec::new() };
        match ringfence_sandbox::run(&profile, program, watch.cancelled()).await {
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
        "truncated": outcome.stdout.cut || outcome.stderr.cut,
        "receipt": outcome.receipt,
    });
    let bytes = outcome.stdout.bytes_total + outcome.stderr.bytes_total;
    Outcome {
        ended: Ended::Done(Output { text: None, structured, artifacts: Vec::new() }),
        used: Used { rows: 0, bytes },
    }
}

fn not_built() -> Refusal {
    let message = "the sandbox could not be built as its profile demands, or was lost; nothing of it remains, and its operator has to look";
    Refusal::new("sandbox_unavailable", RefusalClass::Internal, Wall::Sandbox, Retry::Later, message)
}

fn cancelled() -> Refusal {
    let message = "the client gave the call up before its program had started";
    Refusal::new("cancelled", RefusalClass::Upstream, Wall::Limits, Retry::Later, message)
}

fn busy() -> Refusal {
    let message = "as many programs are running as may; try again in a moment";
    Refusal::new("system_busy", RefusalClass::Upstream, Wall::Limits, Retry::Later, message)
}

//! A program in a sandbox: one that is built for this call and destroyed after it, or, where the operator says so, one of the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ringfence_actions::Limits;
use ringfence_core::{Call, ParamName, Refusal, RefusalClass, Retry, RunId, Value, Wall};
use ringfence_sandbox::egress::{self, Decision, Unrecorded};
use ringfence_sandbox::{InputFile, Probe, Profile, Program, Refused, Stream};
use serde_json::json;

use crate::sessions::Sessions;
use crate::turns::{NoTurn, Turns};
use crate::watch::{Heard, not_begun};
use crate::{Artifact, Ended, Outcome, Output, Used, Watch};

/// A system of kind `sandbox`.
pub struct SandboxSettings {
    /// What the sandbox is, as the operator says. A request cannot change it.
    pub profile: Profile,
    /// How long a run's sandbox lives without a call, and at the most; none where each call has one of its own.
    pub session: Option<(Duration, Duration)>,
    /// Sandboxes that run at the same time; more wait for their turn.
    pub parallel_max: usize,
}

pub(crate) struct Sandbox {
    built: ringfence_sandbox::Sandbox,
    sessions: Option<Arc<Sessions>>,
    turns: Turns,
}

impl Sandbox {
    pub(crate) fn new(settings: SandboxSettings) -> Self {
        let sandbox = ringfence_sandbox::Sandbox::new(settings.profile);
        let sessions = settings.session.map(|(idle, total)| Sessions::new(sandbox.clone(), idle, total));
        Self { built: sandbox, sessions, turns: Turns::new(settings.parallel_max) }
    }

    /// Lets a sandbox attack itself, and makes those ready that are to wait.
    pub(crate) async fn self_attack(&self) -> Result<Vec<Probe>, Refused> {
        let probes = self.built.self_attack().await?;
        self.built.warm().await?;
        Ok(probes)
    }

    /// Destroys what a run has here.
    pub(crate) fn end_run(&self, run: &RunId) {
        if let Some(sessions) = &self.sessions {
            sessions.end(run);
        }
    }

    pub(crate) async fn run(
        &self,
        call: &Call,
        source: &ParamName,
        files: &BTreeMap<String, ParamName>,
        limits: Limits,
        watch: &Watch,
    ) -> Outcome {
        let text = |name: &ParamName| match call.arguments().value(name.as_str()) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        let Some(source) = text(source) else {
            return Outcome::failed(Refusal::internal("program_missing", Wall::ActionSpace));
        };
        let limit = Duration::from_secs(limits.seconds);
        let until = tokio::time::Instant::now() + limit;
        let _turn = match self.turns.take(call.run().id(), until, watch).await {
            Ok(turn) => turn,
            Err(NoTurn::Late) => return Outcome::failed(busy()),
            Err(NoTurn::Cancelled) => return Outcome::failed(not_begun()),
        };
        let given = files.iter().filter_map(|(name, param)| {
            // One that was left out is not there.
            text(param).map(|text| InputFile { name: name.clone(), bytes: text.into_bytes() })
        });
        let program = Program {
            files: given.collect(),
            // The tool may be stricter than its system, never the other way round. Two streams share the bytes of a result.
            wall_max: Some(limit),
            output_bytes_max: Some(limits.bytes / 2),
            ..Program::new(source)
        };
        let (heard, stop) = (Arc::new(Listening::new(watch)), watch.cancellation().clone());
        let ran = match &self.sessions {
            Some(sessions) => sessions.run(call.run().id(), program, heard, stop).await,
            None => self.built.run(program, heard, stop).await,
        };
        match ran {
            Ok(outcome) => ended(outcome),
            Err(refused) => {
                tracing::error!(%refused, "a sandbox could not be built as its profile says, or was lost");
                Outcome::failed(not_built())
            }
        }
    }
}

/// Passes on what a program writes to who watches the call.
struct Listening {
    watch: Watch,
    outputs: Mutex<[Heard; 2]>,
}

impl Listening {
    fn new(watch: &Watch) -> Self {
        Self { watch: watch.clone(), outputs: Mutex::new([watch.output(), watch.output()]) }
    }
}

#[async_trait]
impl egress::Watch for Listening {
    async fn decided(&self, decision: &Decision) -> Result<(), Unrecorded> {
        let decision = serde_json::to_value(decision).map_err(|_| Unrecorded)?;
        if self.watch.record(decision).await { Ok(()) } else { Err(Unrecorded) }
    }
}

impl ringfence_sandbox::Watch for Listening {
    fn wrote(&self, stream: Stream, bytes: &[u8]) {
        let Ok(mut outputs) = self.outputs.lock() else { return };
        let [stdout, stderr] = &mut *outputs;
        match stream {
            Stream::Stdout => stdout.push(bytes),
            Stream::Stderr => stderr.push(bytes),
        }
    }
}

/// How the program ended is a result, not a failure of the tool: the agent reads the error and mends its program.
fn ended(outcome: ringfence_sandbox::Outcome) -> Outcome {
    let structured = json!({
        "ended": outcome.ended,
        "stdout": outcome.stdout.text,
        "stderr": outcome.stderr.text,
        "value": outcome.value,
        "truncated": outcome.stdout.cut || outcome.stderr.cut,
        "left_out": outcome.left_out,
        "receipt": outcome.receipt,
    });
    let artifacts = outcome.artifacts.into_iter().map(|artifact| Artifact {
        name: artifact.name,
        mime_type: artifact.mime_type,
        bytes: artifact.bytes,
    });
    let bytes = outcome.stdout.bytes_total + outcome.stderr.bytes_total;
    let output = Output { text: None, structured, artifacts: artifacts.collect() };
    Outcome { ended: Ended::Done(output), used: Used { rows: 0, bytes } }
}

fn not_built() -> Refusal {
    let message = "the sandbox could not be built as its profile demands, or was lost; nothing of it remains, and its operator has to look";
    Refusal::new("sandbox_unavailable", RefusalClass::Internal, Wall::Sandbox, Retry::Later, message)
}

fn busy() -> Refusal {
    let message = "as many programs are running as may; try again in a moment";
    Refusal::new("system_busy", RefusalClass::Upstream, Wall::Limits, Retry::Later, message)
}

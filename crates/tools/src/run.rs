//! The one way to an effect: a ticket goes in, an outcome comes out.

use std::time::Duration;

use ringfence_actions::{Operation, Tool};
use ringfence_core::{Effect, Refusal, RefusalClass, Retry, Secret, Ticket, Wall};

use crate::systems::{System, Systems};
use crate::{Outcome, Watch};

/// How much longer than its own limit a call may take before it is given up from outside: a program may wait for its turn as
/// long as it may run, and its sandbox has to be taken down.
const GRACE: Duration = Duration::from_secs(5);

/// Runs one recorded call and consumes its ticket.
///
/// `subject_token` is the verified token of the principal, if it is still there; a system's credential is minted from it, and
/// it goes nowhere else. `watch` hears what a program writes, and cancels it; a write or a request is never cut in half, but once nobody wants the
/// call none begins.
/// Whatever happens there is an outcome, within the tool's time limit and a little grace.
pub async fn run(
    ticket: Ticket,
    systems: &Systems,
    subject_token: Option<&Secret>,
    watch: &Watch,
) -> Outcome {
    let call = ticket.call();
    let Some(tool) = systems.space.tool(call.tool().as_str()) else {
        return Outcome::failed(Refusal::internal("tool_gone", Wall::ActionSpace));
    };
    let limit = Duration::from_secs(tool.limits().seconds) * 2 + GRACE;
    match tokio::time::timeout(limit, on_system(&ticket, tool, systems, subject_token, watch)).await {
        Ok(outcome) => outcome,
        Err(_) => given_up(tool),
    }
}

async fn on_system(
    ticket: &Ticket,
    tool: &Tool,
    systems: &Systems,
    subject_token: Option<&Secret>,
    watch: &Watch,
) -> Outcome {
    let call = ticket.call();
    match (systems.systems.get(call.system()), tool.operation()) {
        (Some(System::Sqlite(sqlite)), Operation::Sql { .. }) => sqlite.run(call, watch).await,
        (Some(System::Postgres(postgres)), Operation::Sql { .. }) => postgres.run(call, watch).await,
        (Some(System::Http(http)), Operation::Http(request)) => {
            http.run(tool, request, call, subject_token, watch).await
        }
        (Some(System::Sandbox(sandbox)), Operation::Program { source, files }) => {
            sandbox.run(call, source, files, tool.limits(), watch).await
        }
        _ => Outcome::failed(Refusal::internal("system_gone", Wall::System)),
    }
}

fn given_up(tool: &Tool) -> Outcome {
    let message = "it did not answer in time and was given up";
    let refusal = Refusal::new("timeout", RefusalClass::Budget, Wall::Limits, Retry::Later, message);
    match tool.effect() {
        Effect::Read => Outcome::failed(refusal),
        Effect::Write | Effect::Irreversible => Outcome::unknown(Refusal { retry: Retry::Never, ..refusal }),
    }
}

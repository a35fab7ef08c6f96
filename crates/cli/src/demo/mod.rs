//! `ringfence demo`: a rogue reasoning engine as a real MCP client, against a real gateway on this machine.
//!
//! [`stage`] builds what it acts on, [`script`] plays it and judges each attempt by its effects (seen in
//! [`evidence`]), [`report`] shows it.

mod evidence;
mod report;
mod script;
mod stage;
mod tickets;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::commands::verdict;
use crate::failure::Failure;

/// A variable of the gateway's environment that must not be seen from the sandbox.
const CANARY: &str = "RINGFENCE_DEMO_CANARY";

pub(crate) async fn run(json: bool, keep: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let stage = stage::Stage::build(keep).await?;
    let report = script::play(stage, report::Report::new(json)).await?;
    Ok(verdict(report.finish()))
}

/// Begins anew with the canary in the environment, since a process cannot safely change its own.
pub(crate) fn with_canary() -> Result<(), Failure> {
    if std::env::var_os(CANARY).is_some() {
        return Ok(());
    }
    let canary = ringfence_store::new_key().ok_or_else(|| Failure::of("this machine has no randomness"))?;
    let mut again = Command::new("/proc/self/exe");
    again.arg0("ringfence").args(std::env::args_os().skip(1)).env(CANARY, canary.expose());
    Err(Failure::of(again.exec()))
}

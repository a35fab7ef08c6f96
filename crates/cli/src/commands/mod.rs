//! What each command does.

mod accounts;
mod call;
mod check;
mod doctor;
mod init;
mod journal;
mod login;
mod runs;
mod sandbox;
mod sandbox_host;
mod serve;
mod stdio;
mod token;

pub(crate) use init::{TEMPLATE, fit_to_machine, write_sample_database};
pub(crate) use sandbox_host::hosted;
pub(crate) use serve::{Doors, Serving, bind};

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command, LogFormat, Sandbox, SandboxHost};
use crate::demo;
use crate::failure::Failure;

/// Yes or no, as an exit code.
pub(crate) fn verdict(yes: bool) -> ExitCode {
    ExitCode::from(u8::from(!yes))
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Init { dir } => init::run(&dir),
        Command::Check { dir, json } => on_runtime(check::run(dir, json)),
        Command::Serve { dir, grace_seconds, log_format } => {
            log("info", log_format);
            on_runtime(serve::run(dir, std::time::Duration::from_secs(grace_seconds)))
        }
        Command::Call { tool, arguments, user, project, json } => {
            log("error", LogFormat::Text);
            on_runtime(call::run(call::Asking { tool, arguments, user, folder: project.project, json }))
        }
        Command::Token { user, application, project, door, agent, lifetime_seconds, scopes } => {
            let who = match (user, application) {
                (_, Some(client)) => token::Who::Application(client),
                (user, None) => token::Who::User { name: user.unwrap_or_default(), agent },
            };
            token::run(&token::Asking { who, folder: project.project, door, lifetime_seconds, scopes })
        }
        Command::Login(asking) => {
            log("warn", LogFormat::Text);
            on_runtime(login::log_in(asking))
        }
        Command::Logout { gateway } => {
            log("warn", LogFormat::Text);
            on_runtime(async move { login::log_out(&gateway).await })
        }
        Command::Stdio { dir, connect } => {
            log("info", LogFormat::Text);
            on_runtime(async move {
                match (connect, dir) {
                    (Some(address), _) => stdio::connect(&address).await,
                    (None, dir) => stdio::here(&dir.unwrap_or_default()).await,
                }
            })
        }
        Command::Runs(command) => {
            log("error", LogFormat::Text);
            on_runtime(runs::run(command))
        }
        Command::Journal(command) => journal::run(command),
        Command::Accounts(command) => accounts::run(command),
        Command::Demo { json, keep } => {
            demo::with_canary()?;
            log("off", LogFormat::Text);
            on_runtime(demo::run(json, keep))
        }
        Command::Sandbox(Sandbox::Run(asking)) => on_runtime(sandbox::run(asking)),
        Command::SandboxHost { command: Some(SandboxHost::Keys { dir, server_name, days }), .. } => {
            sandbox_host::keys(&dir, &server_name, days)
        }
        Command::SandboxHost { file, check, log_format, .. } => {
            let file = file.unwrap_or_default();
            if check {
                return sandbox_host::check(&file);
            }
            log("info", log_format);
            on_runtime(async move { sandbox_host::run(&file).await })
        }
        Command::Doctor { json } => on_runtime(doctor::run(json)),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "ringfence", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn on_runtime(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(format!("no threads can be had: {error}"), "raise the limit on processes")
    })?;
    let ended = runtime.block_on(work);
    // What still waits for a line of standard input would wait on.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

/// Writes the log to standard error.
fn log(otherwise: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env("RINGFENCE_LOG").unwrap_or_else(|_| EnvFilter::new(otherwise));
    let is_plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        // Where nobody reads the log any more there is nowhere to say so, and calls go on.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!is_plain)
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

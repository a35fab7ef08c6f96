//! The project's own commands: `cargo xtask check`, `layers`, `fuzz`, `attack`, `conformance`, `bench`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a tool on a terminal")]

mod attack;
mod check;
mod clients;
mod fuzz;
mod gvisor;
mod layers;
mod matplotlib;
mod nsjail;
mod postgres;
mod step;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that has to hold before a change lands: format, layers, lints, tests, documentation, a short fuzzing.
    Check,
    /// The walls between the crates, and what the documents say of the code.
    Layers,
    /// Fuzzes the JSON reader and the tool files, each for so many seconds.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Attacks the sandbox: every probe on every backend, as root and as an ordinary user, with controls. Prints what held.
    Attack {
        /// Handed on: `--backend`, `--fast`, `--as`, `--json`, `--only`, `--runs`, `--bless`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The conformance suite's tests of authorization servers, against the development issuer.
    Conformance,
    /// The numbers of PROMISES.md, measured side by side in one run.
    Bench {
        /// Which; all of them where none is named.
        which: Option<Bench>,
    },
}

#[derive(Clone, Copy, Eq, PartialEq, clap::ValueEnum)]
enum Bench {
    /// The pipeline, the decision, the start.
    Pipeline,
    /// What it takes to know who calls, ten thousand of them, and to take it back.
    Identity,
    /// What a sandbox costs, beside what others take for the same.
    Sandbox,
}

/// The root of the workspace.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Check => check::run(),
        Command::Layers => layers::run(),
        Command::Fuzz { seconds } => fuzz::run(seconds),
        Command::Attack { arguments } => attack::run(&arguments),
        Command::Conformance => conformance(),
        Command::Bench { which } => bench(which),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nfailed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn conformance() -> Result<(), String> {
    clients::install_conformance()?;
    step::cargo(&["build", "--package", "ringfence-cli"])?;
    step::cargo(&["test", "--package", "ringfence-tests", "--test", "conformance"])
}

fn bench(which: Option<Bench>) -> Result<(), String> {
    let wanted = |one: Bench| which.is_none_or(|which| which == one);
    if wanted(Bench::Pipeline) || wanted(Bench::Identity) {
        step::cargo(&["build", "--release", "--package", "ringfence-cli"])?;
    }
    if wanted(Bench::Pipeline) {
        step::cargo(&["bench", "--package", "ringfence-tests", "--bench", "numbers"])?;
    }
    if wanted(Bench::Identity) {
        step::cargo(&["bench", "--package", "ringfence-identity", "--bench", "token"])?;
        step::cargo(&["bench", "--package", "ringfence-tests", "--bench", "identity"])?;
    }
    if wanted(Bench::Sandbox) {
        for (program, package) in [("bwrap", "bubblewrap"), ("crun", "crun"), ("runsc", "runsc")] {
            if !step::is_there(program, &["--version"]) {
                step::install_debian(package);
            }
        }
        if !step::is_there("/usr/bin/python3", &["-c", "import numpy, pandas"]) {
            step::install_debian("python3-pandas");
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = nsjail::install().into_iter().chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).map_err(|error| error.to_string())?;
        let mut bench = std::process::Command::new(env!("CARGO"));
        bench.args(["bench", "--package", "ringfence-sandbox", "--bench", "sandbox"]).env("PATH", path);
        step::run(&mut bench)?;
    }
    Ok(())
}

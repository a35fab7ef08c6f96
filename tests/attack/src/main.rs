//! The attack list (ATTACKS.md's sandbox part): every probe on every backend that this machine has, as root and as an ordinary
//! user, each with a control that shows it working where its wall is missing, judged from the host's side.
//!
//! Three processes of one executable. The *list* prepares what needs root, starts a *stage* for each user and prints the matrix.
//! A stage is the gateway of its sandboxes: in a network namespace of its own, where every address is a trap of ours, so that a
//! hole reaches the trap and never a real address. A *gateway* is one that a stage starts in order to kill it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness on a terminal: what it does not expect must end it, loudly"
)]

mod canary;
mod egress;
mod faults;
mod golden;
mod languages;
mod leftovers;
mod lifecycle;
mod probe;
mod report;
mod resources;
mod run;
mod stage;
mod stale;
mod table;
mod zygote;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Attacks the sandbox, and says what held.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Which backend.
    #[arg(long, value_enum, default_value_t = Backends::All)]
    backend: Backends,
    /// Only what takes seconds.
    #[arg(long)]
    fast: bool,
    /// As whom; both needs root.
    #[arg(long = "as", value_enum)]
    user: Option<Users>,
    /// One JSON object a line in place of the matrix.
    #[arg(long)]
    json: bool,
    /// Only probes whose id begins so.
    #[arg(long)]
    only: Option<String>,
    /// How many runs the search for growth takes: 10,000 in its long form.
    #[arg(long)]
    runs: Option<usize>,
    /// Writes the tables anew where they differ.
    #[arg(long)]
    bless: bool,
    /// Which process of it this is.
    #[arg(long, value_enum, default_value_t = Role::List, hide = true)]
    role: Role,
    /// What a gateway does, or what a stage is told.
    #[arg(long, default_value = "", hide = true)]
    told: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Backends {
    Process,
    Gvisor,
    All,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Users {
    Root,
    User,
    Both,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Role {
    List,
    Network,
    Stage,
    Gateway,
}

fn main() -> ExitCode {
    ringfence_sandbox::enter_if_jail();
    let arguments = Arguments::parse();
    match arguments.role {
        Role::List => report::list(&arguments),
        Role::Network => stage::enter_network(&arguments),
        Role::Stage => stage::play(&arguments),
        Role::Gateway => match arguments.told.strip_prefix("egress ") {
            Some(told) => egress::be_a_gateway(told),
            None => leftovers::be_a_gateway(&arguments.told),
        },
    }
}

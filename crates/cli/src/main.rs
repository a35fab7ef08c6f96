//! The `ringfence` binary.

mod args;
mod commands;
mod demo;
mod failure;
mod http_server;
mod keys;
mod print;
mod private_file;
mod project;
mod users_file;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: this executable is also the sandbox's jail.
    ringfence_sandbox::enter_if_jail();
    match commands::run(args::parse()) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.print();
            ExitCode::from(2)
        }
    }
}

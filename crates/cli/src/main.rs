//! The `ringfence` binary.

mod args;
mod bearer;
mod browser;
mod carrier;
mod commands;
mod credentials;
mod demo;
mod failure;
mod grants;
mod http_server;
mod keys;
mod logins;
mod memory;
mod print;
mod private_file;
mod project;
mod trust;
mod users_file;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: this executable is also the sandbox's jail.
    ringfence_sandbox::enter_if_jail();
    memory::keep_private();
    match commands::run(args::parse()) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.print();
            ExitCode::from(2)
        }
    }
}

//! Runs one recorded call: SQL, HTTP, a program in a sandbox. Takes a [`Ticket`](ringfence_core::Ticket) and consumes it.

mod http;
mod outcome;
mod postgres;
mod program;
mod run;
mod sessions;
mod sql;
mod sqlite;
mod systems;
mod turns;
mod watch;

pub use http::HttpSettings;
pub use outcome::{Artifact, Ended, Outcome, Output, Used};
pub use postgres::{ActAs, PostgresSettings};
pub use program::SandboxSettings;
pub use run::run;
pub use systems::{SystemSettings, Systems};
pub use watch::{EgressLog, Heard, Sink, Watch};

#[cfg(test)]
mod tests;

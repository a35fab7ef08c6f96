//! The real binary, as its users have it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests"
)]

mod bad_input;
mod commands;
mod credentials;
mod demo;
mod identity;
mod issuer;
mod programs;
mod runs;
mod sandbox_host;
mod serving;
mod sql;
mod stdio;
mod walls;
mod watched;
mod wire;

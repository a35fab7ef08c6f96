//! `cargo xtask attack`: the attack list, by the executable that plays it.

use std::process::Command;

use crate::{root, step};

/// Plays the list with these arguments.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    step::cargo(&["build", "--quiet", "--package", "ringfence-attack"])?;
    step::run(Command::new(root().join("target/debug/ringfence-attack")).args(arguments))
}

/// What takes seconds of it, as whoever runs the checks: root plays it as an ordinary user too.
pub(crate) fn run_fast() -> Result<(), String> {
    run(&["--fast".to_owned()])
}

//! `cargo xtask check`: what continuous integration runs, and everyone before they push.

use std::process::Command;

use crate::{attack, clients, fuzz, gvisor, layers, matplotlib, postgres, step};

/// How long each fuzz target runs here; `cargo xtask fuzz` runs longer.
const FUZZ_SECONDS: u64 = 10;

pub(crate) fn run() -> Result<(), String> {
    step::cargo(&["fmt", "--all", "--check"])?;
    layers::run()?;
    step::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])?;
    let mut skipped = clients::install();
    skipped.extend(gvisor::install());
    skipped.extend(matplotlib::install());
    skipped.extend(postgres::install());
    step::cargo(&["build", "--workspace", "--quiet"])?;
    tests()?;
    attack::run_fast()?;
    step::cargo(&["test", "--workspace", "--doc", "--quiet"])?;
    let mut documentation = Command::new(env!("CARGO"));
    documentation.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "--deny warnings");
    step::run(&mut documentation)?;
    match fuzz::missing() {
        None => fuzz::run(FUZZ_SECONDS)?,
        Some(missing) => skipped.push(missing),
    }
    for skipped in &skipped {
        println!("\nSKIPPED, and so neither passed nor failed: {skipped}");
    }
    println!(
        "\nAll checks passed{}.",
        if skipped.is_empty() { "" } else { ", but for what is named as skipped" }
    );
    Ok(())
}

fn tests() -> Result<(), String> {
    if step::is_there(env!("CARGO"), &["nextest", "--version"]) {
        return step::cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
    }
    println!(
        "\ncargo-nextest is not installed (`cargo install cargo-nextest --locked`); `cargo test` runs the same tests, more slowly."
    );
    // One at a time: some tests count processes and fill memory.
    step::cargo(&[
        "test",
        "--workspace",
        "--tests",
        "--bins",
        "--lib",
        "--quiet",
        "--no-fail-fast",
        "--",
        "--test-threads=1",
    ])
}

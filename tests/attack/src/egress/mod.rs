//! The way out: programs in a real sandbox against the real proxy, before servers that are read by the loosest reader there is.
//!
//! Each program also has a request that its rules allow and that must work; its control is the same program before a proxy that
//! judges nothing. What is judged is what servers got, what was resolved, and what was recorded; then what the program says.

mod attacks;
mod bounds;
mod naive;
mod secrets;
mod upstream;
mod without;
mod world;

use std::sync::Arc;

use ringfence_sandbox::egress::Declared;
use ringfence_sandbox::{Isolation, Language, Outcome, Program, Sandbox};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{ensure, verdict};
use crate::probe::Verdict;
use crate::run::{Seen, Stage, Target, outcome_text, read, run};
use world::{Record, World, allow};

pub(crate) use without::be_a_gateway;

pub(crate) const LIST: &[(&str, &str, bool)] = &[
    ("E01", "an empty list of hosts", true),
    ("E02", "a host that is not on the list", true),
    ("E03", "plain HTTP to such a host", true),
    ("E04", "a listed address with another Host", true),
    ("E05", "hosts spelled to be misread", true),
    ("E07", "listed names that lead inside", true),
    ("E09", "another host behind the listed name", true),
    ("E10", "a tunnel without TLS", true),
    ("E12", "paths spelled to be misread", true),
    ("E14", "other ports of a listed host", true),
    ("E15", "the proxy itself, the gateway, a neighbour", true),
    ("E16", "the secret in a sandbox", true),
    ("E17", "a placeholder sent elsewhere", true),
    ("E18", "the secret over plain HTTP", true),
    ("E20", "two credentials", true),
    ("E21", "more than the budget of bytes", true),
    ("E22", "many and slow connections", false),
    ("E23", "without the proxy", true),
    ("E25", "a record for each request", true),
    ("E26", "another sandbox's authority", true),
    ("E27", "other paths of a listed host", true),
];

pub(crate) async fn play(stage: &mut Stage, target: &Target, id: &str) -> Verdict {
    let world = World::new(stage).await;
    if let Isolation::Gvisor(_) = target.isolation {
        return match verdict(is_refused(target, &world).await) {
            Verdict::Held(_) => Verdict::Refused("a profile there may name no way out".to_owned()),
            other => other,
        };
    }
    match id {
        "E07" if !stage.places.network => {
            Verdict::NotApplicable("a network of traps needs root to make".to_owned())
        }
        "E16" | "E18" | "E20" | "E26" => verdict(secrets::play(stage, target, &world, id).await),
        "E21" | "E22" | "E25" => verdict(bounds::play(stage, target, &world, id).await),
        "E23" => verdict(without::play(stage, target, &world).await),
        _ => verdict(attacks::play(stage, target, &world, id).await),
    }
}

/// A backend without a way out refuses a profile that names one, with the layer's name, and runs nothing.
async fn is_refused(target: &Target, world: &World) -> Result<String, String> {
    run(&target.sandbox, "pass").await.map_err(|refused| format!("control: {refused}"))?;
    let profile = world.profile(target, &allow(&["http://api.allowed.test"]));
    let sandbox = Sandbox::new(profile);
    let tried = [sandbox.warm().await, play_in(&sandbox, world, "pass").await.map(drop)];
    for refused in tried {
        let layer = refused.map_err(|refused| refused.layer);
        ensure(layer == Err("egress".to_owned()), || format!("with a way out: {layer:?}"))?;
    }
    Ok(String::new())
}

/// One program in a sandbox of its own, watched.
async fn play_in(
    sandbox: &Sandbox,
    world: &World,
    source: impl Into<String>,
) -> Result<Outcome, ringfence_sandbox::Refused> {
    let watch: Arc<Record> = world.record.clone();
    sandbox.run(Program::new(source), watch, CancellationToken::new()).await
}

/// A program with what all programs with a way out begin with.
fn program(stage: &Stage, source: &str, given: &Value) -> String {
    stage.program(&format!("{}\n{source}", include_str!("../../programs/egress.py")), given)
}

/// Runs a program with a way out by these rules, to its end.
async fn attack(
    stage: &Stage,
    target: &Target,
    world: &World,
    declared: &Declared,
    source: &str,
) -> Result<(Outcome, Seen), String> {
    let sandbox = Sandbox::new(world.profile(target, declared));
    let source = program(stage, source, &world.given(declared));
    let outcome = play_in(&sandbox, world, source).await.map_err(|refused| format!("control: {refused}"));
    sandbox.close().await;
    let outcome = outcome?;
    let seen = read(&outcome_text(&outcome));
    ensure(seen.has_ended, || {
        format!("control: it did not run to its end ({:?}): {}", outcome.ended, seen.all)
    })?;
    let failed: Vec<&str> = seen.all.lines().filter(|line| line.starts_with("fails ")).collect();
    ensure(failed.is_empty(), || format!("control: what is allowed does not work: {}", failed.join("; ")))?;
    ensure(outcome.receipt.nothing_left, || "something is left of the run".to_owned())?;
    Ok((outcome, seen))
}

/// What nobody may have seen of any of it.
fn nothing_left_the_rules(stage: &mut Stage, world: &World, seen: &Seen) -> Result<(), String> {
    let contacts = stage.contacts()?;
    let evil = world.evil.got();
    ensure(evil.is_empty() && world.evil.connections() == 0, || format!("a server was reached: {evil}"))?;
    let asked = world.names.asked();
    let is_known = |name: &String| name.ends_with(".allowed.test") && !name.contains("evil");
    let others: Vec<&String> = asked.iter().filter(|name| !is_known(name)).collect();
    ensure(others.is_empty(), || format!("names were resolved that no rule allows: {others:?}"))?;
    match stage.judge(seen, &contacts) {
        Some(hole) => Err(hole),
        None => Ok(()),
    }
}

/// The same program outside, before the proxy that judges nothing: how many of its attacks work there.
async fn control(
    stage: &mut Stage,
    world: &World,
    source: &str,
    seen: &Seen,
    more: &Value,
) -> Result<String, String> {
    let mut given = world.given_outside();
    for (name, value) in more.as_object().into_iter().flatten() {
        given[name] = value.clone();
    }
    let control = stage.outside(Language::Python, &program(stage, source, &given), &[]).await;
    let _its_own = stage.contacts();
    let control = control.map_err(|verdict| format!("control: {verdict:?}"))?;
    ensure(!control.reached.is_empty(), || format!("control: nothing works without rules: {}", control.all))?;
    let is_inner = |what: &&String| control.all.contains(&format!("refused {what} - Inner"));
    let (inner, outer): (Vec<&String>, Vec<&String>) = seen.refused.iter().partition(is_inner);
    let unshown: Vec<&str> =
        outer.iter().filter(|what| !control.reached.contains(**what)).map(|what| what.as_str()).collect();
    let shown = format!(
        "{} of {} refused ones work before a proxy that judges nothing",
        outer.len() - unshown.len(),
        outer.len()
    );
    let unshown = if unshown.is_empty() { String::new() } else { format!(", not {}", unshown.join(", ")) };
    let inner = match inner.len() {
        0 => String::new(),
        inner => format!("; {inner} more by the sandbox's own names and sockets, which nobody else has"),
    };
    Ok(format!("{shown}{unshown}{inner}"))
}

//! What a program can do when nobody holds its way out any more.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringfence_sandbox::egress::Rules;
use ringfence_sandbox::{Program, Sandbox, Start};
use tokio_util::sync::CancellationToken;

use super::world::{World, allow};
use super::{attack, nothing_left_the_rules};
use crate::canary::random;
use crate::leftovers::{is_running, wait_until};
use crate::lifecycle::ensure;
use crate::run::{Stage, Target, python};

const WITHOUT: &str = include_str!("../../programs/e23_without.py");

pub(super) async fn play(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let lives = while_the_program_lives(stage, target, world).await?;
    let killed = killed(stage, target).await?;
    Ok(format!("{lives}; {killed}"))
}

/// What cannot be recorded ends the way out. The program is still there, with a network that leads nowhere.
async fn while_the_program_lives(
    stage: &mut Stage,
    target: &Target,
    world: &World,
) -> Result<String, String> {
    let declared = allow(&["http://api.allowed.test"]);
    // The end of its first request is what can no longer be recorded.
    world.record.most.store(1, Ordering::Relaxed);
    let (_, seen) = attack(stage, target, world, &declared, WITHOUT).await?;
    nothing_left_the_rules(stage, world, &seen)?;
    let requests = world.allowed.got().matches("GET /").count();
    ensure(requests == 1, || format!("{requests} requests left"))?;
    Ok(format!("{} ways tried after the first request", seen.refused.len()))
}

/// The gateway, and with it the proxy, is killed while a program sends requests.
async fn killed(stage: &mut Stage, target: &Target) -> Result<String, String> {
    let world = World::new(stage).await;
    let way = if target.profile.start == Start::Fork { "fork" } else { "exec" };
    let name = random();
    let mut gateway = start(&format!("{way} {name} {}", world.allowed.address))?;
    let requests = || world.allowed.got().matches("GET /").count();
    let has_begun = wait_until(|| requests() >= 3 && is_running(&name)).await;
    let _gone_already = gateway.kill();
    let _reaped = gateway.wait();
    ensure(has_begun, || format!("control: {} requests came before it was killed", requests()))?;
    ensure(wait_until(|| !is_running(&name)).await, || "a program outlives its gateway".to_owned())?;
    let before = (requests(), world.allowed.connections());
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure((requests(), world.allowed.connections()) == before, || "requests still come".to_owned())?;
    Ok(format!("{} requests came before its gateway was killed, none after", before.0))
}

fn start(told: &str) -> Result<Child, String> {
    let mut gateway = Command::new("/proc/self/exe")
        .args(["--role=gateway", &format!("--told=egress {told}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let up = gateway.stdout.take().and_then(|output| BufReader::new(output).lines().next());
    match up {
        Some(Ok(word)) if word == "up" => Ok(gateway),
        other => {
            let _gone_already = gateway.kill();
            let _reaped = gateway.wait();
            Err(format!("control: the gateway did not come up: {other:?}"))
        }
    }
}

/// Runs a program that sends one request after the other, until it is killed.
pub(crate) fn be_a_gateway(told: &str) -> ExitCode {
    let words: Vec<&str> = told.split(' ').collect();
    let mut profile = python();
    profile.start = if words[0] == "fork" { Start::Fork } else { Start::Exec };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let text = format!("http://{}", words[2]);
        let rules = Rules::check(&allow(&[&text]), &BTreeMap::default()).unwrap();
        profile.egress = Some(ringfence_sandbox::WayOut::new(rules).unwrap());
        let sandbox = Sandbox::new(profile);
        sandbox.warm().await.unwrap();
        println!("up");
        let source = format!(
            "import os, time, urllib.request\nif os.fork() == 0:\n    os.execv('/usr/bin/sleep', ['{}', '60'])\nwhile True:\n    urllib.request.urlopen('{text}/', timeout=5).read()\n    time.sleep(0.01)",
            words[1]
        );
        let watch = Arc::new(super::Record::default());
        drop(sandbox.run(Program::new(source), watch, CancellationToken::new()).await);
    });
    ExitCode::SUCCESS
}

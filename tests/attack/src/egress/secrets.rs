//! A credential that programs use and never have, and the authority that they trust.

use ringfence_sandbox::Sandbox;
use ringfence_sandbox::egress::{Reason, Verdict};
use serde_json::json;

use super::world::World;
use super::{attack, control, nothing_left_the_rules, play_in, program};
use crate::lifecycle::ensure;
use crate::run::{Stage, Target, outcome_text, run_once};

const SEARCH: &str = include_str!("../../programs/e16_search.py");
const PLAIN: &str = include_str!("../../programs/e18_plain.py");
const TWO: &str = include_str!("../../programs/e20_two_credentials.py");
const AUTHORITIES: &str = include_str!("../../programs/e26_authorities.py");

pub(super) async fn play(
    stage: &mut Stage,
    target: &Target,
    world: &World,
    id: &str,
) -> Result<String, String> {
    match id {
        "E16" => search(stage, target, world).await,
        "E18" => plain(stage, target, world).await,
        "E20" => two(stage, target, world).await,
        _ => authorities(stage, target, world).await,
    }
}

async fn search(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let (_, seen) = attack(stage, target, world, &world.bound(), SEARCH).await?;
    nothing_left_the_rules(stage, world, &seen)?;
    ensure(world.allowed.got().contains(&world.secret), || "control: no server got it".to_owned())?;
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.environment.insert("KEY".to_owned(), world.secret.clone());
    let there = run_once(&profile, program(stage, SEARCH, &world.given_outside())).await;
    let there = outcome_text(&there.map_err(|refused| format!("control: {refused}"))?);
    ensure(there.contains(&world.secret), || format!("control: not found where it is: {there}"))?;
    Ok("the server got it; where it is in the environment, the same program finds it".to_owned())
}

async fn plain(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let (_, seen) = attack(stage, target, world, &world.bound(), PLAIN).await?;
    nothing_left_the_rules(stage, world, &seen)?;
    ensure(!world.allowed.got().contains(&world.secret), || "the secret went over plain HTTP".to_owned())?;
    let decisions = world.record.decisions();
    let is_denied = decisions.iter().any(|decision| decision.reason == Reason::PlainToCredentialHost);
    ensure(is_denied, || format!("control: {decisions:?}"))?;
    let shown = control(stage, world, PLAIN, &seen, &json!({})).await?;
    ensure(world.allowed.got().contains(&world.secret), || "control: it puts nothing in".to_owned())?;
    Ok(shown)
}

async fn two(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let (_, seen) = attack(stage, target, world, &world.bound(), TWO).await?;
    nothing_left_the_rules(stage, world, &seen)?;
    let credentials = |got: &str| {
        let lower = got.to_ascii_lowercase();
        lower.lines().filter(|line| line.starts_with("authorization:")).count()
    };
    let got = world.allowed.got();
    let requests = got.matches("GET /v1").count();
    let ours = got.matches(&format!("authorization: Bearer {}\r\n", world.secret)).count();
    ensure(requests >= 4 && ours == requests && credentials(&got) == requests, || got.clone())?;
    let shown = control(stage, world, TWO, &seen, &json!({})).await;
    let there = world.allowed.got();
    let more = credentials(&there[got.len()..]);
    let asked = there[got.len()..].matches("GET /v1").count();
    ensure(more > asked, || format!("control: {more} of {asked}: {shown:?}"))?;
    Ok(format!("one each, ours, in {requests} requests; otherwise {more} in {asked}"))
}

async fn authorities(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let declared = world.bound();
    let sandbox = Sandbox::new(world.profile(target, &declared));
    let print = "print(open('/program/authorities.pem').read().rstrip().split('-----BEGIN')[-1])";
    let one = play_in(&sandbox, world, print).await.map_err(|refused| format!("control: {refused}"))?;
    let theirs = format!("-----BEGIN{}", one.stdout.text);
    ensure(theirs.contains("CERTIFICATE"), || format!("control: {theirs}"))?;
    let source = format!("THEIRS = {theirs:?}\n{AUTHORITIES}");
    let (_, seen) = attack(stage, target, world, &declared, &source).await?;
    sandbox.close().await;
    nothing_left_the_rules(stage, world, &seen)?;
    let decisions = world.record.decisions();
    let broken = decisions.iter().filter(|decision| decision.reason == Reason::ClientTls).count();
    let worked = decisions.iter().filter(|decision| decision.verdict == Verdict::Allow).count();
    ensure((broken, worked) == (1, 1), || format!("{decisions:?}"))?;
    Ok("its own works; another's does not, and no key is there to be read".to_owned())
}

//! How much, how many, how long; and that each of it is on record.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringfence_sandbox::Sandbox;
use ringfence_sandbox::egress::{Declared, Reason, Verdict, Via};

use super::world::{ALLOWED, World, allow};
use super::{attack, nothing_left_the_rules, play_in, program};
use crate::lifecycle::ensure;
use crate::run::{Stage, Target, run_once};

const UPLOAD: &str = include_str!("../../programs/e21_upload.py");
const MANY: &str = include_str!("../../programs/e22_many.py");
const NEIGHBOUR: &str = include_str!("../../programs/e22_neighbour.py");
const RECORDED: &str = include_str!("../../programs/e25_recorded.py");

pub(super) async fn play(
    stage: &mut Stage,
    target: &Target,
    world: &World,
    id: &str,
) -> Result<String, String> {
    match id {
        "E21" => upload(stage, target, world).await,
        "E22" => many(stage, target, world).await,
        _ => recorded(stage, target, world).await,
    }
}

fn plain() -> Declared {
    allow(&["http://api.allowed.test"])
}

async fn upload(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let mut declared = plain();
    declared.limits.bytes_up_max = 200_000;
    let (outcome, seen) = attack(stage, target, world, &declared, UPLOAD).await?;
    nothing_left_the_rules(stage, world, &seen)?;
    let total = world.allowed.total();
    ensure(total <= 200_000, || format!("{total} bytes left, of 200000"))?;
    ensure(outcome.receipt.used.egress_bytes_up == 200_000, || format!("{:?}", outcome.receipt.used))?;
    let decisions = world.record.decisions();
    let reasons: Vec<_> = decisions.iter().map(|decision| (decision.verdict, decision.reason)).collect();
    let cut = (Verdict::End, Reason::BudgetUp);
    ensure(reasons.contains(&cut), || format!("its end is not on record: {reasons:?}"))?;
    declared.limits.bytes_up_max = 64 << 20;
    attack(stage, target, world, &declared, UPLOAD).await?;
    let more = world.allowed.total() - total;
    ensure(more > 8 << 20, || format!("control: with a wider budget {more} bytes"))?;
    Ok(format!("cut at 200000 bytes; with a wider budget {more}"))
}

async fn many(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let mut declared = plain();
    (declared.limits.connections_at_once_max, declared.limits.connections_max) = (4, 40);
    declared.limits.head_seconds = 1;
    // Beside it a neighbour with a way out of its own.
    let neighbours = World::new(stage).await;
    let beside = Sandbox::new(neighbours.profile(target, &plain()));
    let source = program(stage, NEIGHBOUR, &neighbours.given(&plain()));
    let beside = async {
        let began = Instant::now();
        let outcome = play_in(&beside, &neighbours, source).await;
        beside.close().await;
        (outcome, began.elapsed())
    };
    let (attacked, (outcome, took)) = tokio::join!(attack(stage, target, world, &declared, MANY), beside);
    let (_, seen) = attacked?;
    nothing_left_the_rules(stage, world, &seen)?;
    let outcome = outcome.map_err(|refused| format!("the neighbour: {refused}"))?;
    ensure(outcome.stdout.text.contains("40 answers"), || format!("the neighbour: {outcome:?}"))?;
    let last = world.record.decisions().iter().map(|decision| decision.connection).max();
    ensure(last <= Some(41), || format!("{last:?} connections of 40"))?;
    let before = world.allowed.connections();
    ensure(before <= 40, || format!("{before} connections left"))?;
    attack(stage, target, world, &plain(), MANY).await?;
    let more = world.allowed.connections() - before;
    ensure(more > 100, || format!("control: without limits {more} connections"))?;
    let slow = Duration::from_secs(15);
    ensure(took < slow, || format!("the neighbour's 40 requests took {took:?}"))?;
    Ok(format!("{before} connections left, otherwise {more}; the neighbour took {} ms", took.as_millis()))
}

async fn recorded(stage: &mut Stage, target: &Target, world: &World) -> Result<String, String> {
    let declared = allow(&["http://api.allowed.test", ALLOWED]);
    let (outcome, seen) = attack(stage, target, world, &declared, RECORDED).await?;
    let receipt = &outcome.receipt;
    let is_told =
        receipt.egress == ["http://api.allowed.test", ALLOWED] && receipt.used.egress_bytes_down > 0;
    ensure(is_told, || format!("not in the receipt: {receipt:?}"))?;
    nothing_left_the_rules(stage, world, &seen)?;
    let loopback: IpAddr = [127, 0, 0, 1].into();
    let decisions = world.record.decisions();
    let (mut allowed, mut ended) = (Vec::new(), Vec::new());
    for decision in decisions.iter().filter(|decision| decision.verdict != Verdict::Deny) {
        let is_whole = decision.host.as_ref().is_some_and(|host| host.to_string() == ALLOWED)
            && decision.address == Some(loopback)
            && decision.rule.is_some()
            && decision.via == Via::Proxy;
        ensure(is_whole, || format!("not all is on record: {decision:?}"))?;
        let counted = decision.bytes_up > 0 && decision.bytes_down > 0;
        ensure(decision.verdict == Verdict::Allow || counted, || format!("no bytes: {decision:?}"))?;
        let list = if decision.verdict == Verdict::Allow { &mut allowed } else { &mut ended };
        list.push(decision.connection);
    }
    allowed.sort_unstable();
    ended.sort_unstable();
    let requests = world.allowed.got().matches("GET /").count();
    ensure(allowed == ended && allowed.len() == requests, || format!("{allowed:?}, {ended:?}, {requests}"))?;
    // Where nobody records, nothing leaves.
    let source = program(stage, RECORDED, &world.given(&declared));
    let unwatched = run_once(&world.profile(target, &declared), source).await;
    let unwatched = unwatched.map_err(|refused| format!("control: {refused}"))?.stdout.text;
    let left = world.allowed.got().matches("GET /").count() - requests;
    ensure(left == 0 && unwatched.contains("fails request 0"), || format!("unrecorded: {unwatched}"))?;
    let text = serde_json::to_string(&decisions).unwrap();
    ensure(text.contains("evil") && !text.contains("\\n") && !text.contains("\\r"), || text.clone())?;
    Ok(format!(
        "{requests} requests, each with a beginning and an end; whose run and call it was stands in the journal (tests/tests/end_to_end/programs.rs)"
    ))
}

//! Programs that try to get past the rules, each with the rules that it is played under.

use ringfence_sandbox::egress::{Declared, Entry, Reason, Rules, Verdict};
use serde_json::json;

use super::world::{ALLOWED, World, allow, inspected};
use super::{attack, control, nothing_left_the_rules};
use crate::lifecycle::ensure;
use crate::run::{Stage, Target};

struct Attack {
    id: &'static str,
    program: &'static str,
    rules: fn(&World) -> Declared,
}

macro_rules! attack {
    ($id:literal, $program:literal, $rules:expr) => {
        Attack { id: $id, program: include_str!(concat!("../../programs/", $program, ".py")), rules: $rules }
    };
}

const ATTACKS: &[Attack] = &[
    attack!("E01", "e01_empty_list", |_| allow(&[])),
    attack!("E02", "e02_other_host", |_| allow(&[ALLOWED])),
    attack!("E03", "e03_plain_http", |_| allow(&["http://api.allowed.test", ALLOWED])),
    attack!("E04", "e04_other_host_header", |_| allow(&["http://api.allowed.test", ALLOWED])),
    attack!("E05", "e05_spelled_hosts", |_| allow(&["http://api.allowed.test", ALLOWED])),
    attack!("E07", "e07_names_that_lead_inside", |_| allow(&[
        "http://inside.allowed.test",
        "http://metadata.allowed.test",
        "http://mixed.allowed.test",
        "http://rebound.allowed.test",
    ])),
    attack!("E09", "e09_other_host_within", |_| with(inspected(ALLOWED, "GET", "/"), "tunnel.allowed.test")),
    attack!("E10", "e10_not_tls", |_| allow(&[ALLOWED])),
    attack!("E12", "e12_spelled_paths", |_| with(
        inspected(ALLOWED, "GET", "/v1"),
        "http://other.allowed.test"
    )),
    attack!("E14", "e14_other_ports", |_| allow(&[ALLOWED])),
    attack!("E15", "e15_the_gateway", |_| allow(&[ALLOWED])),
    attack!("E17", "e17_placeholders", World::bound),
    attack!("E27", "e27_other_buckets", |_| {
        with(inspected("storage.allowed.test", "GET", "/bucket-a"), ALLOWED)
    }),
];

fn with(rule: ringfence_sandbox::egress::DeclaredRule, plain: &str) -> Declared {
    let mut declared = allow(&[plain]);
    declared.allow.push(Entry::Rule(rule));
    declared
}

pub(super) async fn play(
    stage: &mut Stage,
    target: &Target,
    world: &World,
    id: &str,
) -> Result<String, String> {
    let row = ATTACKS.iter().find(|row| row.id == id).ok_or("nobody plays it")?;
    let (_, seen) = attack(stage, target, world, &(row.rules)(world), row.program).await?;
    nothing_left_the_rules(stage, world, &seen)?;
    let more = more(world, id)?;
    let shown = control(stage, world, row.program, &seen, &json!({})).await?;
    Ok(if more.is_empty() { shown } else { format!("{shown}; {more}") })
}

/// What else is to be seen from outside of one of them.
fn more(world: &World, id: &str) -> Result<String, String> {
    let decisions = world.record.decisions();
    let denied = decisions.iter().filter(|decision| decision.verdict == Verdict::Deny).count();
    ensure(denied > 0, || format!("control: nothing was denied: {decisions:?}"))?;
    match id {
        "E01" => {
            let is_dead = world.allowed.connections() == 0 && denied == decisions.len();
            ensure(is_dead, || format!("something left: {decisions:?}"))?;
            Ok(format!("{denied} denials recorded"))
        }
        "E09" => {
            ensure(Rules::parse(&["*.allowed.test"]).is_err(), || "a tunnel may be a wildcard".to_owned())?;
            Ok("within a tunnel's TLS nothing is seen, so a wildcard has to be inspected".to_owned())
        }
        "E17" => {
            let got = world.allowed.got();
            let half = world.placeholder.split_at(20).1;
            ensure(!got.contains(half), || format!("a placeholder left: {got}"))?;
            let alarms = decisions.iter().filter(|decision| decision.reason == Reason::Placeholder).count();
            ensure(alarms >= 8, || format!("control: {alarms} alarms: {decisions:?}"))?;
            Ok(format!("{alarms} alarms recorded"))
        }
        "E05" => {
            let text = serde_json::to_string(&decisions).unwrap();
            ensure(!text.contains("\\n") && !text.contains("\\u0000"), || format!("not escaped: {text}"))?;
            Ok("how names are read is proved apart, in crates/sandbox/src/egress/host.rs".to_owned())
        }
        _ => Ok(String::new()),
    }
}

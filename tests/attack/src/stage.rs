//! A stage: one user, in a network of traps, playing the whole list.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ringfence_sandbox::Language;

use crate::canary::{Canary, Places};
use crate::probe::{Record, Verdict};
use crate::run::{JudgedBy, Stage, Target, is_there, node, targets};
use crate::{Arguments, egress, faults, golden, leftovers, lifecycle, resources, stale, table, zygote};

/// Addresses that attacks are fond of. All others are ours too: every address of this network is its own.
const ADDRESSES: [&str; 7] = [
    "10.0.0.1/32",
    "172.17.0.1/32",
    "192.168.1.1/32",
    "169.254.169.254/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "fd00:ec2::254/128",
];

/// How long a row takes that hangs.
const HUNG: Duration = Duration::from_mins(10);

/// In a network namespace that was just made: nothing leads out of it, and every address in it is a trap.
pub(crate) fn enter_network(arguments: &Arguments) -> ExitCode {
    let ip =
        |words: &str| Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success());
    // A network of our own, or nothing is done: what follows changes routes.
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(
        Some(own.as_path()),
        fs::read_link("/proc/1/ns/net").ok().as_deref(),
        "this is the host's network"
    );
    let mut ready = ip("link set lo up");
    for address in ADDRESSES {
        ready &= ip(&format!("addr add {address} dev lo"));
    }
    ready &= ip("route add local default dev lo") && ip("-6 route add local default dev lo");
    // So that a wall that hides interfaces has one to hide; not every kernel has the type.
    let _not_everywhere = ip("link add attack0 type veth peer name attack1");
    assert!(ready, "the network of traps could not be made");
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").unwrap();
    let words: Vec<String> = serde_json::from_str(&arguments.told).unwrap();
    let status = Command::new(&words[0]).args(&words[1..]).status().unwrap();
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// Plays the list, and says each result as it comes.
pub(crate) fn play(arguments: &Arguments) -> ExitCode {
    let places: Places = serde_json::from_str(&arguments.told).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let runs = arguments.runs.unwrap_or(if arguments.fast { 24 } else { 300 });
    let canary = Canary::start(&places);
    let mut stage = Stage { places, canary, fast: arguments.fast, runs, bless: arguments.bless };
    if !is_there(&node()) {
        let missing = Verdict::NotApplicable("SKIPPED: this machine has no Node in /usr".to_owned());
        say("process, Node", "-", "programs in Node", Instant::now(), missing);
    }
    runtime.block_on(async {
        for target in targets(arguments) {
            if let Err(refused) = target.sandbox.warm().await {
                let failed = Verdict::ControlFailed(refused.to_string());
                say(target.name, "-", "the backend is there", Instant::now(), failed);
                continue;
            }
            play_on(&mut stage, arguments, &target).await;
            target.sandbox.close().await;
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    ExitCode::SUCCESS
}

async fn play_on(stage: &mut Stage, arguments: &Arguments, target: &Target) {
    let wanted = |id: &str| arguments.only.as_ref().is_none_or(|only| id.starts_with(only.as_str()));
    for probe in table::probes(target.profile.language).filter(|probe| wanted(probe.id)) {
        let began = Instant::now();
        let verdict = stage.probe(target, probe).await;
        say(target.name, probe.id, probe.title, began, verdict);
    }
    if target.profile.language != Language::Python {
        return;
    }
    for (id, title, is_fast) in egress::LIST.iter().filter(|(id, ..)| wanted(id)) {
        if *is_fast || !arguments.fast {
            let began = Instant::now();
            let verdict = in_time(HUNG, egress::play(stage, target, id)).await;
            say(target.name, id, title, began, verdict);
        }
    }
    if target.judged_by == JudgedBy::Canaries {
        return;
    }
    for (id, part, title) in golden::PARTS.iter().filter(|part| wanted(part.0)) {
        let began = Instant::now();
        let verdict = golden::compare(stage, target, part).await;
        say(target.name, id, title, began, verdict);
    }
    let lists = [lifecycle::LIST, resources::LIST, zygote::LIST, faults::LIST, leftovers::LIST, stale::LIST];
    for (id, title, is_fast) in lists.into_iter().flatten().filter(|(id, ..)| wanted(id)) {
        if arguments.fast && !is_fast {
            continue;
        }
        let began = Instant::now();
        // The search for growth takes as many runs as it is told.
        let hung = HUNG.max(Duration::from_millis(200) * u32::try_from(stage.runs).unwrap_or(u32::MAX));
        let tried = async {
            match id.as_bytes()[0] {
                b'R' => resources::play(stage, target, id).await,
                b'X' => zygote::play(stage, target, id).await,
                _ if *id == "L10" => stale::play(stage, target).await,
                _ if id.starts_with("L07") => faults::play(stage, target, id).await,
                _ if leftovers::LIST.iter().any(|own| own.0 == *id) => {
                    leftovers::play(stage, target, id).await
                }
                _ => lifecycle::play(stage, target, id).await,
            }
        };
        let mut verdict = in_time(hung, tried).await;
        if let Err(why) = stage.contacts() {
            verdict = Verdict::Hole(why);
        }
        say(target.name, id, title, began, verdict);
    }
    for untried in table::UNTRIED.iter().filter(|untried| wanted(untried.id)) {
        let verdict = (untried.verdict)(untried.why.to_owned());
        say(target.name, untried.id, untried.title, Instant::now(), verdict);
    }
}

async fn in_time(most: Duration, tried: impl Future<Output = Verdict>) -> Verdict {
    let tried = tokio::time::timeout(most, tried).await;
    tried.unwrap_or_else(|_| Verdict::Hole("it hung".to_owned()))
}

fn say(target: &str, id: &str, title: &str, began: Instant, verdict: Verdict) {
    let user = if rustix::process::getuid().is_root() { "root" } else { "user" };
    let record = Record {
        id: id.to_owned(),
        title: title.to_owned(),
        target: target.to_owned(),
        user: user.to_owned(),
        verdict,
        milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    println!("{}", serde_json::to_string(&record).unwrap());
}

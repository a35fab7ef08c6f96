//! The list as one: starts a stage for each user, gathers what they say, and prints the matrix.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use clap::ValueEnum as _;
use ringfence_sandbox::GvisorSettings;

use crate::canary::{Places, random, write};
use crate::probe::{Record, Verdict};
use crate::{Arguments, Backends, Users, golden};

/// The ordinary user: nobody's, on any machine.
const USER: &str = "61000";

/// Prints the matrix; fails on a hole, on a control that did not work, and where nothing was tried.
pub(crate) fn list(arguments: &Arguments) -> ExitCode {
    let is_root = rustix::process::getuid().is_root();
    let users = arguments.user.unwrap_or(if is_root { Users::Both } else { Users::User });
    if users != Users::User && !is_root {
        eprintln!("only root can play the list as root");
        return ExitCode::FAILURE;
    }
    let has_gvisor = GvisorSettings::default().runtime.exists();
    if arguments.backend == Backends::Gvisor && !has_gvisor {
        eprintln!("this machine has no `runsc`");
        return ExitCode::FAILURE;
    }
    let mut records = Vec::new();
    let mut broken = Vec::new();
    let wanted = [("root", users != Users::User), ("user", users != Users::Root)];
    let names: Vec<&'static str> =
        wanted.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect();
    // Most of a fast list is waiting; a full one measures, and has the machine to itself.
    let together = if arguments.fast { names.len() } else { 1 };
    for names in names.chunks(together) {
        let played = std::thread::scope(|scope| {
            let play_one = |name: &&'static str| {
                let name = *name;
                scope.spawn(move || (name, play(arguments, name, is_root)))
            };
            let stages: Vec<_> = names.iter().map(play_one).collect();
            stages.into_iter().map(|stage| stage.join().unwrap()).collect::<Vec<_>>()
        });
        for (name, (more, status)) in played {
            if status != Some(0) {
                broken.push(format!("the stage of {name} ended with {status:?}"));
            }
            records.extend(more);
        }
    }
    if arguments.json {
        for record in &records {
            println!("{}", serde_json::to_string(record).unwrap());
        }
    } else {
        matrix(&records);
    }
    conclude(&records, &broken)
}

/// One stage, in a network of traps where root can make one.
fn play(arguments: &Arguments, user: &str, is_root: bool) -> (Vec<Record>, Option<i32>) {
    let folder = tempfile::Builder::new().prefix("ringfence-attack-").tempdir_in("/var/tmp").unwrap();
    let open_to_all = |mode: u32| fs::Permissions::from_mode(mode);
    fs::set_permissions(folder.path(), open_to_all(0o755)).unwrap();
    let prefix = format!("rf{}", &random()[..6]);
    let file = folder.path().join("canary.txt");
    write(&file, &format!("{prefix}-host-file-{}\n", random()), 0o644);
    let below_usr = is_root.then(|| {
        let below =
            tempfile::Builder::new().prefix("ringfence-attack-").tempdir_in("/usr/local/share").unwrap();
        fs::set_permissions(below.path(), open_to_all(0o755)).unwrap();
        write(&below.path().join("canary.txt"), &format!("{prefix}-host-root-{}\n", random()), 0o600);
        below
    });
    let own = folder.path().join("own");
    fs::create_dir(&own).unwrap();
    // The user must be able to execute it, wherever it was built.
    let executable = folder.path().join("ringfence-attack");
    fs::copy(std::env::current_exe().unwrap(), &executable).unwrap();
    fs::set_permissions(&executable, open_to_all(0o755)).unwrap();
    let as_user = is_root && user == "user";
    if as_user {
        rustix::fs::chown(&own, Some(rustix::fs::Uid::from_raw(61000)), None).unwrap();
    }
    let golden = folder.path().join("golden");
    copy_tables(&golden::folder(), &golden);
    if as_user {
        rustix::fs::chown(&golden, Some(rustix::fs::Uid::from_raw(61000)), None).unwrap();
    }
    let places = Places {
        golden,
        prefix,
        file,
        root_file: below_usr.as_ref().map(|below| below.path().join("canary.txt")),
        folder: own,
        network: is_root,
    };
    let mut stage: Vec<String> = Vec::new();
    if as_user {
        stage.extend(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"].map(String::from));
    }
    stage.extend(words(&executable, arguments, "stage", &serde_json::to_string(&places).unwrap()));
    if is_root {
        let inner = serde_json::to_string(&stage).unwrap();
        stage = ["unshare", "--net", "--"].map(String::from).to_vec();
        stage.extend(words(&executable, arguments, "network", &inner));
    }
    let mut child = Command::new(&stage[0])
        .args(&stage[1..])
        .current_dir("/")
        .env("RINGFENCE_ATTACK_SECRET", format!("{}-host-gateway-{}", places.prefix, random()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let records = lines.map_while(Result::ok).filter_map(|line| {
        let record: Record = serde_json::from_str(&line).ok()?;
        eprintln!(
            "  {:5} {:17} {:4} {:>6} ms  {}",
            record.id,
            record.target,
            record.user,
            record.milliseconds,
            word(&record.verdict)
        );
        Some(record)
    });
    let records = records.collect();
    if arguments.bless {
        copy_tables(&places.golden, &golden::folder());
    }
    (records, child.wait().ok().and_then(|status| status.code()))
}

fn copy_tables(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn words(executable: &Path, arguments: &Arguments, role: &str, told: &str) -> Vec<String> {
    let mut words =
        vec![executable.display().to_string(), format!("--role={role}"), format!("--told={told}")];
    let backend = arguments.backend.to_possible_value();
    words.extend(backend.map(|backend| format!("--backend={}", backend.get_name())));
    words.extend(arguments.fast.then(|| "--fast".to_owned()));
    words.extend(arguments.bless.then(|| "--bless".to_owned()));
    words.extend(arguments.only.iter().map(|only| format!("--only={only}")));
    words.extend(arguments.runs.iter().map(|runs| format!("--runs={runs}")));
    words
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Held(_) => "held",
        Verdict::Refused(_) => "refused",
        Verdict::Hole(_) => "HOLE",
        Verdict::NotApplicable(_) => "not applicable",
        Verdict::ControlFailed(_) => "control failed",
        Verdict::NotYet(_) => "not yet",
    }
}

fn why(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Held(why)
        | Verdict::Refused(why)
        | Verdict::Hole(why)
        | Verdict::NotApplicable(why)
        | Verdict::ControlFailed(why)
        | Verdict::NotYet(why) => why,
    }
}

fn matrix(records: &[Record]) {
    let mut columns: Vec<String> = Vec::new();
    let mut rows: BTreeMap<&str, BTreeMap<String, &Record>> = BTreeMap::new();
    for record in records {
        let column = format!("{}, {}", record.target, record.user);
        if !columns.contains(&column) {
            columns.push(column.clone());
        }
        rows.entry(&record.id).or_default().insert(column, record);
    }
    let in_columns =
        |cells: Vec<&str>| cells.iter().map(|cell| format!("{cell:25}")).collect::<Vec<_>>().concat();
    println!("\n{:6}{:44}{}", "", "", in_columns(columns.iter().map(String::as_str).collect()));
    for (id, row) in &rows {
        let title = row.values().next().map_or("", |record| record.title.as_str());
        let cells = columns.iter().map(|column| row.get(column).map_or("-", |record| word(&record.verdict)));
        println!("{id:6}{title:44}{}", in_columns(cells.collect()));
    }
    let mut notes: BTreeMap<(&str, &str, &str), Vec<String>> = BTreeMap::new();
    for record in records.iter().filter(|record| !why(&record.verdict).is_empty()) {
        let key = (record.id.as_str(), word(&record.verdict), why(&record.verdict));
        notes.entry(key).or_default().push(format!("{}, {}", record.target, record.user));
    }
    println!("\nNotes");
    for ((id, word, why), who) in notes {
        let who = if who.len() == columns.len() { "all".to_owned() } else { who.join("; ") };
        println!("  {id:6}{word} ({who}): {why}");
    }
}

fn conclude(records: &[Record], broken: &[String]) -> ExitCode {
    let count = |wanted: &str| records.iter().filter(|record| word(&record.verdict) == wanted).count();
    let (held, holes, failed) = (count("held"), count("HOLE"), count("control failed"));
    eprintln!(
        "\n{held} held, {} refused, {holes} holes, {failed} controls failed, {} not applicable, {} not yet",
        count("refused"),
        count("not applicable"),
        count("not yet")
    );
    for why in broken {
        eprintln!("{why}");
    }
    let is_good = holes == 0 && failed == 0 && held + count("refused") > 0 && broken.is_empty();
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

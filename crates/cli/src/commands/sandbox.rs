//! `ringfence sandbox run`: one program in a sandbox of its own, without a project.

use std::io::{Read as _, Write as _};
use std::path::{Component, Path};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ringfence_sandbox::egress::{self, Decision, Unrecorded};
use ringfence_sandbox::{
    Ended, InputFile, Language, Outcome, Profile, Program, Resources, Sandbox, Stream, strongest,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::doctor::advice;
use crate::args::{SandboxLanguage, SandboxRun};
use crate::failure::Failure;
use crate::print;
use crate::project::{Project, SystemDeclaration};
use crate::wiring;

/// The longest program or file that is read, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 20;

pub(crate) async fn run(asking: SandboxRun) -> Result<ExitCode, Failure> {
    let refused = |refused: ringfence_sandbox::Refused| Failure::new(&refused, advice(&refused));
    let mut profile = match &asking.profile {
        Some(name) => of_project(&asking.project, name)?,
        None => strongest(language(asking.language)).map_err(refused)?,
    };
    profile.ready = 0;
    narrow(&mut profile, &asking);
    let source = String::from_utf8(read(&asking.program)?).map_err(|_| {
        Failure::new(format!("`{}` is not UTF-8", asking.program.display()), "name a program's text")
    })?;
    let files = asking.files.iter().map(|path| input(path)).collect::<Result<_, _>>()?;
    if profile.resources == Resources::RlimitsOnly && !asking.json {
        anstream::eprintln!(
            "ringfence: this user can make no cgroup here, so each process is held by itself (rlimits)"
        );
    }
    let cancelled = CancellationToken::new();
    let stop = cancelled.clone();
    tokio::spawn(async move {
        // What is left of the sandbox when the terminal says stop: nothing.
        let _pressed = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    let sandbox = Sandbox::new(profile);
    let watch = Arc::new(Shown { passes_through: !asking.json });
    let program = Program { files, ..Program::new(source) };
    let ran = sandbox.run(program, watch, cancelled).await;
    sandbox.close().await;
    let outcome = ran.map_err(refused)?;
    let artifacts = match &asking.artifacts {
        Some(folder) => keep(folder, &outcome)?,
        None => outcome.artifacts.iter().map(|artifact| artifact.name.clone()).collect(),
    };
    if asking.json {
        print::json(&json!({
            "ended": outcome.ended,
            "stdout": outcome.stdout.text,
            "stderr": outcome.stderr.text,
            "value": outcome.value,
            "truncated": outcome.stdout.cut || outcome.stderr.cut,
            "artifacts": artifacts,
            "left_out": outcome.left_out,
            "receipt": outcome.receipt,
        }));
    } else {
        say_end(outcome.ended);
    }
    Ok(exit_code(outcome.ended))
}

fn language(written: Option<SandboxLanguage>) -> Language {
    match written {
        None | Some(SandboxLanguage::Python) => Language::Python,
        Some(SandboxLanguage::Bash) => Language::Bash,
        Some(SandboxLanguage::Node) => Language::Node,
    }
}

/// The profile of a project's sandbox.
fn of_project(folder: &Path, name: &str) -> Result<Profile, Failure> {
    let project = Project::read(folder)?;
    let sandboxes = project.systems.iter().filter_map(|(name, system)| match &system.declaration {
        SystemDeclaration::Sandbox(declared) => Some((name.as_str(), declared)),
        _ => None,
    });
    let sandboxes: Vec<_> = sandboxes.collect();
    if let Some((_, declared)) = sandboxes.iter().find(|(known, _)| *known == name) {
        let settings = wiring::sandbox(declared).map_err(|(what, instead)| Failure::new(what, instead))?;
        return Ok(settings.profile);
    }
    let known: Vec<String> = sandboxes.iter().map(|(name, _)| format!("`{name}`")).collect();
    let what = format!("`{}` has no sandbox `{name}`", folder.display());
    let instead = if known.is_empty() {
        "declare one: `[systems.NAME]` with `kind = \"sandbox\"`".to_owned()
    } else {
        format!("name one of {}", known.join(", "))
    };
    Err(Failure::new(what, instead))
}

/// What is asked for here takes away from a project's profile and never adds to it; without one it is what holds.
fn narrow(profile: &mut Profile, asking: &SandboxRun) {
    let is_free = asking.profile.is_none();
    let narrowed = |own: u64, wanted: Option<u64>| match wanted {
        Some(wanted) if is_free => wanted,
        Some(wanted) => own.min(wanted),
        None => own,
    };
    let limits = &mut profile.limits;
    limits.wall = Duration::from_secs(narrowed(limits.wall.as_secs(), asking.seconds));
    let bytes = asking.memory_mib.map(|mebibytes| mebibytes.saturating_mul(1 << 20));
    limits.memory_bytes = narrowed(limits.memory_bytes, bytes);
    limits.processes = narrowed(limits.processes, asking.processes);
}

/// Passes on what the program writes as it comes, and says where it connects to.
struct Shown {
    passes_through: bool,
}

impl ringfence_sandbox::Watch for Shown {
    /// Where a pipe that nobody reads any more ends the writing, there is nobody to tell.
    fn wrote(&self, stream: Stream, bytes: &[u8]) {
        if !self.passes_through {
            return;
        }
        let _nobody_reads = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
    }
}

#[async_trait]
impl egress::Watch for Shown {
    async fn decided(&self, decision: &Decision) -> Result<(), Unrecorded> {
        let shown = serde_json::to_string(decision).map_err(|_| Unrecorded)?;
        writeln!(std::io::stderr(), "ringfence: egress {shown}").map_err(|_| Unrecorded)
    }
}

/// Writes the artifacts into a folder, under names that are checked once more: nothing of them leads out of it.
fn keep(folder: &Path, outcome: &Outcome) -> Result<Vec<String>, Failure> {
    let mut kept = Vec::new();
    for artifact in &outcome.artifacts {
        let name = Path::new(&artifact.name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            continue;
        }
        let path = folder.join(name);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
            file.and_then(|mut file| file.write_all(&artifact.bytes))
        });
        written.map_err(|error| {
            let what = format!("`{}` cannot be written: {error}", path.display());
            Failure::new(what, "name a folder in which nothing is in the way")
        })?;
        kept.push(artifact.name.clone());
    }
    Ok(kept)
}

fn say_end(ended: Ended) {
    match ended {
        Ended::Exit(_) => {}
        Ended::Signal(number) => anstream::eprintln!("ringfence: it was ended by signal {number}"),
        Ended::Timeout => anstream::eprintln!("ringfence: its time was up"),
        Ended::OutOfMemory => anstream::eprintln!("ringfence: it wanted more memory than it may have"),
        Ended::OutputLimit => anstream::eprintln!("ringfence: it wrote more than it may"),
        Ended::Cancelled => anstream::eprintln!("ringfence: it was cancelled"),
    }
}

/// As `timeout(1)` and shells have them.
fn exit_code(ended: Ended) -> ExitCode {
    match ended {
        Ended::Exit(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ended::Timeout => ExitCode::from(124),
        Ended::OutOfMemory => ExitCode::from(137),
        Ended::Signal(_) | Ended::OutputLimit | Ended::Cancelled => ExitCode::from(125),
    }
}

fn input(path: &Path) -> Result<InputFile, Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    Ok(InputFile { name, bytes: read(path)? })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    let shown = path.display();
    read.map_err(|error| {
        Failure::new(format!("`{shown}` cannot be read: {error}"), "name a file that can be read")
    })?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        let what = format!("`{shown}` is longer than {} MiB", INPUT_BYTES_MAX >> 20);
        return Err(Failure::new(what, "give it less"));
    }
    Ok(bytes)
}

//! `ringfence sandbox run`: one program in a sandbox of its own, without a project.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ringfence_sandbox::{Ended, InputFile, Language, Outcome, Program, strongest};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::doctor::advice;
use crate::args::{SandboxLanguage, SandboxRun};
use crate::failure::Failure;
use crate::print;

/// The longest program or file that is read, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 20;

pub(crate) async fn run(asking: SandboxRun) -> Result<ExitCode, Failure> {
    let language = match asking.language {
        SandboxLanguage::Python => Language::Python,
        SandboxLanguage::Bash => Language::Bash,
        SandboxLanguage::Node => Language::Node,
    };
    let refused = |refused: ringfence_sandbox::Refused| Failure::new(&refused, advice(&refused));
    let mut profile = strongest(language).map_err(refused)?;
    profile.limits.wall = Duration::from_secs(asking.seconds);
    profile.limits.memory_bytes = asking.memory_mib.saturating_mul(1 << 20);
    profile.limits.processes = asking.processes;
    let source = String::from_utf8(read(&asking.program)?).map_err(|_| {
        Failure::new(format!("`{}` is not UTF-8", asking.program.display()), "name a program's text")
    })?;
    let files = asking.files.iter().map(|path| input(path)).collect::<Result<_, _>>()?;
    let cancelled = CancellationToken::new();
    let stop = cancelled.clone();
    tokio::spawn(async move {
        // What is left of the sandbox when the terminal says stop: nothing.
        let _pressed = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    let program = Program { files, ..Program::new(source) };
    let outcome = ringfence_sandbox::run(&profile, program, cancelled).await.map_err(refused)?;
    if asking.json {
        print::json(&json!({
            "ended": outcome.ended,
            "stdout": outcome.stdout.text,
            "stderr": outcome.stderr.text,
            "value": outcome.value,
            "truncated": outcome.stdout.cut || outcome.stderr.cut,
            "receipt": outcome.receipt,
        }));
    } else {
        pass_through(&outcome);
    }
    Ok(exit_code(outcome.ended))
}

/// Where a pipe that nobody reads any more ends the writing, there is nobody to tell.
fn pass_through(outcome: &Outcome) {
    let _nobody_reads = std::io::stdout().write_all(outcome.stdout.text.as_bytes());
    let _nobody_reads = std::io::stderr().write_all(outcome.stderr.text.as_bytes());
    match outcome.ended {
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

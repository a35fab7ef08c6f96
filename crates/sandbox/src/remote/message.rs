//! What is said in JSON, and how a program and an outcome are carried: what is short and structured first, then bytes whose lengths
//! it names. Each reader checks before it takes anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::{Broken, Kind};
use super::wire::Wire;
use crate::{
    Artifact, Captured, Ended, InputFile, Language, LeftOut, Limits, Outcome, Program, Receipt, Refused,
};

/// The longest program, in bytes.
const SOURCE_BYTES_MAX: u64 = 16 << 20;
/// The most bytes of all files for a program.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The most files for a program.
const FILES_MAX: usize = 1024;
/// The longest value of a last expression, in bytes.
const VALUE_BYTES_MAX: u64 = 1 << 20;
/// A replaced byte takes three, and what is cut is marked.
const TEXT_GROWTH: u64 = 3;
const TEXT_MARK: u64 = 256;
/// The most files that a host may name, taken or left out.
const NAMED_MAX: usize = 4096;
/// The longest name of one, in bytes.
const NAME_BYTES_MAX: usize = 4096;

/// What the connection is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    pub(super) profile: String,
    pub(super) purpose: Purpose,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    /// One program.
    Run,
    /// One after the other, in a sandbox that keeps its state.
    Session,
    /// None: whether one could run.
    Look,
}

/// What the host says when a place is kept.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ready {
    pub(super) language: Language,
}

/// What the host may keep and send back, at most. It narrows the host's profile, never widens it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Narrower {
    pub(super) wall_ms: u64,
    pub(super) output_bytes: u64,
    pub(super) artifact_bytes: u64,
    pub(super) artifact_files: u64,
}

impl Narrower {
    pub(super) fn of(program: &Program, limits: &Limits) -> Self {
        let wall = program.wall_max.map_or(limits.wall, |wall| wall.min(limits.wall));
        let output =
            program.output_bytes_max.map_or(limits.output_bytes, |most| most.min(limits.output_bytes));
        Self {
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            output_bytes: output,
            artifact_bytes: limits.artifact_bytes,
            artifact_files: limits.artifact_files,
        }
    }

    /// Takes away what is more than may be sent back.
    pub(super) fn cut(&self, outcome: &mut Outcome) {
        let (mut files, mut bytes) = (0, 0_u64);
        let (kept, left_out): (Vec<_>, Vec<_>) =
            std::mem::take(&mut outcome.artifacts).into_iter().partition(|artifact| {
                let with_it = bytes.saturating_add(artifact.bytes.len() as u64);
                let fits = files < self.artifact_files && with_it <= self.artifact_bytes;
                if fits {
                    (files, bytes) = (files + 1, with_it);
                }
                fits
            });
        outcome.artifacts = kept;
        let why = "it is more than the caller takes";
        outcome
            .left_out
            .extend(left_out.into_iter().map(|left| LeftOut { name: left.name, why: why.to_owned() }));
        outcome.value = outcome.value.take().filter(|value| value.len() as u64 <= VALUE_BYTES_MAX);
    }

    fn text_bytes_max(&self) -> u64 {
        self.output_bytes.saturating_mul(TEXT_GROWTH).saturating_add(TEXT_MARK)
    }
}

/// A program without its bytes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct ProgramHead {
    narrower: Narrower,
    source: u64,
    files: Vec<FileHead>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct FileHead {
    name: String,
    bytes: u64,
}

impl ProgramHead {
    fn is_within_bounds(&self) -> bool {
        let bytes = self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        self.source <= SOURCE_BYTES_MAX && self.files.len() <= FILES_MAX && bytes <= FILE_BYTES_MAX
    }
}

/// Hands a program over.
pub(super) async fn send_program(wire: &Wire, program: Program, narrower: Narrower) -> Result<(), Broken> {
    let files = program.files.iter();
    let files = files.map(|file| FileHead { name: file.name.clone(), bytes: file.bytes.len() as u64 });
    let head = ProgramHead { narrower, source: program.source.len() as u64, files: files.collect() };
    wire.say(Kind::Program, &head).await?;
    wire.send_bytes(program.source.as_bytes()).await?;
    for file in program.files {
        wire.send_bytes(&file.bytes).await?;
    }
    Ok(())
}

/// Whether a program is too large to be carried; checked before a connection is made.
pub(super) fn is_too_large(program: &Program) -> bool {
    let files = program.files.iter();
    let files = files.map(|file| FileHead { name: String::new(), bytes: file.bytes.len() as u64 });
    let narrower = Narrower { wall_ms: 0, output_bytes: 0, artifact_bytes: 0, artifact_files: 0 };
    !ProgramHead { narrower, source: program.source.len() as u64, files: files.collect() }.is_within_bounds()
}

/// Takes a program, once its head is here.
pub(super) async fn take_program(
    wire: &mut Wire,
    head: &super::frame::Frame,
) -> Result<(Program, Narrower), Broken> {
    let head: ProgramHead = super::wire::said(head)?;
    if !head.is_within_bounds() {
        return Err(Broken::Protocol("a program, or files, larger than may be"));
    }
    let source = text(wire.take_bytes(head.source).await?)?;
    let mut files = Vec::new();
    for file in head.files {
        files.push(InputFile { bytes: wire.take_bytes(file.bytes).await?, name: file.name });
    }
    let program = Program {
        source,
        files,
        wall_max: Some(Duration::from_millis(head.narrower.wall_ms)),
        output_bytes_max: Some(head.narrower.output_bytes),
    };
    Ok((program, head.narrower))
}

/// An outcome without its bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OutcomeHead {
    ended: Ended,
    stdout: CapturedHead,
    stderr: CapturedHead,
    value: Option<u64>,
    artifacts: Vec<ArtifactHead>,
    left_out: Vec<LeftOut>,
    receipt: Receipt,
    is_over: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CapturedHead {
    bytes: u64,
    bytes_total: u64,
    cut: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ArtifactHead {
    name: String,
    mime_type: String,
    bytes: u64,
}

/// Hands an outcome over, and whether a session is over with it.
pub(super) async fn send_outcome(wire: &Wire, outcome: Outcome, is_over: bool) -> Result<(), Broken> {
    let captured = |captured: &Captured| CapturedHead {
        bytes: captured.text.len() as u64,
        bytes_total: captured.bytes_total,
        cut: captured.cut,
    };
    let artifact = |artifact: &Artifact| ArtifactHead {
        name: artifact.name.clone(),
        mime_type: artifact.mime_type.clone(),
        bytes: artifact.bytes.len() as u64,
    };
    let head = OutcomeHead {
        ended: outcome.ended,
        stdout: captured(&outcome.stdout),
        stderr: captured(&outcome.stderr),
        value: outcome.value.as_ref().map(|value| value.len() as u64),
        artifacts: outcome.artifacts.iter().map(artifact).collect(),
        left_out: outcome.left_out,
        receipt: outcome.receipt,
        is_over,
    };
    wire.say(Kind::Outcome, &head).await?;
    wire.send_bytes(outcome.stdout.text.as_bytes()).await?;
    wire.send_bytes(outcome.stderr.text.as_bytes()).await?;
    wire.send_bytes(outcome.value.unwrap_or_default().as_bytes()).await?;
    for artifact in outcome.artifacts {
        wire.send_bytes(&artifact.bytes).await?;
    }
    Ok(())
}

impl OutcomeHead {
    /// Whether it is no more than was asked for, with names that lead nowhere.
    fn is_sound(&self, narrower: &Narrower) -> bool {
        let bytes = self.artifacts.iter().fold(0, |sum: u64, artifact| sum.saturating_add(artifact.bytes));
        let texts = [self.stdout.bytes, self.stderr.bytes];
        texts.iter().all(|bytes| *bytes <= narrower.text_bytes_max())
            && self.value.unwrap_or(0) <= VALUE_BYTES_MAX
            && self.artifacts.len() as u64 <= narrower.artifact_files
            && bytes <= narrower.artifact_bytes
            && self.artifacts.len() + self.left_out.len() <= NAMED_MAX
            && self.artifacts.iter().all(|artifact| leads_nowhere(&artifact.name))
            && self.artifacts.iter().all(|artifact| is_mime_type(&artifact.mime_type))
    }
}

/// Takes an outcome, once its head is here, and whether a session is over with it.
pub(super) async fn take_outcome(
    wire: &mut Wire,
    head: &super::frame::Frame,
    narrower: &Narrower,
) -> Result<(Outcome, bool), Broken> {
    let head: OutcomeHead = super::wire::said(head)?;
    if !head.is_sound(narrower) {
        return Err(Broken::Protocol("an outcome that is more than was asked for"));
    }
    let stdout = captured(wire, head.stdout).await?;
    let stderr = captured(wire, head.stderr).await?;
    let value = match head.value {
        Some(length) => Some(text(wire.take_bytes(length).await?)?),
        None => None,
    };
    let mut artifacts = Vec::new();
    for ArtifactHead { name, mime_type, bytes } in head.artifacts {
        artifacts.push(Artifact { name, mime_type, bytes: wire.take_bytes(bytes).await? });
    }
    // Said here and not by the host, which cannot pass itself off as this machine.
    let receipt = Receipt { backend: format!("remote/{}", head.receipt.backend), ..head.receipt };
    let (ended, left_out) = (head.ended, head.left_out);
    Ok((Outcome { ended, stdout, stderr, value, artifacts, left_out, receipt }, head.is_over))
}

async fn captured(wire: &mut Wire, head: CapturedHead) -> Result<Captured, Broken> {
    let text = text(wire.take_bytes(head.bytes).await?)?;
    Ok(Captured { text, bytes_total: head.bytes_total, cut: head.cut })
}

fn text(bytes: Vec<u8>) -> Result<String, Broken> {
    String::from_utf8(bytes).map_err(|_| Broken::Protocol("a text that is not UTF-8"))
}

fn leads_nowhere(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn is_mime_type(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
    };
    text.len() <= 127 && text.split_once('/').is_some_and(|(kind, sub)| is_word(kind) && is_word(sub))
}

/// A refusal as it is carried.
pub(super) async fn send_refused(wire: &Wire, refused: &Refused) -> Result<(), Broken> {
    wire.say(Kind::Refused, refused).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> (Wire, Wire) {
        let (one, other) = tokio::io::duplex(1 << 10);
        (Wire::new(one), Wire::new(other))
    }

    fn limits() -> Limits {
        Limits { artifact_files: 2, artifact_bytes: 100, output_bytes: 10, ..Limits::default() }
    }

    fn outcome(artifacts: &[(&str, usize)]) -> Outcome {
        let artifact = |(name, length): &(&str, usize)| Artifact {
            name: (*name).to_owned(),
            mime_type: "text/plain".to_owned(),
            bytes: vec![b'a'; *length],
        };
        let captured = |text: &str| Captured { text: text.to_owned(), bytes_total: 99, cut: true };
        Outcome {
            ended: Ended::Exit(3),
            stdout: captured("out"),
            stderr: captured(""),
            value: Some("42".to_owned()),
            artifacts: artifacts.iter().map(artifact).collect(),
            left_out: Vec::new(),
            receipt: Receipt {
                platform: String::new(),
                backend: "process".to_owned(),
                layers: vec!["seccomp".to_owned()],
                landlock_abi: 7,
                resources: "cgroup-v1".to_owned(),
                host_uid: 1,
                filter: String::new(),
                egress: Vec::new(),
                used: crate::Used::default(),
                nothing_left: true,
            },
        }
    }

    async fn carry(outcome: Outcome) -> Result<(Outcome, bool), Broken> {
        let (host, mut gateway) = connected();
        let narrower = Narrower::of(&Program::default(), &limits());
        let sending = async { send_outcome(&host, outcome, true).await };
        let taking = async {
            let head = gateway.next().await?;
            take_outcome(&mut gateway, &head, &narrower).await
        };
        tokio::join!(sending, taking).1
    }

    #[tokio::test]
    async fn a_program_arrives_as_it_was_sent() {
        let (gateway, mut host) = connected();
        let files = vec![
            InputFile { name: "a.bin".into(), bytes: (0..=255).cycle().take(200_000).collect() },
            InputFile { name: "empty".into(), bytes: Vec::new() },
        ];
        let sent = Program { files, output_bytes_max: Some(1 << 40), ..Program::new("print(1)") };
        let narrower = Narrower::of(&sent, &limits());
        let sending = send_program(&gateway, sent.clone(), narrower);
        let taking = async {
            let head = host.next().await.unwrap();
            take_program(&mut host, &head).await.unwrap()
        };
        let (_, (program, narrower)) = tokio::join!(sending, taking);
        assert_eq!((program.source, program.files.len()), (sent.source, 2));
        assert!(program.files.iter().zip(&sent.files).all(|(a, b)| a.name == b.name && a.bytes == b.bytes));
        assert_eq!((program.output_bytes_max, narrower.artifact_files), (Some(10), 2));
    }

    #[tokio::test]
    async fn an_outcome_arrives_as_it_was_sent_and_says_that_it_is_from_elsewhere() {
        let (came, is_over) = carry(outcome(&[("a/b.txt", 70), ("c", 30)])).await.unwrap();
        let sent = outcome(&[("a/b.txt", 70), ("c", 30)]);
        assert_eq!((came.ended, came.stdout, came.stderr), (sent.ended, sent.stdout, sent.stderr));
        assert_eq!((came.value, came.artifacts, is_over), (sent.value, sent.artifacts, true));
        assert_eq!(came.receipt, Receipt { backend: "remote/process".to_owned(), ..sent.receipt });
    }

    #[tokio::test]
    async fn a_host_that_sends_more_than_was_asked_for_is_not_believed() {
        let more = Err(Broken::Protocol("an outcome that is more than was asked for"));
        let long = Captured { text: "x".repeat(1000), ..Captured::default() };
        for bad in [
            outcome(&[("a", 101)]),
            outcome(&[("a", 1), ("b", 1), ("c", 1)]),
            outcome(&[("../../etc/cron.d/x", 1)]),
            outcome(&[("/etc/passwd", 1)]),
            outcome(&[("a\nb", 1)]),
            Outcome { stdout: long, ..outcome(&[]) },
        ] {
            assert_eq!(carry(bad).await.map(|_| ()), more);
        }
    }

    #[test]
    fn a_host_cuts_what_the_caller_does_not_take() {
        let mut outcome = outcome(&[("a", 60), ("b", 60), ("c", 40), ("d", 0)]);
        Narrower::of(&Program::default(), &limits()).cut(&mut outcome);
        let names: Vec<&str> = outcome.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        let left_out: Vec<&str> = outcome.left_out.iter().map(|left| left.name.as_str()).collect();
        assert_eq!((names, left_out), (vec!["a", "c"], vec!["b", "d"]));
    }

    #[test]
    fn what_is_said_is_read_strictly() {
        let read = |text: &str| {
            super::super::wire::said::<Open>(&super::super::frame::Frame {
                kind: Kind::Open,
                payload: text.as_bytes().to_vec(),
            })
        };
        assert!(read(r#"{"profile":"python","purpose":"run"}"#).is_ok());
        for bad in [
            r#"{"profile":"python","purpose":"run","root":"/"}"#,
            r#"{"profile":"python","profile":"other","purpose":"run"}"#,
            r#"{"profile":"python"}"#,
            r#"{"profile":"python","purpose":"root"}"#,
            r#"{"profile":"python","purpose":"run"} "#.trim_end().strip_suffix('}').unwrap(),
            "[]",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

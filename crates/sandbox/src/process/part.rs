//! A program's part in a sandbox: it is handed over, and ends by itself, by its time, by its limits, or because nobody wants it
//! any more.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::net::unix::pipe;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::capture::Capture;
use super::frames::Frame;
use super::nursery::Note;
use super::slot::{Slot, hear};
use crate::egress::{self, Decision, Outside, Unrecorded};
use crate::jail::egress::AUTHORITIES_FILE;
use crate::jail::orders::{Command, Word};
use crate::{Ended, Language, Profile, Program, Refused, Stream, Watch};

/// How long what is left in the pipes of a dead program may take to be read.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long the last words of a dead interpreter may take to be heard.
const LAST_WORDS_MAX: Duration = Duration::from_millis(50);

/// How it ended.
pub(super) struct Part {
    pub(super) ended: Ended,
    pub(super) value: Option<String>,
    pub(super) wall: Duration,
    /// Whether the interpreter waits for another program.
    pub(super) goes_on: bool,
    /// What its process used, in microseconds and bytes, where that is known by now.
    pub(super) used: Option<(u64, u64)>,
}

/// What becomes of the interpreter when a program has ended.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Then {
    End,
    GoOn,
}

/// What a program writes.
pub(crate) struct Outputs {
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
    watch: Arc<dyn Watch>,
    most: u64,
}

impl Outputs {
    pub(crate) fn new(profile: &Profile, program: &Program, watch: Arc<dyn Watch>) -> Self {
        let limits = &profile.limits;
        let keep = program.output_bytes_max.map_or(limits.output_bytes, |most| most.min(limits.output_bytes));
        Self { stdout: Capture::new(keep), stderr: Capture::new(keep), watch, most: limits.output_bytes_max }
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        self.watch.wrote(stream, bytes);
        match stream {
            Stream::Stdout => self.stdout.push(bytes),
            Stream::Stderr => self.stderr.push(bytes),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stdout.total().max(self.stderr.total()) > self.most
    }

    /// What is there to be read now, at most as much as a program may write. `false` once nothing will come any more.
    pub(crate) fn read(&mut self, stream: Stream, pipe: &pipe::Receiver) -> bool {
        let mut buffer = [0; 16 << 10];
        while !self.is_over() {
            match pipe.try_read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.take(stream, buffer.get(..count).unwrap_or_default()),
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// The rest of what a dead program wrote.
    pub(crate) async fn drain(&mut self, stdout: &pipe::Receiver, stderr: &pipe::Receiver) {
        for (stream, pipe) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            let rest = async {
                while self.read(stream, pipe) && !self.is_over() && pipe.readable().await.is_ok() {}
            };
            let _something_holds_it = timeout(DRAIN_MAX, rest).await;
        }
    }

    /// The rest of what a program wrote whose interpreter lives on.
    pub(crate) fn drain_ready(&mut self, stdout: &pipe::Receiver, stderr: &pipe::Receiver) {
        self.read(Stream::Stdout, stdout);
        self.read(Stream::Stderr, stderr);
    }
}

impl Slot {
    /// Hands a program over and waits for its end.
    pub(super) async fn play(
        &mut self,
        program: Program,
        outputs: &mut Outputs,
        cancelled: CancellationToken,
        then: Then,
    ) -> Result<Part, Refused> {
        let limits = &self.profile.limits;
        let wall = program.wall_max.map_or(limits.wall, |wall| wall.min(limits.wall));
        let is_python = self.profile.language == Language::Python;
        self.open_way_out(&outputs.watch)?;
        let began = Instant::now();
        let ended = |ended| Part { ended, value: None, wall: began.elapsed(), goes_on: false, used: None };
        let deadline = tokio::time::sleep(wall);
        tokio::pin!(deadline);
        // A session's earlier program may have left nobody there to take the next.
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(ended(Ended::Cancelled)),
            () = &mut deadline => return Ok(ended(Ended::Timeout)),
            handed_over = self.hand_over(program, then) => handed_over?,
        }
        let (mut stdout_is_open, mut stderr_is_open, mut driver_is_there) = (true, true, is_python);
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return Ok(ended(Ended::Cancelled)),
                () = &mut deadline => return Ok(ended(Ended::Timeout)),
                readable = self.stdout.readable(), if stdout_is_open => {
                    stdout_is_open = readable.is_ok() && outputs.read(Stream::Stdout, &self.stdout);
                }
                readable = self.stderr.readable(), if stderr_is_open => {
                    stderr_is_open = readable.is_ok() && outputs.read(Stream::Stderr, &self.stderr);
                }
                frame = self.frames.next(), if driver_is_there => match frame {
                    Some(Frame { kind: b'D' | b'V', status, text }) => {
                        let part = ended(Ended::Exit(status & 0xFF));
                        let value = (!text.is_empty()).then_some(text);
                        return Ok(Part { value, goes_on: then == Then::GoOn, ..part });
                    }
                    // It is gone without a word: whoever reaps it says how.
                    _ => driver_is_there = false,
                },
                // Before the news of its death, which the kernel may bring first: it says how the program ended.
                word = hear(&self.words) => match word {
                    Ok((Word::Ended { ended: how }, _)) => {
                        return Ok(self.with_last_words(ended(how), driver_is_there).await);
                    }
                    Ok(_) => {}
                    Err(refused) if refused.layer == "jail" => return Ok(ended(Ended::Signal(libc::SIGKILL))),
                    Err(refused) => return Err(refused),
                },
                note = self.notes.recv() => return match note {
                    Some(Note::ProgramEnded { code, cpu_us, memory_peak_bytes }) => {
                        let how = if code < 0 { Ended::Signal(-code) } else { Ended::Exit(code) };
                        let part = Part { used: Some((cpu_us, memory_peak_bytes)), ..ended(how) };
                        Ok(self.with_last_words(part, driver_is_there).await)
                    }
                    Some(Note::Refused(refused)) => Err(refused),
                    // Its first process has said how the program ended, or was killed, by the kernel for want of memory for one.
                    Some(_) => match timeout(LAST_WORDS_MAX, hear(&self.words)).await {
                        Ok(Ok((Word::Ended { ended: how }, _))) => {
                            Ok(self.with_last_words(ended(how), driver_is_there).await)
                        }
                        _ => Ok(ended(Ended::Signal(libc::SIGKILL))),
                    },
                    None => Err(Refused::jail("the nursery is gone")),
                },
            }
            if outputs.is_over() {
                return Ok(ended(Ended::OutputLimit));
            }
        }
    }

    /// What the driver said before it ended, which may come after the news of its end.
    async fn with_last_words(&mut self, part: Part, driver_is_there: bool) -> Part {
        if !driver_is_there {
            return part;
        }
        match timeout(LAST_WORDS_MAX, self.frames.next()).await {
            Ok(Some(Frame { kind: b'D' | b'V', status, text })) => {
                Part { ended: Ended::Exit(status & 0xFF), value: (!text.is_empty()).then_some(text), ..part }
            }
            _ => part,
        }
    }

    /// Begins to answer what the program sends out, by the rules and under the eyes of whoever watches it.
    fn open_way_out(&mut self, watch: &Arc<dyn Watch>) -> Result<(), Refused> {
        let Some(declared) = &self.profile.egress else { return Ok(()) };
        self.watched.set(watch.clone());
        // A session's way out stays open from one program to the next.
        let Some(listeners) = self.listeners.take() else { return Ok(()) };
        let (resolver, trust) = (declared.resolver.clone(), declared.trust.clone());
        let outside = Outside { resolver, trust, watch: self.watched.clone() };
        let served = egress::serve(listeners, declared.rules.clone(), outside);
        let served = served.map_err(|error| Refused::new("egress", error))?;
        let trusted = [system_authorities(), served.ca_pem().map(str::to_owned)];
        self.trusted = Some(trusted.into_iter().flatten().collect());
        self.way_out = Some(served);
        Ok(())
    }

    /// Files first, then the program.
    async fn hand_over(&mut self, program: Program, then: Then) -> Result<(), Refused> {
        let files = program.files.into_iter().map(|file| (format!("in/{}", file.name), file.bytes));
        let mut files: Vec<(String, Vec<u8>)> = files.collect();
        let language = self.profile.language;
        if language != Language::Python {
            files.push((language.file_name().to_owned(), program.source.clone().into_bytes()));
        }
        if let Some(trusted) = self.trusted.take() {
            files.push((AUTHORITIES_FILE.to_owned(), trusted.into_bytes()));
        }
        if !files.is_empty() {
            self.write(files).await?;
        }
        if !std::mem::replace(&mut self.is_started, true) {
            self.words.send(&Command::Start, &[]).await.map_err(Refused::jail)?;
        }
        if language == Language::Python {
            let length = u32::try_from(program.source.len());
            let length = length.map_err(|_| Refused::new("input", "the program is too long"))?;
            let mut bytes = vec![u8::from(then == Then::GoOn)];
            bytes.extend(length.to_le_bytes());
            bytes.extend(program.source.into_bytes());
            self.frames.write(&bytes).await.map_err(Refused::jail)?;
        }
        Ok(())
    }

    /// Lets the first process write files, which it alone can do, out of memory that it is handed.
    async fn write(&self, files: Vec<(String, Vec<u8>)>) -> Result<(), Refused> {
        let written = spawn_blocking(move || in_memory(files)).await.map_err(Refused::jail)?;
        let (files, memory) = written.map_err(|error| Refused::new("input", error))?;
        self.words.send(&Command::Write { files }, &[memory.as_fd()]).await.map_err(Refused::jail)?;
        match hear(&self.words).await? {
            (Word::Written, _) => Ok(()),
            _ => Err(Refused::jail("its first process spoke out of turn")),
        }
    }
}

/// Whom programs trust on this machine, as one text; none where it is not where it is on most.
fn system_authorities() -> Option<String> {
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
}

/// Who watches the program that runs now.
#[derive(Default)]
pub(super) struct Watched(Mutex<Option<Arc<dyn Watch>>>);

impl Watched {
    fn set(&self, watch: Arc<dyn Watch>) {
        if let Ok(mut current) = self.0.lock() {
            *current = Some(watch);
        }
    }
}

#[async_trait]
impl egress::Watch for Watched {
    async fn decided(&self, decision: &Decision) -> Result<(), Unrecorded> {
        let current = self.0.lock().map_err(|_| Unrecorded)?.clone();
        current.ok_or(Unrecorded)?.decided(decision).await
    }
}

pub(crate) type Named = Vec<(String, u64)>;

/// Files one after the other in a memory of its own, with their names and lengths.
pub(crate) fn in_memory(files: Vec<(String, Vec<u8>)>) -> std::io::Result<(Named, OwnedFd)> {
    use std::io::Write as _;
    let memory = memfd_create("ringfence-files", MemfdFlags::CLOEXEC)?;
    let mut memory = std::fs::File::from(memory);
    let mut names = Vec::new();
    for (name, bytes) in files {
        memory.write_all(&bytes)?;
        names.push((name, bytes.len() as u64));
    }
    Ok((names, memory.into()))
}

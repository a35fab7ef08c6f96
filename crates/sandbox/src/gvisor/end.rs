//! A program's part in a sandbox, and the end of that: what the program left is handed out, everything is killed, and the
//! receipt says what was in force, what was used and whether anything is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::launcher::{News, ToInit, Told};
use super::slot::{END_MAX, Slot};
use super::talk::{ARTIFACT, BYTES, COLLECT, COLLECTED, DONE, ENDED, LEFT_OUT, PROGRAM, Said, VALUE};
use crate::jail::filter;
use crate::process::artifacts::{Collected, Received};
use crate::process::cgroup::{Cgroup, Usage};
use crate::process::{Outputs, in_memory, microseconds};
use crate::{Ended, Language, Outcome, Program, Receipt, Refused, Stream, Used, Watch};

/// How long the guest may take to hand out what the program left.
const COLLECT_MAX: Duration = Duration::from_secs(10);
/// How long the guest may take to take a program.
const HAND_OVER_MAX: Duration = Duration::from_secs(10);
/// How long init may take to reap `runsc`, before it is killed itself.
const REAPED_MAX: Duration = Duration::from_millis(500);
/// The layers that are in force here. Landlock would keep `runsc` from building its own walls, and user namespaces inside are the
/// sentry's, which the filter refuses.
const LAYERS: [&str; 9] = [
    "user_namespace",
    "pid_namespace",
    "other_namespaces",
    "network_namespace",
    "own_root",
    "seccomp",
    "no_privileges",
    "limits",
    "gvisor_sentry",
];

/// How a program's part ended.
struct Part {
    ended: Ended,
    value: Option<String>,
    wall: Duration,
    /// Whether the interpreter waits for another program.
    goes_on: bool,
    /// Whether there is still a guest to hand out what was left.
    is_up: bool,
}

impl Slot {
    /// Runs one program, and is gone.
    pub(super) async fn run(
        mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        let mut outputs = Outputs::new(&self.profile, &program, watch);
        let part = self.play(program, &mut outputs, &cancelled, false).await?;
        self.end(part, outputs, &cancelled).await
    }

    /// Runs the next program of a session; there is no slot afterwards where it was the last.
    pub(super) async fn run_next(
        mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<(Outcome, Option<Self>), Refused> {
        let mut outputs = Outputs::new(&self.profile, &program, watch);
        let part = self.play(program, &mut outputs, &cancelled, true).await?;
        if !part.goes_on {
            return Ok((self.end(part, outputs, &cancelled).await?, None));
        }
        outputs.drain_ready(&self.stdout, &self.stderr);
        let collected = self.collect(false, &cancelled).await;
        let usage = self.life.cgroup.as_ref().map(Cgroup::usage).unwrap_or_default();
        let outcome = self.outcome(part, outputs, usage, collected, false)?;
        Ok((outcome, Some(self)))
    }

    /// Hands a program over and waits for its end.
    async fn play(
        &mut self,
        program: Program,
        outputs: &mut Outputs,
        cancelled: &CancellationToken,
        is_session: bool,
    ) -> Result<Part, Refused> {
        let most = self.profile.limits.wall;
        let wall = program.wall_max.map_or(most, |wall| wall.min(most));
        // A guest that an earlier program of the session has harmed may not listen.
        let handed_over = tokio::select! {
            biased;
            () = cancelled.cancelled() => None,
            handed_over = timeout(HAND_OVER_MAX, self.hand_over(program, is_session)) => Some(handed_over),
        };
        let began = Instant::now();
        let part = |ended, is_up| Part { ended, value: None, wall: began.elapsed(), goes_on: false, is_up };
        match handed_over {
            None => return Ok(part(Ended::Cancelled, false)),
            Some(Err(_)) => return Err(Refused::new("gvisor", "its guest did not take the program")),
            Some(Ok(handed_over)) => handed_over?,
        }
        let killed = Ended::Signal(libc::SIGKILL);
        let deadline = tokio::time::sleep(wall);
        tokio::pin!(deadline);
        let (mut stdout_is_open, mut stderr_is_open) = (true, true);
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return Ok(part(Ended::Cancelled, false)),
                () = &mut deadline => return Ok(part(Ended::Timeout, true)),
                readable = self.stdout.readable(), if stdout_is_open => {
                    stdout_is_open = readable.is_ok() && outputs.read(Stream::Stdout, &self.stdout);
                }
                readable = self.stderr.readable(), if stderr_is_open => {
                    stderr_is_open = readable.is_ok() && outputs.read(Stream::Stderr, &self.stderr);
                }
                said = self.talk.next() => match said {
                    Some(Said { kind: DONE | VALUE, status, bytes }) => {
                        let value = String::from_utf8_lossy(&bytes).into_owned();
                        let value = (!value.is_empty()).then_some(value);
                        let part = part(Ended::Exit(status & 0xFF), true);
                        return Ok(Part { value, goes_on: is_session, ..part });
                    }
                    Some(Said { kind: ENDED, status, .. }) => {
                        let how = if status < 0 { Ended::Signal(-status) } else { Ended::Exit(status & 0xFF) };
                        return Ok(part(how, true));
                    }
                    Some(said) => return Err(out_of_turn(&said)),
                    // The sentry was killed: by the kernel for want of memory, for one.
                    None => return Ok(part(killed, false)),
                },
                news = self.words.receive::<News>() => match news {
                    Ok(Some((News::Refused(refused), _))) => return Err(refused),
                    Ok(Some((News::Born | News::Written, _))) => {}
                    Ok(Some((News::RunscEnded { .. } | News::Gone { .. }, _)) | None) | Err(_) => {
                        return Ok(part(killed, false));
                    }
                },
            }
            if outputs.is_over() {
                return Ok(part(Ended::OutputLimit, true));
            }
        }
    }

    /// Files first, then the program.
    async fn hand_over(&mut self, program: Program, is_session: bool) -> Result<(), Refused> {
        let language = self.profile.language;
        let files = program.files.into_iter().map(|file| (format!("in/{}", file.name), file.bytes));
        let mut files: Vec<(String, Vec<u8>)> = files.collect();
        let mut told = Vec::new();
        if language == Language::Python {
            let length = u32::try_from(program.source.len());
            let length = length.map_err(|_| Refused::new("input", "the program is too long"))?;
            told.push(u8::from(is_session));
            told.extend(length.to_le_bytes());
            told.extend(program.source.into_bytes());
        } else {
            files.push((language.file_name().to_owned(), program.source.into_bytes()));
        }
        if !files.is_empty() {
            self.write(files).await?;
        }
        self.talk.say(PROGRAM, 0, &told).await.map_err(Refused::jail)
    }

    /// Lets init write files, out of memory that it is handed.
    async fn write(&self, files: Vec<(String, Vec<u8>)>) -> Result<(), Refused> {
        use std::os::fd::AsFd as _;
        let written = spawn_blocking(move || in_memory(files)).await.map_err(Refused::jail)?;
        let (files, memory) = written.map_err(|error| Refused::new("input", error))?;
        let told = self.words.send(&ToInit::Write { files }, &[memory.as_fd()]).await;
        told.map_err(Refused::jail)?;
        match self.words.receive::<News>().await.map_err(Refused::jail)? {
            Some((News::Written, _)) => Ok(()),
            Some((News::Refused(refused), _)) => Err(refused),
            _ => Err(Refused::jail("`runsc` ended before the program came")),
        }
    }

    /// What the guest hands out. Its word, capped and checked as it comes; what is late is not waited for.
    async fn collect(&mut self, is_last: bool, cancelled: &CancellationToken) -> Collected {
        let mut received = Received::new(&self.profile.limits);
        let collecting = async {
            self.talk.say(COLLECT, i32::from(is_last), b"").await.ok()?;
            while let Some(said) = self.talk.next().await {
                match (said.kind, said.pair()) {
                    (ARTIFACT, _) => received.begin(said.text()),
                    (BYTES, _) => received.push(&said.bytes)?,
                    (LEFT_OUT, Some((name, why))) => received.leave_out(&name, &why),
                    (COLLECTED, _) => return Some(()),
                    // The end of an interpreter that was killed, or that had said all.
                    _ => {}
                }
            }
            None
        };
        let collected = tokio::select! {
            biased;
            () = cancelled.cancelled() => None,
            collected = timeout(COLLECT_MAX, collecting) => collected.ok().flatten(),
        };
        if collected.is_none() {
            received.break_off("the sandbox ended before it was handed out");
        }
        received.finish()
    }

    async fn end(
        mut self,
        part: Part,
        mut outputs: Outputs,
        cancelled: &CancellationToken,
    ) -> Result<Outcome, Refused> {
        let collected = if part.is_up { self.collect(true, cancelled).await } else { Collected::default() };
        let counted = self.stop().await;
        outputs.drain(&self.stdout, &self.stderr).await;
        let (usage, nothing_left) = self.bury(counted).await?;
        self.outcome(part, outputs, usage, collected, nothing_left)
    }

    /// Ends everything. What its processes used, by those who reaped them; none where something did not end.
    pub(super) async fn stop(&mut self) -> Option<Usage> {
        if self.life.cgroup.is_none()
            && self.words.send(&ToInit::End, &[]).await.is_ok()
            && let Some(counted) = self.counted(REAPED_MAX).await
        {
            return Some(counted);
        }
        self.life.kill();
        self.counted(END_MAX).await
    }

    /// Removes what is left of it. What it used, and whether nothing is left.
    pub(super) async fn bury(&mut self, counted: Option<Usage>) -> Result<(Usage, bool), Refused> {
        let is_dead = counted.is_some();
        let mut usage = counted.unwrap_or_default();
        if let Some(mut cgroup) = self.life.cgroup.take() {
            let removed = spawn_blocking(move || {
                let usage = cgroup.usage();
                let is_removed = cgroup.remove();
                (usage, (!is_removed).then_some(cgroup))
            });
            (usage, self.life.cgroup) = removed.await.map_err(Refused::jail)?;
        }
        // It ends by itself where it has gone wrong.
        let _gone_already = self.words.send(&Told::Counted, &[]).await;
        let is_gone = self.life.ended().await;
        Ok((usage, is_dead && is_gone && self.life.cgroup.is_none()))
    }

    /// What the launcher says once all have ended.
    async fn counted(&self, most: Duration) -> Option<Usage> {
        let gone = async {
            while let Ok(Some((news, _))) = self.words.receive::<News>().await {
                if let News::Gone { cpu_us, memory_peak_bytes } = news {
                    let cpu = Duration::from_micros(cpu_us);
                    return Some(Usage { cpu, memory_peak_bytes, ..Usage::default() });
                }
            }
            None
        };
        timeout(most, gone).await.ok().flatten()
    }

    fn outcome(
        &self,
        part: Part,
        outputs: Outputs,
        usage: Usage,
        collected: Collected,
        nothing_left: bool,
    ) -> Result<Outcome, Refused> {
        let was_killed = matches!(part.ended, Ended::Signal(libc::SIGKILL) | Ended::Exit(137));
        let ended = if was_killed && usage.was_out_of_memory { Ended::OutOfMemory } else { part.ended };
        let used = Used {
            wall_us: microseconds(part.wall),
            cpu_us: microseconds(usage.cpu),
            memory_peak_bytes: usage.memory_peak_bytes,
            processes_peak: usage.processes_peak,
            output_bytes: outputs.stdout.total() + outputs.stderr.total(),
            egress_bytes_up: 0,
            egress_bytes_down: 0,
        };
        let receipt = Receipt {
            backend: "gvisor".to_owned(),
            platform: self.settings.platform.clone(),
            layers: LAYERS.map(str::to_owned).into(),
            landlock_abi: 0,
            resources: self.counter.to_owned(),
            host_uid: self.host_uid,
            filter: filter::fingerprint(self.profile.filter())?,
            egress: Vec::new(),
            used,
            nothing_left,
        };
        Ok(Outcome {
            ended,
            stdout: outputs.stdout.finish(),
            stderr: outputs.stderr.finish(),
            value: part.value,
            artifacts: collected.artifacts,
            left_out: collected.left_out,
            receipt,
        })
    }
}

fn out_of_turn(said: &Said) -> Refused {
    match said.pair() {
        Some((layer, reason)) if said.kind == super::talk::REFUSED => Refused::new(&layer, reason),
        _ => Refused::new("gvisor", "its guest spoke out of turn"),
    }
}

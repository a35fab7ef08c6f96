//! The end of a sandbox: everything is killed, what it left is collected, and its receipt says what was in force, what was used
//! and whether anything is left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::artifacts::{self, Collected};
use super::cgroup::{Cgroup, Usage};
use super::nursery::Note;
use super::part::{Outputs, Part, Then};
use super::slot::Slot;
use crate::egress::{Egress, Totals};
use crate::{Ended, Outcome, Program, Receipt, Refused, Resources, Used, Watch};

/// How long those who reap a sandbox's processes may take to say what they used.
const COUNTED_MAX: Duration = Duration::from_millis(200);

impl Slot {
    /// Runs one program, and is gone.
    pub(super) async fn run(
        mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<Outcome, Refused> {
        let mut outputs = Outputs::new(&self.profile, &program, watch);
        let part = self.play(program, &mut outputs, cancelled, Then::End).await?;
        self.end(part, outputs).await
    }

    /// Runs the next program of a session; `is_over` afterwards where it was the last.
    pub(super) async fn run_next(
        mut self,
        program: Program,
        watch: Arc<dyn Watch>,
        cancelled: CancellationToken,
    ) -> Result<(Outcome, Option<Self>), Refused> {
        let mut outputs = Outputs::new(&self.profile, &program, watch);
        let part = self.play(program, &mut outputs, cancelled, Then::GoOn).await?;
        if !part.goes_on {
            return Ok((self.end(part, outputs).await?, None));
        }
        outputs.drain_ready(&self.stdout, &self.stderr);
        let usage = self.life.cgroup.as_ref().map(Cgroup::usage).unwrap_or_default();
        let collected = artifacts::collect(&self.artifacts, &self.profile.limits);
        let totals = self.way_out.as_ref().map(Egress::totals).unwrap_or_default();
        let outcome = self.outcome(part, outputs, (usage, totals), collected, false);
        Ok((outcome, Some(self)))
    }

    async fn end(mut self, part: Part, mut outputs: Outputs) -> Result<Outcome, Refused> {
        self.life.kill();
        self.frames.close();
        outputs.drain(&self.stdout, &self.stderr).await;
        let is_dead = self.life.ended().await;
        let totals = match self.way_out.take() {
            Some(way_out) => way_out.stop().await,
            None => Totals::default(),
        };
        let collected = artifacts::collect(&self.artifacts, &self.profile.limits);
        let mut usage = Usage::default();
        let mut is_removed = true;
        if let Some(cgroup) = &mut self.life.cgroup {
            usage = cgroup.usage();
            is_removed = cgroup.remove();
        }
        if is_removed {
            self.life.cgroup = None;
        }
        if self.profile.resources == Resources::RlimitsOnly {
            usage = self.counted(part.used).await;
        }
        Ok(self.outcome(part, outputs, (usage, totals), collected, is_dead && is_removed))
    }

    /// What those who reaped its processes say that they used.
    async fn counted(&mut self, program: Option<(u64, u64)>) -> Usage {
        let (mut cpu_us, mut memory) = program.unwrap_or_default();
        while let Ok(Some(note)) = timeout(COUNTED_MAX, self.notes.recv()).await {
            let (is_last, cpu, peak) = match note {
                Note::ProgramEnded { cpu_us, memory_peak_bytes, .. } => (false, cpu_us, memory_peak_bytes),
                Note::Gone { cpu_us, memory_peak_bytes } => (true, cpu_us, memory_peak_bytes),
                Note::Born { .. } | Note::Forked { .. } | Note::Refused(_) => continue,
            };
            cpu_us += cpu;
            memory = memory.max(peak);
            if is_last {
                break;
            }
        }
        Usage { cpu: Duration::from_micros(cpu_us), memory_peak_bytes: memory, ..Usage::default() }
    }

    fn outcome(
        &self,
        part: Part,
        outputs: Outputs,
        (usage, totals): (Usage, Totals),
        collected: Collected,
        nothing_left: bool,
    ) -> Outcome {
        let was_killed = matches!(part.ended, Ended::Signal(libc::SIGKILL) | Ended::Exit(137));
        let ended = if was_killed && usage.was_out_of_memory { Ended::OutOfMemory } else { part.ended };
        let used = Used {
            wall_us: microseconds(part.wall),
            cpu_us: microseconds(usage.cpu),
            memory_peak_bytes: usage.memory_peak_bytes,
            processes_peak: usage.processes_peak,
            output_bytes: outputs.stdout.total() + outputs.stderr.total(),
            egress_bytes_up: totals.bytes_up,
            egress_bytes_down: totals.bytes_down,
        };
        let receipt = Receipt {
            backend: "process".to_owned(),
            platform: String::new(),
            layers: self.profile.layers().iter().map(|layer| layer.as_str().to_owned()).collect(),
            landlock_abi: self.landlock_abi,
            resources: self.counter.to_owned(),
            host_uid: self.host_uid,
            filter: self.nursery().filter().to_owned(),
            egress: self.profile.egress.as_ref().map(|way_out| way_out.rules.texts()).unwrap_or_default(),
            used,
            nothing_left,
        };
        Outcome {
            ended,
            stdout: outputs.stdout.finish(),
            stderr: outputs.stderr.finish(),
            value: part.value,
            artifacts: collected.artifacts,
            left_out: collected.left_out,
            receipt,
        }
    }
}

pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

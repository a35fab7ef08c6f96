//! The gateway's side of a run: starts the jail, hands it its orders, reads what the program writes, takes the report.

use std::io;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::capture::capture;
use crate::cgroup;
use crate::jail::{JAIL_NAME, Orders, Report};
use crate::{Captured, Ended, Outcome, Profile, Program, Refused, Resources};

/// How long a jail may take beyond its program's time: to build the sandbox, and to take it down.
const GRACE: Duration = Duration::from_secs(15);
/// The first of the users that sandboxes get where the service is root.
const HOST_UID_FIRST: u32 = 1_900_000_000;
/// How many of them there are.
const HOST_UIDS: u32 = 100_000_000;

static RUNS: AtomicU32 = AtomicU32::new(0);

/// Runs a program in a sandbox that is built for it and gone afterwards.
///
/// Completes when nothing of it is left. When `cancelled` completes first, or when this future is dropped, everything in the
/// sandbox is killed at once. Must be called in a tokio runtime, in an executable whose `main` begins with
/// [`crate::enter_if_jail`].
pub async fn run(
    profile: &Profile,
    program: Program,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, Refused> {
    if let Some(file) = program.files.iter().find(|file| !file.has_plain_name()) {
        return Err(Refused::new(
            "input",
            format!("`{}` is not a plain file name", file.name.escape_debug()),
        ));
    }
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let (mut control, mut child) = start().map_err(|error| Refused::new("jail", error))?;
    let orders = Orders::new(profile, program, number, host_uid(number));
    control.write_all(&orders.to_bytes()).await.map_err(|error| Refused::new("jail", error))?;
    let limits = &profile.limits;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Refused::new("jail", "it has no output"));
    };
    let stdout = tokio::spawn(capture(stdout, limits.output_bytes, limits.output_bytes_max));
    let stderr = tokio::spawn(capture(stderr, limits.output_bytes, limits.output_bytes_max));
    let supervised = supervise(control, stdout, stderr, cancelled, limits.wall + GRACE).await;
    let _reaped = child.wait().await;
    if supervised.is_err() && orders.resources == Resources::Cgroup {
        // The launcher died before it could: its sandbox died with it, its cgroup stays.
        let _gone = tokio::task::spawn_blocking(move || cgroup::remove_leftover(&orders.name)).await;
    }
    let (out, err, report) = supervised?;
    match report {
        Report::Refused(refused) => Err(refused),
        Report::Done { ended, receipt } => Ok(Outcome { ended, stdout: out, stderr: err, receipt }),
    }
}

type Capture = tokio::task::JoinHandle<(Captured, bool)>;

/// Waits for the report; ends the run early where it is cancelled, or writes too much. Ending it is closing our half of the
/// control socket.
async fn supervise(
    mut control: UnixStream,
    mut stdout: Capture,
    mut stderr: Capture,
    cancelled: impl Future<Output = ()>,
    most: Duration,
) -> Result<(Captured, Captured, Report), Refused> {
    let mut bytes = Vec::new();
    let (mut out, mut err, mut early) = (None, None, None);
    {
        let (mut reading, mut ending) = control.split();
        let report = reading.read_to_end(&mut bytes);
        let deadline = tokio::time::sleep(most);
        tokio::pin!(report, deadline, cancelled);
        loop {
            tokio::select! {
                _ = &mut report => break,
                captured = &mut stdout, if out.is_none() => out = Some(captured.unwrap_or_default()),
                captured = &mut stderr, if err.is_none() => err = Some(captured.unwrap_or_default()),
                () = &mut cancelled, if early.is_none() => early = Some(Ended::Cancelled),
                () = &mut deadline => return Err(Refused::new("jail", "it did not end in time")),
            }
            let is_over =
                |captured: &Option<(Captured, bool)>| captured.as_ref().is_some_and(|(_, is_over)| *is_over);
            if early.is_none() && (is_over(&out) || is_over(&err)) {
                early = Some(Ended::OutputLimit);
            }
            if early.is_some() {
                let _gone_already = ending.shutdown().await;
            }
        }
    }
    let mut report: Report =
        serde_json::from_slice(&bytes).map_err(|_| Refused::new("jail", "it ended without a report"))?;
    if let (Report::Done { ended, .. }, Some(early)) = (&mut report, early) {
        // A program that had ended before it could be stopped ended as it did; one that wrote too much ended by that, whether
        // it was stopped or found its pipe closed first.
        if *ended == Ended::Cancelled || early == Ended::OutputLimit {
            *ended = early;
        }
    }
    let out = match out {
        Some(out) => out,
        None => stdout.await.unwrap_or_default(),
    };
    let err = match err {
        Some(err) => err,
        None => stderr.await.unwrap_or_default(),
    };
    Ok((out.0, err.0, report))
}

/// Starts this executable anew as the jail: no environment, a control socket as its input, pipes as its outputs.
fn start() -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new("/proc/self/exe")
        .arg0(JAIL_NAME)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok((UnixStream::from_std(ours)?, child))
}

/// A user of the host that nobody else is, where the service is root; otherwise the service's own.
fn host_uid(number: u32) -> u32 {
    let own = rustix::process::getuid().as_raw();
    if own != 0 {
        return own;
    }
    // Apart by process, so that two gateways on one machine do not meet.
    let first = std::process::id().wrapping_mul(65_536);
    HOST_UID_FIRST + first.wrapping_add(number) % HOST_UIDS
}

impl Resources {
    /// The word in receipts.
    pub(crate) fn driver(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup-v1",
            Self::RlimitsOnly => "rlimits",
        }
    }
}

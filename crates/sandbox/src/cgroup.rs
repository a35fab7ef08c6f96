//! One cgroup for each run, on the version 1 hierarchies (`Documentation/admin-guide/cgroup-v1`).
//!
//! Made below the gateway's own cgroup and gone when the run is. The launcher attaches the sandbox's first process before
//! that may do anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::profile::Limits;

const MOUNTS: &str = "/sys/fs/cgroup";
/// The controllers that a run needs, each with a hierarchy of its own.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
const PERIOD_US: u64 = 100_000;

/// The cgroup of one run.
pub(crate) struct Cgroup {
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes a cgroup with these limits.
    pub(crate) fn create(name: &str, limits: &Limits) -> io::Result<Self> {
        let mut made = Self { folders: Vec::new() };
        for controller in CONTROLLERS {
            let folder = parent(controller)?.join(name);
            if let Err(error) = fs::create_dir(&folder) {
                made.remove();
                return Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display())));
            }
            made.folders.push(folder);
        }
        if let Err(error) = made.limit(limits) {
            made.remove();
            return Err(error);
        }
        Ok(made)
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        self.write("memory", "memory.limit_in_bytes", limits.memory_bytes)?;
        // Together with swap, so that there is none; the file is absent where the kernel does not count swap.
        if self.file("memory", "memory.memsw.limit_in_bytes").is_some_and(|file| file.exists()) {
            self.write("memory", "memory.memsw.limit_in_bytes", limits.memory_bytes)?;
        }
        // One more for the sandbox's own first process.
        self.write("pids", "pids.max", limits.processes + 1)?;
        self.write("cpu", "cpu.cfs_period_us", PERIOD_US)?;
        self.write("cpu", "cpu.cfs_quota_us", (limits.cpu_millicores * PERIOD_US / 1000).max(1000))
    }

    /// Moves a process in, before it has children.
    pub(crate) fn attach(&self, pid: u32) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| fs::write(folder.join("cgroup.procs"), pid.to_string()))
    }

    /// The most memory at one time, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        let file = self.file("memory", "memory.max_usage_in_bytes");
        file.and_then(|file| fs::read_to_string(file).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Whether a process was killed for want of memory.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        let text = self.file("memory", "memory.oom_control").and_then(|file| fs::read_to_string(file).ok());
        let kills =
            text.as_deref().unwrap_or_default().lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
    }

    /// Removes it once its processes are gone; waits for that a moment. Whether nothing is left.
    pub(crate) fn remove(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.folders.is_empty() && Instant::now() < deadline {
            self.folders.retain(|folder| fs::remove_dir(folder).is_err() && folder.exists());
            if !self.folders.is_empty() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        self.folders.is_empty()
    }

    fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        let at = CONTROLLERS.iter().position(|known| *known == controller)?;
        self.folders.get(at).map(|folder| folder.join(name))
    }

    fn write(&self, controller: &str, name: &str, value: u64) -> io::Result<()> {
        let file = self.file(controller, name).ok_or(io::ErrorKind::NotFound)?;
        fs::write(&file, value.to_string())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
    }
}

/// Removes the cgroup of a run whose launcher died.
pub(crate) fn remove_leftover(name: &str) {
    let folders = CONTROLLERS.iter().filter_map(|controller| Some(parent(controller).ok()?.join(name)));
    let mut left = Cgroup { folders: folders.filter(|folder| folder.is_dir()).collect() };
    left.remove();
}

/// The gateway's own cgroup of a controller.
fn parent(controller: &str) -> io::Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|known| known == controller).then_some(path)
    });
    let path = path.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no version 1 hierarchy for `{controller}`"))
    })?;
    let mount = Path::new(MOUNTS).join(controller);
    let own = mount.join(path.trim_start_matches('/'));
    // In a container the path is the host's, and the mount shows the container's part alone.
    Ok(if own.is_dir() { own } else { mount })
}

/// Whether this user can make cgroups on this machine.
pub(crate) fn is_available() -> bool {
    let name = format!("ringfence-probe-{}", std::process::id());
    Cgroup::create(&name, &Limits::default()).is_ok_and(|mut cgroup| cgroup.remove())
}

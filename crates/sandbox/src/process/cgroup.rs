//! One cgroup for each sandbox, on version 2 (`Documentation/admin-guide/cgroup-v2.rst`) or version 1
//! (`Documentation/admin-guide/cgroup-v1`), whichever has the controllers here.
//!
//! Made below the gateway's own cgroup, and gone when the sandbox is. The gateway attaches a sandbox's processes before a program
//! is handed to them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::cgroups::{Parents, Version, write};
use super::kernel_file;
use crate::profile::Limits;

const PERIOD_US: u64 = 100_000;

/// The cgroup of one sandbox.
#[derive(Debug)]
pub(crate) struct Cgroup {
    parents: Arc<Parents>,
    name: String,
    /// Its folder below each of the parents; none once it is removed.
    folders: Vec<OwnedFd>,
}

/// What its processes used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) processes_peak: Option<u64>,
    /// Whether one was killed for want of memory.
    pub(crate) was_out_of_memory: bool,
}

impl Cgroup {
    /// Makes a cgroup with these limits.
    pub(crate) fn create(parents: Arc<Parents>, name: String, limits: &Limits) -> io::Result<Self> {
        let mut made = Self { parents, name, folders: Vec::new() };
        if let Err(error) = made.make().and_then(|()| made.limit(limits)) {
            made.remove();
            return Err(error);
        }
        Ok(made)
    }

    fn make(&mut self) -> io::Result<()> {
        for parent in &self.parents.folders {
            let made = make_folder(&parent.handle, &self.name).map_err(|error| {
                let folder = parent.path.join(&self.name);
                io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
            });
            self.folders.push(made?);
        }
        Ok(())
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let quota = (limits.cpu_millicores.saturating_mul(PERIOD_US) / 1000).max(1000);
        // One more for the sandbox's own first process.
        let processes = limits.processes + 1;
        match self.parents.version {
            Version::V2 => {
                self.write("memory", "memory.max", &limits.memory_bytes)?;
                // Absent where the kernel does not count swap.
                self.write_if_there("memory", "memory.swap.max", 0)?;
                // A sandbox that is short of memory ends as a whole.
                self.write_if_there("memory", "memory.oom.group", 1)?;
                self.write("pids", "pids.max", &processes)?;
                self.write("cpu", "cpu.max", &format!("{quota} {PERIOD_US}"))
            }
            Version::V1 => {
                self.write("memory", "memory.limit_in_bytes", &limits.memory_bytes)?;
                // Together with swap, so that there is none.
                self.write_if_there("memory", "memory.memsw.limit_in_bytes", limits.memory_bytes)?;
                self.write("pids", "pids.max", &processes)?;
                self.write("cpu", "cpu.cfs_period_us", &PERIOD_US)?;
                self.write("cpu", "cpu.cfs_quota_us", &quota)
            }
        }
    }

    /// Moves a process in, by the number that it has here.
    pub(crate) fn attach(&self, pid: u32) -> io::Result<()> {
        let pid = pid.to_string();
        self.folders.iter().try_for_each(|folder| write(folder, "cgroup.procs", &pid))
    }

    /// Kills whatever is in it, where the kernel does that at once (version 2, Linux 5.14).
    pub(crate) fn kill(&self) {
        if let Some(folder) = self.folders.first().filter(|_| self.parents.version == Version::V2) {
            let _older_kernel = write(folder, "cgroup.kill", "1");
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let number = |controller, name| self.read(controller, name).and_then(|text| text.trim().parse().ok());
        let field = |controller, name, field: &str| {
            let text = self.read(controller, name)?;
            let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' '))?;
            value.trim().parse::<u64>().ok()
        };
        let (cpu, memory_peak_bytes, kills) = match self.parents.version {
            Version::V2 => (
                field("cpu", "cpu.stat", "usage_usec").map(Duration::from_micros),
                number("memory", "memory.peak"),
                field("memory", "memory.events", "oom_kill"),
            ),
            Version::V1 => (
                number("cpuacct", "cpuacct.usage").map(Duration::from_nanos),
                number("memory", "memory.max_usage_in_bytes"),
                field("memory", "memory.oom_control", "oom_kill"),
            ),
        };
        Usage {
            cpu: cpu.unwrap_or_default(),
            memory_peak_bytes: memory_peak_bytes.unwrap_or(0),
            processes_peak: number("pids", "pids.peak"),
            was_out_of_memory: kills.is_some_and(|count| count > 0),
        }
    }

    /// Removes it once its processes are gone; waits for that a moment. Whether nothing is left.
    pub(crate) fn remove(&mut self) -> bool {
        let made = self.parents.folders.iter().take(self.folders.len());
        let is_removed = remove_all(made.map(|parent| (&parent.handle, self.name.as_ref())).collect());
        if is_removed {
            self.folders.clear();
        }
        is_removed
    }

    /// The word in receipts.
    pub(crate) fn driver(&self) -> &'static str {
        match self.parents.version {
            Version::V2 => "cgroup-v2",
            Version::V1 => "cgroup-v1",
        }
    }

    /// Whether a process is in it, by what the kernel says of that (`/proc/PID/cgroup`).
    pub(crate) fn holds(&self, said: &str) -> bool {
        let is_in = |controller: &str| {
            let path = said.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                let is_it = match self.parents.version {
                    Version::V1 => controllers.split(',').any(|known| known == controller),
                    Version::V2 => controllers.is_empty(),
                };
                is_it.then_some(path)
            });
            path.is_some_and(|path| Path::new(path).file_name() == Some(self.name.as_ref()))
        };
        !self.folders.is_empty() && self.parents.folders.iter().all(|parent| is_in(parent.controller))
    }

    /// Where a controller's files are.
    fn folder(&self, controller: &str) -> Option<&OwnedFd> {
        // On version 2 one folder stands for all controllers.
        let is_it = |known: &str| known == controller || self.parents.version == Version::V2;
        self.parents
            .folders
            .iter()
            .zip(&self.folders)
            .find_map(|(parent, folder)| is_it(parent.controller).then_some(folder))
    }

    fn read(&self, controller: &str, name: &str) -> Option<String> {
        kernel_file::text(self.folder(controller)?, name).ok()
    }

    fn write(&self, controller: &str, name: &str, value: &impl ToString) -> io::Result<()> {
        let folder = self.folder(controller).ok_or(io::ErrorKind::NotFound)?;
        write(folder, name, &value.to_string())
    }

    fn write_if_there(&self, controller: &str, name: &str, value: u64) -> io::Result<()> {
        match self.write(controller, name, &value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written,
        }
    }
}

fn make_folder(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).inspect_err(|_| {
        let _left = unlinkat(parent, name, AtFlags::REMOVEDIR);
    })
}

/// Removes folders below others, once nothing is in them. Whether nothing is left.
fn remove_all(mut left: Vec<(&OwnedFd, &OsStr)>) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        left.retain(|(parent, name)| {
            !matches!(unlinkat(parent, *name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
        });
        if left.is_empty() || Instant::now() >= deadline {
            return left.is_empty();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.folders.is_empty() {
            return;
        }
        // Its processes may still be dying, and whoever gave it up half-way does not wait for that.
        let (parents, name) = (self.parents.clone(), std::mem::take(&mut self.name));
        let mut left = Self { parents, name, folders: std::mem::take(&mut self.folders) };
        std::thread::spawn(move || {
            left.remove();
            // What could not be removed by now is the keeper's to remove, at its end.
            left.folders.clear();
        });
    }
}

/// Removes every cgroup whose name begins so: those of a gateway that died.
pub(crate) fn remove_all_of(prefix: &str) {
    let Ok(parents) = Parents::find() else { return };
    for parent in &parents.folders {
        let Ok(entries) = fs::read_dir(&parent.path) else { continue };
        let names = entries.flatten().map(|entry| entry.file_name());
        let names: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(prefix)).collect();
        remove_all(names.iter().map(|name| (&parent.handle, name.as_os_str())).collect());
    }
}

/// Who counts resources here, where this user can make cgroups.
pub(crate) fn available() -> Option<&'static str> {
    let name = format!("ringfence-probe-{}", std::process::id());
    let mut made = Cgroup::create(Arc::new(Parents::find().ok()?), name, &Limits::default()).ok()?;
    let driver = made.driver();
    made.remove().then_some(driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::cgroups::Parent;

    #[test]
    fn version_2_is_told_every_limit_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"];
        let parent = Parent::open("memory", folder.path().to_owned()).unwrap();
        let parents = Arc::new(Parents { version: Version::V2, folders: vec![parent] });
        let mut made = Cgroup { parents, name: "made".to_owned(), folders: Vec::new() };
        made.make().unwrap();
        let folder = folder.path().join("made");
        for name in files {
            fs::write(folder.join(name), "").unwrap();
        }
        made.limit(&Limits { cpu_millicores: 1500, ..Limits::default() }).unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(files.map(read), ["536870912", "0", "1", "129", "150000 100000"]);
        fs::write(folder.join("cpu.stat"), "usage_usec 2500\nuser_usec 1\n").unwrap();
        fs::write(folder.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        fs::write(folder.join("memory.peak"), "4096\n").unwrap();
        let usage = made.usage();
        assert_eq!(
            (usage.cpu.as_micros(), usage.memory_peak_bytes, usage.was_out_of_memory),
            (2500, 4096, true)
        );
        // No kernel removes these files with their cgroup.
        made.folders.clear();
    }
}

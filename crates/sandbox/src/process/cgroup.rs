//! One cgroup for each sandbox, on version 2 (`Documentation/admin-guide/cgroup-v2.rst`) or version 1
//! (`Documentation/admin-guide/cgroup-v1`), whichever has the controllers here.
//!
//! Made below the gateway's own cgroup, and gone when the sandbox is. The gateway attaches a sandbox's processes before a program
//! is handed to them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::profile::Limits;

/// The controllers that a sandbox needs.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];
const PERIOD_US: u64 = 100_000;
/// Where the gateway's own processes go, on version 2: a cgroup that gives controllers to others may hold none.
const OWN_LEAF: &str = "ringfence-gateway";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    V1,
    V2,
}

/// The gateway's own cgroups, below which others are made.
#[derive(Clone, Debug)]
struct Parents {
    version: Version,
    /// A folder for each controller; on version 2 one for all.
    folders: Vec<(&'static str, PathBuf)>,
}

/// The cgroup of one sandbox.
#[derive(Debug)]
pub(crate) struct Cgroup {
    version: Version,
    folders: Vec<(&'static str, PathBuf)>,
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
    pub(crate) fn create(name: &str, limits: &Limits) -> io::Result<Self> {
        let parents = Parents::find()?;
        let mut made = Self { version: parents.version, folders: Vec::new() };
        for (controller, parent) in &parents.folders {
            let folder = parent.join(name);
            if let Err(error) = fs::create_dir(&folder) {
                made.remove();
                return Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display())));
            }
            made.folders.push((controller, folder));
        }
        if let Err(error) = made.limit(limits) {
            made.remove();
            return Err(error);
        }
        Ok(made)
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let quota = (limits.cpu_millicores.saturating_mul(PERIOD_US) / 1000).max(1000);
        // One more for the sandbox's own first process.
        let processes = limits.processes + 1;
        match self.version {
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
        self.folders
            .iter()
            .try_for_each(|(_, folder)| fs::write(folder.join("cgroup.procs"), pid.to_string()))
    }

    /// Kills whatever is in it, where the kernel does that at once (version 2, Linux 5.14).
    pub(crate) fn kill(&self) {
        if let Some((_, folder)) = self.folders.first().filter(|_| self.version == Version::V2) {
            let _older_kernel = fs::write(folder.join("cgroup.kill"), "1");
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let number = |controller, name| self.read(controller, name).and_then(|text| text.trim().parse().ok());
        let field = |controller, name, field: &str| {
            let text = self.read(controller, name)?;
            let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' '))?;
            value.trim().parse::<u64>().ok()
        };
        let (cpu, memory_peak_bytes, kills) = match self.version {
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
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            self.folders.retain(|(_, folder)| fs::remove_dir(folder).is_err() && folder.exists());
            if self.folders.is_empty() || Instant::now() >= deadline {
                return self.folders.is_empty();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The word in receipts.
    pub(crate) fn driver(&self) -> &'static str {
        match self.version {
            Version::V2 => "cgroup-v2",
            Version::V1 => "cgroup-v1",
        }
    }

    /// Whether a process, by the number that it has here, is in it (`/proc/PID/cgroup`).
    pub(crate) fn holds(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
        let is_in = |(controller, folder): &(&str, PathBuf)| {
            let path = text.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                let is_it = match self.version {
                    Version::V1 => controllers.split(',').any(|known| known == *controller),
                    Version::V2 => controllers.is_empty(),
                };
                is_it.then_some(path)
            });
            path.is_some_and(|path| Path::new(path).file_name() == folder.file_name())
        };
        !self.folders.is_empty() && self.folders.iter().all(is_in)
    }

    fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        // On version 2 one folder stands for all controllers.
        let folder =
            self.folders.iter().find(|(known, _)| *known == controller || self.version == Version::V2);
        folder.map(|(_, folder)| folder.join(name))
    }

    fn read(&self, controller: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.file(controller, name)?).ok()
    }

    fn write(&self, controller: &str, name: &str, value: &impl ToString) -> io::Result<()> {
        let file = self.file(controller, name).ok_or(io::ErrorKind::NotFound)?;
        fs::write(&file, value.to_string())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
    }

    fn write_if_there(&self, controller: &str, name: &str, value: u64) -> io::Result<()> {
        match self.file(controller, name) {
            Some(file) if file.exists() => self.write(controller, name, &value),
            _ => Ok(()),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.folders.is_empty() {
            return;
        }
        // Its processes may still be dying, and whoever gave it up half-way does not wait for that.
        let mut left = Self { version: self.version, folders: std::mem::take(&mut self.folders) };
        std::thread::spawn(move || {
            left.remove();
            // What could not be removed by now is the keeper's to remove, at its end.
            left.folders.clear();
        });
    }
}

impl Parents {
    fn find() -> io::Result<Self> {
        let (own, mounts) =
            (fs::read_to_string("/proc/self/cgroup")?, fs::read_to_string("/proc/self/mountinfo")?);
        match Self::version_2(&own, &mounts)? {
            Some(found) => Ok(found),
            None => Self::version_1(&own, &mounts),
        }
    }

    /// The unified hierarchy, where it has the controllers: a hybrid machine has them on version 1.
    fn version_2(own: &str, mounts: &str) -> io::Result<Option<Self>> {
        let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else { return Ok(None) };
        let Some(mount) = mounts.lines().find_map(|line| mount_of(line, "cgroup2", None)) else {
            return Ok(None);
        };
        let folder = below(&mount, path);
        let has = |file: &str, at: &Path| {
            let text = fs::read_to_string(at.join(file)).unwrap_or_default();
            ["memory", "pids", "cpu"].iter().all(|wanted| text.split_whitespace().any(|word| word == *wanted))
        };
        // A gateway that has moved into its leaf makes sandboxes beside that, not below it.
        let folder = match folder.parent() {
            Some(above) if folder.ends_with(OWN_LEAF) => above.to_owned(),
            _ => folder,
        };
        if !has("cgroup.controllers", &folder) {
            return Ok(None);
        }
        if !has("cgroup.subtree_control", &folder) {
            give_controllers(&folder)?;
        }
        Ok(Some(Self { version: Version::V2, folders: vec![("memory", folder)] }))
    }

    fn version_1(own: &str, mounts: &str) -> io::Result<Self> {
        let mut folders: Vec<(&'static str, PathBuf)> = Vec::new();
        for controller in CONTROLLERS {
            let path = own.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|known| known == controller).then_some(path)
            });
            let mount = mounts.lines().find_map(|line| mount_of(line, "cgroup", Some(controller)));
            let (Some(path), Some(mount)) = (path, mount) else {
                let what = format!("there is no cgroup hierarchy for `{controller}`");
                return Err(io::Error::new(io::ErrorKind::NotFound, what));
            };
            let folder = below(&mount, path);
            // Two controllers may share a hierarchy.
            if !folders.iter().any(|(_, known)| *known == folder) {
                folders.push((controller, folder));
            }
        }
        Ok(Self { version: Version::V1, folders })
    }
}

/// Gives the controllers to the cgroups below. One with processes of its own cannot (the no internal process constraint), so
/// they move into a leaf first.
fn give_controllers(folder: &Path) -> io::Result<()> {
    let wanted = || fs::write(folder.join("cgroup.subtree_control"), "+memory +pids +cpu");
    if wanted().is_ok() {
        return Ok(());
    }
    let leaf = folder.join(OWN_LEAF);
    if !leaf.is_dir() {
        fs::create_dir(&leaf)?;
    }
    for pid in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
        fs::write(leaf.join("cgroup.procs"), pid)?;
    }
    wanted().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))
}

/// Where a line of `mountinfo` mounts such a hierarchy (`Documentation/filesystems/proc.rst`, 3.5).
fn mount_of(line: &str, kind: &str, controller: Option<&str>) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let is_kind = after.next()? == kind;
    let options = after.nth(1)?;
    let has = controller.is_none_or(|wanted| options.split(',').any(|option| option == wanted));
    (is_kind && has).then(|| before.split(' ').nth(4).map(PathBuf::from))?
}

fn below(mount: &Path, path: &str) -> PathBuf {
    let own = mount.join(path.trim_start_matches('/'));
    // In a container the path is the host's, and the mount shows the container's part alone.
    if own.is_dir() { own } else { mount.to_owned() }
}

/// Removes every cgroup whose name begins so: those of a gateway that died.
pub(crate) fn remove_all_of(prefix: &str) {
    let Ok(parents) = Parents::find() else { return };
    for (controller, parent) in &parents.folders {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        let left = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        for entry in left {
            let _left: bool =
                Cgroup { version: parents.version, folders: vec![(controller, entry.path())] }.remove();
        }
    }
}

/// Who counts resources here, where this user can make cgroups.
pub(crate) fn available() -> Option<&'static str> {
    let name = format!("ringfence-probe-{}", std::process::id());
    let mut made = Cgroup::create(&name, &Limits::default()).ok()?;
    let driver = made.driver();
    made.remove().then_some(driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_V2: &str = "0::/app.slice/ringfence.service\n";

    /// A folder that looks like a version 2 hierarchy: what is written to it is read back, though no kernel acts on it.
    fn unified(controllers: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("app.slice/ringfence.service");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup.controllers"), controllers).unwrap();
        fs::write(own.join("cgroup.subtree_control"), controllers).unwrap();
        let mounts =
            format!("30 23 0:26 / {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n", folder.path().display());
        (folder, mounts)
    }

    #[test]
    fn version_2_is_taken_where_it_has_the_controllers_alone() {
        let (_folder, mounts) = unified("cpuset cpu io memory pids");
        let found = Parents::version_2(OWN_V2, &mounts).unwrap().unwrap();
        assert_eq!(found.version, Version::V2);
        assert!(found.folders[0].1.ends_with("app.slice/ringfence.service"));
        let (_folder, mounts) = unified("hugetlb");
        assert!(Parents::version_2(OWN_V2, &mounts).unwrap().is_none(), "a hybrid machine");
    }

    #[test]
    fn a_gateway_in_its_leaf_makes_sandboxes_beside_it() {
        let (folder, mounts) = unified("cpu memory pids");
        fs::create_dir(folder.path().join("app.slice/ringfence.service").join(OWN_LEAF)).unwrap();
        let own = format!("0::/app.slice/ringfence.service/{OWN_LEAF}\n");
        let found = Parents::version_2(&own, &mounts).unwrap().unwrap();
        assert!(found.folders[0].1.ends_with("ringfence.service"));
    }

    #[test]
    fn version_2_is_told_every_limit_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["memory.swap.max", "memory.oom.group"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let made = Cgroup { version: Version::V2, folders: vec![("memory", folder.path().to_owned())] };
        made.limit(&Limits { cpu_millicores: 1500, ..Limits::default() }).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"].map(read),
            ["536870912", "0", "1", "129", "150000 100000"]
        );
        fs::write(folder.path().join("cpu.stat"), "usage_usec 2500\nuser_usec 1\n").unwrap();
        fs::write(folder.path().join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        fs::write(folder.path().join("memory.peak"), "4096\n").unwrap();
        let usage = made.usage();
        assert_eq!(
            (usage.cpu.as_micros(), usage.memory_peak_bytes, usage.was_out_of_memory),
            (2500, 4096, true)
        );
    }

    #[test]
    fn hierarchies_of_version_1_are_found_where_they_are_mounted() {
        let line =
            "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(mount_of(line, "cgroup", Some("cpuacct")), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(mount_of(line, "cgroup", Some("memory")), None);
        assert_eq!(mount_of(line, "cgroup2", None), None);
    }
}

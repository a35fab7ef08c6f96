//! Looks from outside at what is in force for a process, so that no layer is believed to be there because nobody complained.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;

use super::cgroup::Cgroup;
use super::kernel_file;
use crate::jail::{UID, filter};
use crate::{Layer, Profile, Refused, Resources};

/// What a namespace is called in `/proc`, and the layer that wants it.
const NAMESPACES: [(&str, Layer); 7] = [
    ("user", Layer::UserNamespace),
    ("pid", Layer::PidNamespace),
    ("mnt", Layer::OwnRoot),
    ("net", Layer::NetworkNamespace),
    ("ipc", Layer::OtherNamespaces),
    ("uts", Layer::OtherNamespaces),
    ("cgroup", Layer::OtherNamespaces),
];

/// The number that a process has here, by a handle on it.
pub(crate) fn pid_of(pidfd: &OwnedFd) -> Result<u32, Refused> {
    let text = kernel_file::text(CWD, &format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    let text = text.map_err(Refused::jail)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| Refused::jail("a process ended before it was looked at"))
}

/// A process as it is seen from here.
struct Process {
    /// Its folder in `/proc`: once it has ended, nothing is found there any more, whoever gets its number.
    folder: OwnedFd,
    status: String,
}

impl Process {
    fn look(name: &str) -> Result<Self, Refused> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, format!("/proc/{name}"), flags, Mode::empty()).map_err(Refused::jail)?;
        let mut looked = Self { folder, status: String::new() };
        looked.status = looked.text("status")?;
        Ok(looked)
    }

    fn text(&self, name: &str) -> Result<String, Refused> {
        kernel_file::text(&self.folder, name).map_err(Refused::jail)
    }

    fn field(&self, name: &str) -> &str {
        let mut lines = self.status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
    }

    fn namespace(&self, name: &str) -> Result<CString, Errno> {
        readlinkat(&self.folder, format!("ns/{name}"), Vec::new())
    }

    /// Device and inode.
    fn root(&self) -> Result<(u64, u64), Errno> {
        statat(&self.folder, "root/.", AtFlags::empty()).map(|found| (found.st_dev, found.st_ino))
    }

    /// In how many process tables it has a number.
    fn depth(&self) -> usize {
        self.field("NSpid").split_whitespace().count()
    }

    fn filters(&self) -> usize {
        self.field("Seccomp_filters").parse().unwrap_or(0)
    }
}

/// What of the gateway itself is compared. It stays as it is while the gateway runs.
pub(super) struct Own {
    namespaces: [Result<CString, Errno>; 7],
    root: Result<(u64, u64), Errno>,
    depth: usize,
    filters: usize,
}

impl Own {
    pub(super) fn look() -> Result<Self, Refused> {
        let own = Process::look("self")?;
        let namespaces = NAMESPACES.map(|(name, _)| own.namespace(name));
        Ok(Self { namespaces, root: own.root(), depth: own.depth(), filters: own.filters() })
    }
}

/// Which process is looked at, and what it is to be.
pub(super) struct Wanted<'a> {
    pub(super) pid: u32,
    pub(super) host_uid: u32,
    pub(super) cgroup: Option<&'a Cgroup>,
    pub(super) is_forked: bool,
}

/// Every layer that can be seen from outside is in force for this process, or the first that is not is named.
pub(super) fn verify(profile: &Profile, own: &Own, wanted: &Wanted<'_>) -> Result<(), Refused> {
    let process = Process::look(&wanted.pid.to_string())?;
    namespaces(profile, own, &process)?;
    if profile.has(Layer::OwnRoot) {
        let layer = Layer::OwnRoot;
        differ(layer, "root", &process.root(), &own.root)?;
    }
    if profile.has(Layer::UserNamespace) {
        users(&process, wanted.host_uid)?;
    }
    if profile.has(Layer::NoPrivileges) {
        no_privileges(&process)?;
    }
    if profile.has(Layer::Seccomp) {
        // A container's own filter is in force for the gateway and the sandbox alike, and is not what is meant.
        let has = process.filters().saturating_sub(own.filters);
        let needed = if wanted.is_forked { filter::FORKED_PROGRAMS } else { filter::PROGRAMS };
        if process.field("Seccomp") != "2" || has < needed {
            return missing(Layer::Seccomp, format!("{has} of {needed} system call filters are there"));
        }
    }
    if profile.has(Layer::Limits) { limits(profile, &process, wanted.cgroup) } else { Ok(()) }
}

fn missing(layer: Layer, what: impl Into<String>) -> Result<(), Refused> {
    Err(Refused::new(layer.as_str(), what.into()))
}

fn differ<T: PartialEq>(
    layer: Layer,
    what: &str,
    theirs: &Result<T, Errno>,
    ours: &Result<T, Errno>,
) -> Result<(), Refused> {
    match (theirs, ours) {
        (Ok(theirs), Ok(ours)) if theirs != ours => Ok(()),
        (Ok(_), Ok(_)) => missing(layer, format!("its {what} is the gateway's own")),
        (Err(error), _) | (_, Err(error)) => {
            missing(layer, format!("its {what} cannot be looked at: {error}"))
        }
    }
}

fn namespaces(profile: &Profile, own: &Own, process: &Process) -> Result<(), Refused> {
    for ((name, layer), ours) in NAMESPACES.iter().zip(&own.namespaces) {
        // A mount namespace is there in any case; the layer is what is mounted in it.
        if profile.has(*layer) {
            differ(*layer, &format!("{name} namespace"), &process.namespace(name), ours)?;
        }
    }
    // One number for each namespace that it is seen in: the nursery's, which all sandboxes share, and its own.
    if profile.has(Layer::PidNamespace) && process.depth() < own.depth + 2 {
        return missing(Layer::PidNamespace, "it shares its process table with other sandboxes");
    }
    Ok(())
}

fn users(process: &Process, host_uid: u32) -> Result<(), Refused> {
    let (users, host_uid) = (process.field("Uid"), host_uid.to_string());
    if users.is_empty() || users.split_whitespace().any(|user| user != host_uid) {
        return missing(Layer::UserNamespace, format!("its users are {users}, not {host_uid}"));
    }
    let map = process.text("uid_map").unwrap_or_default();
    let map: Vec<&str> = map.split_whitespace().collect();
    let inside = UID.to_string();
    if map.len() != 3 || map.first() != Some(&inside.as_str()) || map.last() != Some(&"1") {
        return missing(Layer::UserNamespace, format!("its user map is `{}`", map.join(" ")));
    }
    Ok(())
}

fn no_privileges(process: &Process) -> Result<(), Refused> {
    if process.field("NoNewPrivs") != "1" {
        return missing(Layer::NoPrivileges, "it could get new privileges");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let has = process.field(set);
        if u64::from_str_radix(has, 16) != Ok(0) {
            return missing(Layer::NoPrivileges, format!("its {set} is {has}"));
        }
    }
    Ok(())
}

fn limits(profile: &Profile, process: &Process, cgroup: Option<&Cgroup>) -> Result<(), Refused> {
    let limits = process.text("limits")?;
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap_or_default();
    if core.split_whitespace().nth(1) != Some("1") {
        return missing(Layer::Limits, format!("its limit on core files is `{}`", core.trim()));
    }
    if profile.resources != Resources::Cgroup {
        return Ok(());
    }
    let said = process.text("cgroup")?;
    if cgroup.is_some_and(|cgroup| cgroup.holds(&said)) {
        Ok(())
    } else {
        missing(Layer::Limits, "it is not in its cgroup")
    }
}

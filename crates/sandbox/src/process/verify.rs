//! Looks from outside at what is in force for a process, so that no layer is believed to be there because nobody complained.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use super::cgroup::Cgroup;
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
    let text =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).map_err(Refused::jail)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| Refused::jail("a process ended before it was looked at"))
}

/// Every layer that can be seen from outside is in force for this process, or the first that is not is named.
pub(super) fn verify(
    profile: &Profile,
    pid: u32,
    host_uid: u32,
    cgroup: Option<&Cgroup>,
    is_forked: bool,
) -> Result<(), Refused> {
    let missing = |layer: Layer, what: String| Err(Refused::new(layer.as_str(), what));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(Refused::jail)?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
    };
    for (name, layer) in NAMESPACES {
        // A mount namespace is there in any case; the layer is what is mounted in it.
        if !profile.has(layer) {
            continue;
        }
        let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/{name}"));
        let (theirs, ours) = (link(&pid.to_string()), link("self"));
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) if theirs != ours => {}
            (Ok(_), Ok(_)) => return missing(layer, format!("its {name} namespace is the gateway's own")),
            (Err(error), _) | (_, Err(error)) => {
                return missing(layer, format!("its {name} namespace cannot be looked at: {error}"));
            }
        }
    }
    let own_status = fs::read_to_string("/proc/self/status").map_err(Refused::jail)?;
    let own_field = |name: &str| {
        own_status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
    };
    if profile.has(Layer::PidNamespace) {
        // One number for each namespace that it is seen in: the nursery's, which all sandboxes share, and its own.
        let depth = |numbers: &str| numbers.split_whitespace().count();
        if depth(field("NSpid")) < depth(own_field("NSpid")) + 2 {
            return missing(Layer::PidNamespace, "it shares its process table with other sandboxes".into());
        }
    }
    if profile.has(Layer::OwnRoot) {
        let root =
            |of: &str| fs::metadata(format!("/proc/{of}/root/.")).map(|found| (found.dev(), found.ino()));
        match (root(&pid.to_string()), root("self")) {
            (Ok(theirs), Ok(ours)) if theirs != ours => {}
            (Ok(_), Ok(_)) => return missing(Layer::OwnRoot, "its root is the gateway's own".into()),
            (Err(error), _) | (_, Err(error)) => {
                return missing(Layer::OwnRoot, format!("its root cannot be looked at: {error}"));
            }
        }
    }
    if profile.has(Layer::UserNamespace) {
        let users: Vec<&str> = field("Uid").split_whitespace().collect();
        if users.is_empty() || users.iter().any(|user| *user != host_uid.to_string()) {
            return missing(Layer::UserNamespace, format!("its users are {}, not {host_uid}", field("Uid")));
        }
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
        let map: Vec<&str> = map.split_whitespace().collect();
        let inside = UID.to_string();
        if map.len() != 3 || map.first() != Some(&inside.as_str()) || map.last() != Some(&"1") {
            return missing(Layer::UserNamespace, format!("its user map is `{}`", map.join(" ")));
        }
    }
    if profile.has(Layer::NoPrivileges) {
        if field("NoNewPrivs") != "1" {
            return missing(Layer::NoPrivileges, "it could get new privileges".into());
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if u64::from_str_radix(field(set), 16) != Ok(0) {
                return missing(Layer::NoPrivileges, format!("its {set} is {}", field(set)));
            }
        }
    }
    if profile.has(Layer::Seccomp) {
        // A container's own filter is in force for the gateway and the sandbox alike, and is not what is meant.
        let count = |text: &str| text.parse::<usize>().unwrap_or(0);
        let has = count(field("Seccomp_filters")).saturating_sub(count(own_field("Seccomp_filters")));
        let wanted = if is_forked { filter::FORKED_PROGRAMS } else { filter::PROGRAMS };
        if field("Seccomp") != "2" || has < wanted {
            return missing(Layer::Seccomp, format!("{has} of {wanted} system call filters are there"));
        }
    }
    if profile.has(Layer::Limits) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).map_err(Refused::jail)?;
        let core =
            limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap_or_default();
        if core.split_whitespace().nth(1) != Some("1") {
            return missing(Layer::Limits, format!("its limit on core files is `{}`", core.trim()));
        }
        if profile.resources == Resources::Cgroup && !cgroup.is_some_and(|cgroup| cgroup.holds(pid)) {
            return missing(Layer::Limits, "it is not in its cgroup".into());
        }
    }
    Ok(())
}

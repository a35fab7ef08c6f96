//! Looks from outside at what is in force for a sandbox, so that no layer is believed to be there because nobody complained.

use std::fs;

use crate::process::cgroup::Cgroup;
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

/// The namespaces of init, which all of `runsc` is in or below; its cgroup; and that the sentry has put up its own filter,
/// without which it would be a kernel with all of the host's system calls at its hand.
pub(super) fn verify(
    profile: &Profile,
    init: u32,
    host_uid: u32,
    cgroup: Option<&Cgroup>,
) -> Result<(), Refused> {
    let missing = |layer: Layer, what: String| Err(Refused::new(layer.as_str(), what));
    for (name, layer) in NAMESPACES {
        let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/{name}"));
        match (link(&init.to_string()), link("self")) {
            (Ok(theirs), Ok(ours)) if theirs != ours => {}
            (Ok(_), Ok(_)) => return missing(layer, format!("its {name} namespace is the gateway's own")),
            (Err(error), _) | (_, Err(error)) => {
                return missing(layer, format!("its {name} namespace cannot be looked at: {error}"));
            }
        }
    }
    let sentry = sentry(init).ok_or_else(|| Refused::new("gvisor", "its sentry is not to be seen"))?;
    let status = fs::read_to_string(format!("/proc/{sentry}/status")).map_err(Refused::jail)?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
    };
    let user = host_uid.to_string();
    if field("Uid").split_whitespace().any(|uid| uid != user) {
        return missing(Layer::UserNamespace, format!("its users are {}, not {user}", field("Uid")));
    }
    if field("Seccomp") != "2" {
        return Err(Refused::new("gvisor", "its sentry has no system call filter"));
    }
    let said = fs::read_to_string(format!("/proc/{sentry}/cgroup")).unwrap_or_default();
    let is_held = profile.resources != Resources::Cgroup || cgroup.is_some_and(|cgroup| cgroup.holds(&said));
    if is_held { Ok(()) } else { missing(Layer::Limits, "its sentry is not in its cgroup".into()) }
}

/// The sentry's process, by the number that it has here: `runsc boot`, below `runsc run`.
fn sentry(init: u32) -> Option<u32> {
    let is_sentry = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"boot")
    };
    children(init).into_iter().flat_map(children).find(is_sentry)
}

fn children(pid: u32) -> Vec<u32> {
    // Each thread has those that it made itself.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

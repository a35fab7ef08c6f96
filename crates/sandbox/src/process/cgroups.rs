//! The gateway's own cgroups, below which those of sandboxes are made: found once, and held by handles, since each look through
//! the table of mounts costs more than a cgroup does.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

/// The controllers that a sandbox needs.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];
/// Where the gateway's own processes go, on version 2: a cgroup that gives controllers to others may hold none.
const OWN_LEAF: &str = "ringfence-gateway";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The gateway's own cgroups.
#[derive(Debug)]
pub(crate) struct Parents {
    pub(super) version: Version,
    /// A folder for each hierarchy; on version 2 one for all.
    pub(super) folders: Vec<Parent>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Parent {
    /// The first of its controllers that a sandbox needs.
    pub(super) controller: &'static str,
    pub(super) path: PathBuf,
    pub(super) handle: OwnedFd,
}

/// Writes a value into a file of a cgroup, at once.
pub(super) fn write(folder: &OwnedFd, name: &str, value: &str) -> io::Result<()> {
    let named = |error: Errno| io::Error::new(error.kind(), format!("{name}: {error}"));
    let file = openat(folder, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(named)?;
    let written = rustix::io::write(&file, value.as_bytes()).map_err(named)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

impl Parent {
    pub(super) fn open(controller: &'static str, path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = open(&path, flags, Mode::empty())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { controller, path, handle })
    }
}

impl Parents {
    /// Moves this process to where it is, which changes nothing. The kernel lets a move that comes alone wait for a grace period,
    /// some ten milliseconds, and lets those that soon follow go ahead: whoever is to move one soon has that wait begin now.
    pub(crate) fn expect_a_move(&self) {
        if let Some(parent) = self.folders.first() {
            let _then_it_waits = write(&parent.handle, "cgroup.procs", "0");
        }
    }

    /// Finds them for this process.
    pub(crate) fn find() -> io::Result<Self> {
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
        Ok(Some(Self { version: Version::V2, folders: vec![Parent::open("memory", folder)?] }))
    }

    fn version_1(own: &str, mounts: &str) -> io::Result<Self> {
        let mut folders: Vec<Parent> = Vec::new();
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
            if !folders.iter().any(|known| known.path == folder) {
                folders.push(Parent::open(controller, folder)?);
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
        assert!(found.folders[0].path.ends_with("app.slice/ringfence.service"));
        let (_folder, mounts) = unified("hugetlb");
        assert!(Parents::version_2(OWN_V2, &mounts).unwrap().is_none(), "a hybrid machine");
    }

    #[test]
    fn a_gateway_in_its_leaf_makes_sandboxes_beside_it() {
        let (folder, mounts) = unified("cpu memory pids");
        fs::create_dir(folder.path().join("app.slice/ringfence.service").join(OWN_LEAF)).unwrap();
        let own = format!("0::/app.slice/ringfence.service/{OWN_LEAF}\n");
        let found = Parents::version_2(&own, &mounts).unwrap().unwrap();
        assert!(found.folders[0].path.ends_with("ringfence.service"));
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

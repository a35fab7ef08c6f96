//! A root built from nothing: an empty tmpfs, the host's `/usr` or an image's folders through read-only overlays, work folders,
//! a handful of devices, a `/proc` that shows processes alone. Nothing of the host is hidden, since nothing of it was there.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::pivot_root;

use super::init::interpreter;
use super::orders::Settings;
use crate::sys::{Recursive, set_mount_attributes};
use crate::{Layer, Refused, Root};

/// Where the new root is put together: any folder that every system has, seen by this mount namespace alone.
const SITE: &str = "/tmp";
/// A folder in it that stays empty.
const EMPTY: &str = "/tmp/run";
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// The root that was built, and what is held of it from before it was closed.
pub(super) struct Place {
    /// May be read and executed.
    pub(super) readable: Vec<&'static str>,
    /// May be written.
    pub(super) writable: Vec<&'static str>,
    /// The folder of the program and of its files: written through this, read-only in sight.
    pub(super) given: OwnedFd,
    pub(super) artifacts: &'static str,
    pub(super) interpreter: &'static str,
}

pub(super) fn program_folder(settings: &Settings) -> &'static str {
    if settings.has(Layer::OwnRoot) { "/program" } else { "/tmp/program" }
}

pub(super) fn work_folder(settings: &Settings) -> &'static str {
    if settings.has(Layer::OwnRoot) { "/work" } else { "/tmp" }
}

/// Builds the root of a sandbox and enters it.
pub(super) fn build(settings: &Settings) -> Result<Place, Refused> {
    let layer = |error: io::Error| Refused::new(Layer::OwnRoot.as_str(), error);
    make_private()?;
    let base = Base::open(&settings.root).map_err(layer)?;
    if !settings.wants(Layer::OwnRoot)? {
        let interpreter = interpreter(settings.language, Path::new("/"))?;
        let given = without(settings).map_err(layer)?;
        let readable = vec!["/usr", "/bin", "/lib", "/lib64", "/dev/null", "/dev/urandom"];
        return Ok(Place {
            readable,
            writable: vec!["/tmp"],
            given,
            artifacts: "/tmp/artifacts",
            interpreter,
        });
    }
    let interpreter = interpreter(settings.language, base.path())?;
    assemble(&base, settings.egress).map_err(layer)?;
    let given = work_folders(settings).map_err(layer)?;
    // While the host's own is still there: without one in full view the kernel refuses (`fs/namespace.c`, mount_too_revealing).
    process_table("subset=pid").map_err(|error| Refused::new(Layer::PidNamespace.as_str(), error))?;
    enter(&["/program"]).map_err(layer)?;
    let writable = vec!["/work", "/tmp", "/dev/shm", "/artifacts"];
    Ok(Place { readable: vec!["/"], writable, given, artifacts: "/artifacts", interpreter })
}

/// The same root without anything to write to, for the interpreter that is forked into sandboxes.
pub(super) fn build_bare(settings: &Settings) -> Result<&'static str, Refused> {
    let layer = |error: io::Error| Refused::new(Layer::OwnRoot.as_str(), error);
    make_private()?;
    let base = Base::open(&settings.root).map_err(layer)?;
    if !settings.wants(Layer::OwnRoot)? {
        return interpreter(settings.language, Path::new("/"));
    }
    let interpreter = interpreter(settings.language, base.path())?;
    assemble(&base, settings.egress)
        .and_then(|()| tmpfs("tmp", 16 << 20, 1000, "700"))
        .and_then(|()| process_table(""))
        .and_then(|()| enter(&[]))
        .map_err(layer)?;
    Ok(interpreter)
}

fn make_private() -> Result<(), Refused> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|error| Refused::new(Layer::OwnRoot.as_str(), error))
}

/// What a root is made of: named by a descriptor, since the new root is put together over a folder that it may be in.
struct Base {
    is_host: bool,
    _folder: OwnedFd,
    path: PathBuf,
}

impl Base {
    fn open(root: &Root) -> io::Result<Self> {
        let folder = match root {
            Root::HostUsr => Path::new("/").to_owned(),
            // An image that was unpacked as a bundle has its file system in a folder of that (OCI runtime specification, bundle).
            Root::Folder(folder) if folder.join("config.json").is_file() => folder.join("rootfs"),
            Root::Folder(folder) => folder.clone(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(&folder, flags, Mode::empty()).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{}: {error}; the sandbox's user has to be able to read it", folder.display()),
            )
        })?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        Ok(Self { is_host: *root == Root::HostUsr, _folder: opened, path })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// What of it is seen in the sandbox: of the host programs and libraries alone, of a folder all but what the sandbox has itself.
    fn entries(&self) -> io::Result<Vec<OsString>> {
        if self.is_host {
            return Ok(["usr", "bin", "sbin", "lib", "lib64"].map(OsString::from).into());
        }
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<OsString>> = names.collect();
        Ok(names?
            .into_iter()
            .filter(|name| !OWN_FOLDERS.iter().any(|own| name == own) && name != "sys")
            .collect())
    }
}

/// The folders that a sandbox has itself, whatever its root is made of.
const OWN_FOLDERS: [&str; 8] = ["etc", "proc", "dev", "work", "tmp", "program", "artifacts", "run"];

fn assemble(base: &Base, egress: bool) -> io::Result<()> {
    // Found before the new root covers the folder that it stands on.
    let entries = base.entries()?;
    tmpfs(SITE, 8 << 20, 400, "755")?;
    std::env::set_current_dir(SITE)?;
    OWN_FOLDERS.iter().try_for_each(fs::create_dir)?;
    for name in &entries {
        link_or_overlay(&base.path().join(name), Path::new(name))?;
    }
    if !Path::new("var").exists() {
        fs::create_dir("var")?;
    }
    fill_etc(base, egress)?;
    devices()
}

/// What can be written, and what comes in from outside: a descriptor for writing what is read-only in sight.
fn work_folders(settings: &Settings) -> io::Result<OwnedFd> {
    let limits = &settings.limits;
    tmpfs("work", limits.work_bytes, limits.files, "700")?;
    tmpfs("tmp", limits.temporary_bytes, limits.files, "700")?;
    tmpfs("dev/shm", limits.temporary_bytes, limits.files, "700")?;
    tmpfs("artifacts", limits.artifact_bytes, limits.files, "700")?;
    tmpfs("program", limits.work_bytes, limits.files, "700")?;
    fs::create_dir("program/in")?;
    fs::create_dir("work/in")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let given = open_tree(CWD, "program", flags)?;
    bind("program/in", "work/in", READ_ONLY)?;
    Ok(given)
}

/// A place to work in where the layer is off and the root is the host's.
fn without(settings: &Settings) -> io::Result<OwnedFd> {
    tmpfs(SITE, settings.limits.work_bytes, settings.limits.files, "700")?;
    ["program", "program/in", "artifacts"]
        .iter()
        .try_for_each(|name| fs::create_dir(Path::new(SITE).join(name)))?;
    Ok(open("/tmp/program", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn process_table(options: &str) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = std::ffi::CString::new(options)?;
    Ok(mount("proc", "proc", "proc", flags, options.as_c_str())?)
}

/// Makes the assembled root the only one, and closes it and some mounts in it for writing.
fn enter(closed: &[&str]) -> io::Result<()> {
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    set_mount_attributes(&fs::File::open("/")?, READ_ONLY, Recursive::No)?;
    for path in closed {
        // The devices in `/dev` are mounts of their own.
        let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
        set_mount_attributes(&fs::File::open(path)?, attributes, Recursive::No)?;
    }
    Ok(())
}

fn tmpfs(at: &str, bytes: u64, files: u64, mode: &str) -> io::Result<()> {
    let options = format!("size={bytes},nr_inodes={files},mode={mode}");
    let options = std::ffi::CString::new(options)?;
    Ok(mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?)
}

/// A folder of the host's, to be read. Through an overlay and not as it is: its files are then other inodes than the host's, so
/// that no socket among them reaches a process of the host, no lock on them holds one up, and no watch on them sees one.
fn overlay(above: &Path, from: &Path, to: &Path) -> io::Result<()> {
    // An overlay without an upper folder needs two lower ones.
    let mut options = b"lowerdir=".to_vec();
    options.extend(above.as_os_str().as_bytes());
    options.push(b':');
    options.extend(from.as_os_str().as_bytes());
    let options = std::ffi::CString::new(options)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount("overlay", to, "overlay", flags, options.as_c_str()).map_err(|error| {
        let shown = to.display();
        io::Error::new(error.kind(), format!("overlay for `/{shown}`: {error}; Linux 5.11 or later can"))
    })
}

/// A copy of a host's mount, with fewer rights, put at a place in the new root.
fn bind(from: &str, to: &str, attributes: u64) -> io::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, from, flags)?;
    set_mount_attributes(&tree, attributes, Recursive::Yes)?;
    Ok(move_mount(&tree, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// A folder at the top: `/bin` and the like are links into `/usr` on most systems, and folders on some.
fn link_or_overlay(from: &Path, name: &Path) -> io::Result<()> {
    match fs::symlink_metadata(from) {
        Ok(found) if found.is_symlink() => symlink(fs::read_link(from)?, name),
        // Two characters mean something in the options of a mount.
        Ok(found)
            if found.is_dir() && !name.as_os_str().as_bytes().iter().any(|byte| b":,\\".contains(byte)) =>
        {
            fs::create_dir(name)?;
            overlay(Path::new(EMPTY), from, name)
        }
        _ => Ok(()),
    }
}

fn fill_etc(base: &Base, egress: bool) -> io::Result<()> {
    fs::write("etc/passwd", "sandbox:x:1000:1000::/work:/usr/bin/bash\n")?;
    fs::write("etc/group", "sandbox:x:1000:\n")?;
    fs::write("etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n")?;
    let hosts = if egress { "files dns" } else { "files" };
    fs::write("etc/nsswitch.conf", format!("passwd: files\ngroup: files\nhosts: {hosts}\n"))?;
    if egress {
        fs::write("etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")?;
    }
    let theirs = base.path().join("etc");
    if !base.is_host {
        return if theirs.is_dir() {
            overlay(&Path::new(SITE).join("etc"), &theirs, Path::new("etc"))
        } else {
            Ok(())
        };
    }
    // Where the interpreter's libraries and alternative commands are found. Neither says anything of the host but its packages.
    if theirs.join("ld.so.cache").is_file() {
        fs::copy(theirs.join("ld.so.cache"), "etc/ld.so.cache")?;
    }
    if theirs.join("alternatives").is_dir() {
        fs::create_dir("etc/alternatives")?;
        overlay(Path::new(EMPTY), &theirs.join("alternatives"), Path::new("etc/alternatives"))?;
    }
    Ok(())
}

fn devices() -> io::Result<()> {
    // Without MOUNT_ATTR_NODEV on the nodes themselves; no other can be made, for want of a right and of a system call.
    for name in DEVICES {
        let node = format!("dev/{name}");
        fs::write(&node, "")?;
        bind(&format!("/{node}"), &node, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, format!("dev/{name}"))?;
    }
    fs::create_dir("dev/shm")
}

//! A root built from nothing: an empty tmpfs, the host's `/usr` through a read-only overlay, work folders, a handful of devices, a `/proc` that
//! shows processes alone. Nothing of the host is hidden, since nothing of it was there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::pivot_root;

use super::orders::Orders;
use crate::sys::{Recursive, set_mount_attributes};
use crate::{Layer, Refused};

/// Where the new root is put together: any folder that every system has, seen by this mount namespace alone.
const SITE: &str = "/tmp";
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// What Landlock is to allow in the root that was built.
pub(super) struct Place {
    /// May be read and executed.
    pub(super) readable: Vec<&'static str>,
    /// May be written.
    pub(super) writable: Vec<&'static str>,
}

pub(super) fn program_folder(orders: &Orders) -> &'static str {
    if orders.has(Layer::OwnRoot) { "/program" } else { "/tmp/program" }
}

pub(super) fn work_folder(orders: &Orders) -> &'static str {
    if orders.has(Layer::OwnRoot) { "/work" } else { "/tmp" }
}

/// Builds the root and enters it.
pub(super) fn build(orders: &Orders) -> Result<Place, Refused> {
    let layer = Layer::OwnRoot.as_str();
    if !Path::new(orders.language.interpreter()).exists() {
        return Err(Refused::new(
            "interpreter",
            format!("`{}` is not installed", orders.language.interpreter()),
        ));
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|error| Refused::new(layer, error))?;
    if !orders.has(Layer::OwnRoot) {
        tmpfs(SITE, orders.limits.work_bytes, orders.limits.files, "700")
            .map_err(|error| Refused::new(layer, error))?;
        write_program(orders, Path::new("/tmp/program")).map_err(|error| Refused::new(layer, error))?;
        let readable = vec!["/usr", "/bin", "/lib", "/lib64", "/dev/null", "/dev/urandom"];
        return Ok(Place { readable, writable: vec!["/tmp"] });
    }
    assemble(orders).and_then(|()| enter()).map_err(|error| Refused::new(layer, error))?;
    Ok(Place { readable: vec!["/"], writable: vec!["/work", "/tmp", "/dev/shm"] })
}

fn assemble(orders: &Orders) -> io::Result<()> {
    let limits = &orders.limits;
    // Taken before the new root covers the folder that it stands on.
    tmpfs(SITE, 8 << 20, 400, "755")?;
    std::env::set_current_dir(SITE)?;
    for folder in ["usr", "etc", "proc", "dev", "work", "tmp", "program", "run", "var"] {
        fs::create_dir(folder)?;
    }
    overlay("/usr", "usr")?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        link_or_bind(name)?;
    }
    fill_etc()?;
    devices()?;
    tmpfs("work", limits.work_bytes, limits.files, "700")?;
    tmpfs("tmp", limits.temporary_bytes, limits.files, "700")?;
    tmpfs("dev/shm", limits.temporary_bytes, limits.files, "700")?;
    // While the host's own is still there: without one in full view the kernel refuses (`fs/namespace.c`, mount_too_revealing).
    let proc_flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", proc_flags, c"subset=pid")?;
    write_program(orders, Path::new("program"))?;
    if !orders.files.is_empty() {
        fs::create_dir("work/in")?;
    }
    orders.files.iter().try_for_each(|file| fs::write(Path::new("work/in").join(&file.name), &file.bytes))
}

fn write_program(orders: &Orders, folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        fs::create_dir(folder)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(folder.join(orders.language.file_name()))?;
    file.write_all(orders.source.as_bytes())
}

/// Makes the assembled root the only one.
fn enter() -> io::Result<()> {
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    let root = fs::File::open("/")?;
    set_mount_attributes(&root, READ_ONLY, Recursive::No)?;
    let devices = fs::File::open("/dev")?;
    set_mount_attributes(
        &devices,
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
        Recursive::No,
    )
}

fn tmpfs(at: &str, bytes: u64, files: u64, mode: &str) -> io::Result<()> {
    let options = format!("size={bytes},nr_inodes={files},mode={mode}");
    let options = std::ffi::CString::new(options)?;
    Ok(mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?)
}

/// A host's folder, to be read. Through an overlay and not as it is: its files are then other inodes than the host's, so that
/// no socket among them reaches a process of the host, no lock on them holds one up, and no watch on them sees one.
fn overlay(from: &str, to: &str) -> io::Result<()> {
    // An overlay without an upper folder needs two lower ones; `run` is empty.
    let options = std::ffi::CString::new(format!("lowerdir={SITE}/run:{from}"))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount("overlay", to, "overlay", flags, options.as_c_str()).map_err(|error| {
        io::Error::new(error.kind(), format!("overlay of {from}: {error}; Linux 5.11 or later can"))
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

/// `/bin` and the like are links into `/usr` on most systems, and folders on some.
fn link_or_bind(name: &str) -> io::Result<()> {
    let host = format!("/{name}");
    match fs::symlink_metadata(&host) {
        Ok(found) if found.is_symlink() => symlink(fs::read_link(&host)?, name),
        Ok(found) if found.is_dir() => {
            fs::create_dir(name)?;
            overlay(&host, name)
        }
        _ => Ok(()),
    }
}

fn fill_etc() -> io::Result<()> {
    fs::write("etc/passwd", "sandbox:x:1000:1000::/work:/usr/bin/bash\n")?;
    fs::write("etc/group", "sandbox:x:1000:\n")?;
    fs::write("etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n")?;
    fs::write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")?;
    // Where the interpreter's libraries and alternative commands are found. Neither says anything of the host but its packages.
    if Path::new("/etc/ld.so.cache").is_file() {
        fs::copy("/etc/ld.so.cache", "etc/ld.so.cache")?;
    }
    if Path::new("/etc/alternatives").is_dir() {
        fs::create_dir("etc/alternatives")?;
        overlay("/etc/alternatives", "etc/alternatives")?;
    }
    Ok(())
}

fn devices() -> io::Result<()> {
    // Without MOUNT_ATTR_NODEV on the nodes themselves; no other can be made, for want of a right and of a system call.
    tmpfs("dev", 64 << 10, 32, "755")?;
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

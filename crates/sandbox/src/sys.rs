//! System calls that no safe library wraps. One in each function, with the fact that makes it sound.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use tokio::io::unix::AsyncFd;

/// Which side of [`clone`] this is.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The old one, with the new one's number and a handle on it.
    Parent { pid: u32, pidfd: OwnedFd },
}

/// `struct clone_args` (`include/uapi/linux/sched.h`), as far as it is used.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// `clone3(2)` without shared memory: a fork into new namespaces. The caller must have one thread alone.
pub(crate) fn clone(namespaces: u64) -> io::Result<Side> {
    clone_as(namespaces, None)
}

/// The same, with the number that the child is to have: for that the caller must be root of its pid namespace.
pub(crate) fn clone_as(namespaces: u64, number: Option<i32>) -> io::Result<Side> {
    let mut pidfd: i32 = -1;
    let arguments = CloneArguments {
        flags: namespaces | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        set_tid: number.as_ref().map_or(0, |number| std::ptr::from_ref(number) as u64),
        set_tid_size: u64::from(number.is_some()),
        ..CloneArguments::default()
    };
    // SAFETY: the struct and what it points to outlive the call and its size is passed. Without CLONE_VM the child has a copy of the memory, and
    // the process has one thread, so no lock is held by a thread that the child lacks.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
    match check(result)? {
        0 => Ok(Side::Child),
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        pid => Ok(Side::Parent {
            pid: u32::try_from(pid).unwrap_or(0),
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Has a command start with so many open files at the most.
pub(crate) fn limit_open_files(command: &mut Command, most: u64) {
    let limit = move || {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(Resource::Nofile, limit).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec one system call is made, and no memory is allocated.
    unsafe { command.pre_exec(limit) };
}

/// `close_range(2)`: closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called at the start of the jail, before anything is open that this program owns.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// `close_range(2)`: closes every descriptor from 3 on but these.
pub(crate) fn close_except(kept: &mut [RawFd]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).chain([u32::MAX]) {
        if first < fd {
            // SAFETY: called in a child that has just been forked, which uses none but the kept descriptors from here on; what
            // its copy of the parent's memory still names is never touched again.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) })?;
        }
        first = fd.saturating_add(1).max(first);
    }
    Ok(())
}

/// A descriptor in the runtime, which tells when it is ready.
pub(crate) fn in_runtime(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the runtime needs the descriptor to stay open, and the same, while it is registered: an owned one is closed by its
    // owner alone, and its owner is what is returned here.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// A child that has ended.
pub(crate) struct Dead {
    pub(crate) pid: u32,
    pub(crate) cpu: Duration,
    /// Of the largest of its processes.
    pub(crate) memory_peak_bytes: u64,
}

/// `wait4(2)`, for any child and without waiting; none where none has ended.
pub(crate) fn reap() -> io::Result<Option<Dead>> {
    // SAFETY: all-zero is a value of this struct, which holds integers alone.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer means that the status is not wanted; the struct is ours and outlives the call.
    let pid = unsafe { libc::wait4(-1, std::ptr::null_mut(), libc::WNOHANG, &raw mut usage) };
    match u32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) => {
            let time = |value: libc::timeval| {
                Duration::from_secs(u64::try_from(value.tv_sec).unwrap_or(0))
                    + Duration::from_micros(u64::try_from(value.tv_usec).unwrap_or(0))
            };
            let memory_peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
            Ok(Some(Dead { pid, cpu: time(usage.ru_utime) + time(usage.ru_stime), memory_peak_bytes }))
        }
        Err(_) => match io::Error::last_os_error() {
            none if none.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
    }
}

/// `struct mount_attr` (`include/uapi/linux/mount.h`).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `mount_setattr(2)` on the mount behind a descriptor; `recursive` reaches the mounts below it.
pub(crate) fn set_mount_attributes(mount: impl AsFd, set: u64, recursive: Recursive) -> io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive == Recursive::Yes { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: the path is a C string, the struct outlives the call and its size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    check(result).map(drop)
}

/// Whether the mounts below are meant too.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Recursive {
    Yes,
    No,
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING)`: an empty session keyring in place of the inherited one.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for a new anonymous keyring; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0_usize) }).map(drop)
}

/// `struct landlock_ruleset_attr` (`include/uapi/linux/landlock.h`).
#[repr(C)]
pub(crate) struct LandlockRuleset {
    pub(crate) handled_files: u64,
    pub(crate) handled_network: u64,
    pub(crate) scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct LandlockPath {
    allowed: u64,
    parent: i32,
}

/// The newest Landlock ABI of this kernel.
pub(crate) fn landlock_abi() -> io::Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel takes no memory and returns a number.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) };
    Ok(u32::try_from(check(result)?).unwrap_or(0))
}

/// `landlock_create_ruleset(2)`; `size` is as much of the struct as this kernel's ABI knows.
pub(crate) fn landlock_create(ruleset: &LandlockRuleset, size: usize) -> io::Result<OwnedFd> {
    let size = size.min(size_of::<LandlockRuleset>());
    // SAFETY: the struct outlives the call, and `size` is not beyond it.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(ruleset), size, 0_u32) };
    let fd = i32::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `landlock_add_rule(2)` for a path and all beneath it.
pub(crate) fn landlock_allow(ruleset: impl AsFd, path: impl AsFd, allowed: u64) -> io::Result<()> {
    const PATH_BENEATH: u32 = 1;
    let rule = LandlockPath { allowed, parent: path.as_fd().as_raw_fd() };
    // SAFETY: the struct outlives the call and is laid out as the kernel wants it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_fd().as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    };
    check(result).map(drop)
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct LandlockPort {
    allowed: u64,
    port: u64,
}

/// `landlock_add_rule(2)` for a TCP port.
pub(crate) fn landlock_allow_port(ruleset: impl AsFd, port: u16, allowed: u64) -> io::Result<()> {
    const NET_PORT: u32 = 2;
    let rule = LandlockPort { allowed, port: u64::from(port) };
    // SAFETY: the struct outlives the call and is laid out as the kernel wants it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_fd().as_raw_fd(),
            NET_PORT,
            &raw const rule,
            0_u32,
        )
    };
    check(result).map(drop)
}

/// `SIOCSIFFLAGS` on `lo` (`netdevice(7)`): what is bound to loopback can be reached.
pub(crate) fn bring_up_loopback() -> io::Result<()> {
    /// `IFF_UP | IFF_RUNNING`.
    const UP: i16 = 0x41;
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: all-zero is a value of this struct, which holds integers and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: the descriptor is a socket of ours, and the struct outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(i64::from(result)).map(drop)
}

/// `landlock_restrict_self(2)`.
pub(crate) fn landlock_restrict(ruleset: impl AsFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_fd().as_raw_fd(), 0_u32) })
        .map(drop)
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

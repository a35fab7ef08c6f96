//! The system call filter: a list of what a program may ask of the kernel.
//!
//! What is not listed does not exist (`ENOSYS`), so that libraries fall back; what would be an attack is forbidden (`EPERM`);
//! sockets other than Unix ones are of no known family (`EAFNOSUPPORT`); another architecture's calls kill. `seccompiler`
//! gives a filter one action, so there are three, and of equal answers the one installed last counts (`kernel/seccomp.c`).

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};

use crate::{Refused, Resources};

/// What the filter depends on: never on what a policy says, beyond whether there is a way out at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) resources: Resources,
    pub(crate) egress: bool,
}

/// How many programs the filter is made of; and where an interpreter was forked, the two that end its exceptions besides. As in
/// `Seccomp_filters` of `/proc/PID/status`.
pub(crate) const PROGRAMS: usize = 3;
pub(crate) const FORKED_PROGRAMS: usize = PROGRAMS + 2;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Flags of `clone(2)` that make a namespace, or a child of one's own parent: of a process outside, which would have to bury it.
const NO_CHILDS_OWN: [i32; 8] = [
    libc::CLONE_PARENT,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// What programs need. `clone3` is not among them: its flags are in memory, where no filter can see them.
const ALLOWED: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_chdir,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_connect,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrlimit,
    libc::SYS_get_robust_list,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_getxattr,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listen,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_mkdirat,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msgctl,
    libc::SYS_msgget,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_prlimit64,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_sendfile,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setgid,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setrlimit,
    libc::SYS_set_robust_list,
    libc::SYS_setsid,
    libc::SYS_setsockopt,
    libc::SYS_set_tid_address,
    libc::SYS_setuid,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_shmget,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_sysinfo,
    libc::SYS_tee,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Older spellings that only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// What only an attack needs.
const FORBIDDEN: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Installs the filter, for this process and all that it starts.
pub(crate) fn install(kind: Kind) -> Result<(), Refused> {
    let filters = programs(kind).map_err(|error| Refused::new("seccomp", error))?;
    filters.iter().try_for_each(|filter| apply_filter(filter)).map_err(|error| Refused::new("seccomp", error))
}

/// SHA-256 of the filter, in hexadecimal: two runs with the same let the same calls through.
pub(crate) fn fingerprint(kind: Kind) -> Result<String, Refused> {
    let filters = programs(kind).map_err(|error| Refused::new("seccomp", error))?;
    let mut hash = Context::new(&SHA256);
    for step in filters.iter().flatten() {
        hash.update(&step_bytes(step));
    }
    Ok(hex::encode(hash.finish()))
}

/// What an interpreter that forks itself into sandboxes needs besides, until the fork is confined.
const UNTIL_CONFINED: [c_long; 3] = [libc::SYS_setns, libc::SYS_keyctl, libc::SYS_capset];

/// Installs the filter with what is needed until a fork is confined. Its forks inherit it, so that its cost, which is most of
/// what confining one takes, is paid once.
pub(super) fn install_until_confined(kind: Kind) -> Result<(), Refused> {
    let layer = |error: &dyn std::fmt::Display| Refused::new("seccomp", error);
    let filters = programs_but(kind, &UNTIL_CONFINED).map_err(|error| layer(&error))?;
    filters.iter().try_for_each(|filter| apply_filter(filter)).map_err(|error| layer(&error))
}

/// What takes that away again, one program after the other, in hexadecimal: a fork installs it itself, and then has the filter
/// that every other sandbox has.
pub(super) fn rest() -> Result<Vec<String>, Refused> {
    let refused = |error: seccompiler::BackendError| Refused::new("seccomp", error);
    let build = |calls: &[c_long], code: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
        let errno = SeccompAction::Errno(code.unsigned_abs());
        SeccompFilter::new(rules, SeccompAction::Allow, errno, arch)?.try_into()
    };
    let (forbidden, unknown): (Vec<c_long>, Vec<c_long>) =
        UNTIL_CONFINED.iter().partition(|call| FORBIDDEN.contains(call));
    let filters = [build(&unknown, libc::ENOSYS), build(&forbidden, libc::EPERM)];
    let hex = |filter: &BpfProgram| hex::encode(filter.iter().flat_map(step_bytes).collect::<Vec<u8>>());
    filters.into_iter().map(|filter| filter.map(|filter| hex(&filter)).map_err(refused)).collect()
}

/// `struct sock_filter` (`include/uapi/linux/filter.h`).
fn step_bytes(step: &sock_filter) -> [u8; 8] {
    let mut bytes = [0; 8];
    let fields = step.code.to_ne_bytes().into_iter().chain([step.jt, step.jf]).chain(step.k.to_ne_bytes());
    for (to, from) in bytes.iter_mut().zip(fields) {
        *to = from;
    }
    bytes
}

/// Memory that belongs to no process's address space, and so to no limit but a cgroup's.
const UNCOUNTED: [i64; 4] = [libc::SYS_memfd_create, libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget];

fn programs(kind: Kind) -> Result<[BpfProgram; PROGRAMS], seccompiler::BackendError> {
    programs_but(kind, &[])
}

/// The filter, but for some calls that it lets through.
fn programs_but(
    kind: Kind,
    let_through: &[c_long],
) -> Result<[BpfProgram; PROGRAMS], seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = |code: i32| SeccompAction::Errno(code.unsigned_abs());
    let build = |rules: Rules,
                 otherwise: SeccompAction,
                 then: SeccompAction|
     -> Result<BpfProgram, seccompiler::BackendError> {
        SeccompFilter::new(rules, otherwise, then, arch)?.try_into()
    };
    let with = |mut rules: Rules| {
        rules.extend(let_through.iter().map(|call| (*call, Vec::new())));
        rules
    };
    let without = |mut rules: Rules| {
        rules.retain(|call, _| !let_through.contains(call));
        rules
    };
    Ok([
        build(with(allowed(kind)?), errno(libc::ENOSYS), SeccompAction::Allow)?,
        build(without(forbidden()?), SeccompAction::Allow, errno(libc::EPERM))?,
        build(foreign_sockets(kind.egress)?, SeccompAction::Allow, errno(libc::EAFNOSUPPORT))?,
    ])
}

fn allowed(kind: Kind) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    if kind.resources == Resources::RlimitsOnly {
        rules.retain(|call, _| !UNCOUNTED.contains(call));
    }
    // `TIOCSTI` and `TIOCLINUX` write into someone's terminal. The kernel looks at the low half alone, and so does this.
    let harmless =
        [libc::TIOCSTI, libc::TIOCLINUX].map(|code| SeccompCondition::new(1, Width::Dword, Is::Ne, code));
    let harmless = harmless.into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(harmless)?]);
    let mask = NO_CHILDS_OWN.iter().fold(0, |mask, flag| mask | u64::from(flag.unsigned_abs()));
    let plain = SeccompCondition::new(0, Width::Qword, Is::MaskedEq(mask), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![plain])?]);
    let unix = || SeccompRule::new(vec![SeccompCondition::new(0, Width::Dword, Is::Eq, AF_UNIX)?]);
    rules.insert(libc::SYS_socketpair, vec![unix()?]);
    let mut sockets = vec![unix()?];
    if kind.egress {
        for (family, kind, protocols) in INTERNET {
            for protocol in *protocols {
                sockets.push(SeccompRule::new(vec![
                    SeccompCondition::new(0, Width::Dword, Is::Eq, *family)?,
                    SeccompCondition::new(1, Width::Dword, Is::MaskedEq(SOCKET_TYPE), *kind)?,
                    SeccompCondition::new(2, Width::Dword, Is::Eq, *protocol)?,
                ])?);
            }
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    Ok(rules)
}

fn forbidden() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let makes = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        SeccompRule::new(vec![SeccompCondition::new(0, Width::Qword, Is::MaskedEq(flag), flag)?])
    };
    rules.insert(libc::SYS_clone, NO_CHILDS_OWN.into_iter().map(makes).collect::<Result<_, _>>()?);
    #[cfg(target_arch = "x86_64")]
    for call in
        [libc::SYS_mknod, libc::SYS_modify_ldt, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_kexec_file_load]
    {
        rules.insert(call, Vec::new());
    }
    Ok(rules)
}

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
/// The bits of `socket(2)`'s second argument that are the type; the others are flags.
const SOCKET_TYPE: u64 = 0xf;
/// Family, type and protocols of what programs need where there is a way out: TCP, UDP for names, and the list of interfaces.
const INTERNET: &[(u64, u64, &[u64])] = &[
    (AF_INET, 1, &[0, 6]),
    (AF_INET, 2, &[0, 17]),
    (AF_INET6, 1, &[0, 6]),
    (AF_INET6, 2, &[0, 17]),
    (AF_NETLINK, 2, &[0]),
    (AF_NETLINK, 3, &[0]),
];

/// What is answered as a family that is not known. Whatever else is not in the list above does not exist.
fn foreign_sockets(egress: bool) -> Result<Rules, seccompiler::BackendError> {
    let not_of = |families: &[u64]| {
        let conditions =
            families.iter().map(|family| SeccompCondition::new(0, Width::Dword, Is::Ne, *family));
        SeccompRule::new(conditions.collect::<Result<Vec<_>, _>>()?)
    };
    let known: &[u64] = if egress { &[AF_UNIX, AF_INET, AF_INET6, AF_NETLINK] } else { &[AF_UNIX] };
    Ok(Rules::from([
        (libc::SYS_socket, vec![not_of(known)?]),
        (libc::SYS_socketpair, vec![not_of(&[AF_UNIX])?]),
    ]))
}

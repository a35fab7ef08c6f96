//! Keeps this process's memory, which holds tokens and keys, to itself.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From now on no other process of the same user can look into this one (`ptrace`, `/proc/PID/mem`), and nothing of it is written
/// to a core file. What is started from here decides anew for itself, but for the limit.
pub(crate) fn keep_private() {
    // 1 and not 0: a pipe in `core_pattern` runs as root on the host, and only 1 keeps it from running (fs/coredump.c).
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    let _lower_already = setrlimit(Resource::Core, one);
    let _always_possible = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

//! The jail: this executable run anew, with one thread and nothing open. It builds the sandbox, runs the program in it and
//! takes everything down.
//!
//! Two processes: the *launcher*, on the host's side, and *init*, the first process inside. When either dies, everything
//! inside dies: init is the pid namespace's first process, and it gets the launcher's death as a signal.

mod confine;
mod filter;
mod init;
mod launcher;
mod orders;
mod root;

pub(crate) use orders::{Orders, Report};

/// What the jail is called in the process table.
pub(crate) const JAIL_NAME: &str = "ringfence-jail";

/// Becomes the jail if this process was started as one, and never returns then. Must be the first thing in `main`: before
/// any thread, any runtime, and anything that reads arguments.
pub fn enter_if_jail() {
    if std::env::args_os().next().is_some_and(|name| name == JAIL_NAME) {
        std::process::exit(launcher::main());
    }
}

//! The jail: this executable run anew, with one thread and nothing open. It builds sandboxes and runs programs in them.
//!
//! Three processes, each with less than the one before. The *keeper*, on the host's side, gives the next one its identity and
//! ends it. The *nursery* has a user and a pid namespace of its own and begins sandboxes in them. *Init* is the first process
//! inside a sandbox: it builds the root, confines itself, and starts the program. When one of them dies, the kernel kills
//! everything further inside; when the gateway dies, its socket closes, and the keeper ends the rest.

mod confine;
pub(crate) mod egress;
pub(crate) mod filter;
mod init;
mod keeper;
mod nursery;
pub(crate) mod orders;
mod root;

pub(crate) use confine::raise_open_files;
pub(crate) use init::{environment, interpreter};
pub(crate) use keeper::{take_control, wait_for_end};

/// What the jail is called in the process table.
pub(crate) const JAIL_NAME: &str = "ringfence-jail";
/// The user inside: never 0.
pub(crate) const UID: u32 = 1000;
/// What waits in an interpreter for a program, and runs it.
pub(crate) const DRIVER: &str = include_str!("driver.py");
/// What forks such interpreters into sandboxes.
pub(crate) const ZYGOTE: &str = include_str!("zygote.py");

/// Becomes the jail if this process was started as one, and never returns then. Must be the first thing in `main`: before
/// any thread, any runtime, and anything that reads arguments.
pub fn enter_if_jail() {
    let Some(name) = std::env::args_os().next() else { return };
    if name == JAIL_NAME {
        std::process::exit(keeper::main());
    }
    crate::gvisor::enter_if(&name);
}

//! Runs a program that can touch only what it was given: an environment built for one run and destroyed after it.
//!
//! The sandbox is structure before it is rules: namespaces with a root, a process table and a network of their own hold
//! nothing but what was put in. Landlock, seccomp and limits stand behind that. A layer that the profile names is in force
//! or the run is refused with the layer's name; there is no weaker run. Knows nothing of Ringfence. The only crate with
//! `unsafe`, all of it in `sys`.
//!
//! The jail is the calling executable itself, run anew: [`enter_if_jail`] must be the first thing in its `main`.

mod attack;
mod backend;
pub mod egress;
mod jail;
mod outcome;
mod probe;
mod process;
mod profile;
mod program;
mod sandbox;
#[expect(unsafe_code, reason = "system calls that no safe library wraps, one in each function")]
mod sys;
mod watch;

pub use attack::{Probe, self_attack};
pub use jail::enter_if_jail;
pub use outcome::{Artifact, Captured, Ended, LeftOut, Outcome, Receipt, Refused, Used};
pub use probe::{Machine, probe, strongest};
pub use profile::{Fault, Isolation, Language, Layer, Limits, Profile, Resources, Root, Start, WayOut};
pub use program::{InputFile, Program};
pub use sandbox::{Sandbox, Session, run};
pub use watch::{Stream, Unwatched, Watch};

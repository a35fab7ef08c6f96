//! The demo as an ordinary user. Only root can become one: anyone else's run of it is ignored here, never passed, and their
//! own run of the demo in `end_to_end` is the same test.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use ringfence_tests::{binary, nothing_got_through, run};

fn main() -> ExitCode {
    let is_root = rustix::process::getuid().is_root();
    let trial = Trial::test("an_ordinary_user_is_as_safe", an_ordinary_user_is_as_safe);
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(!is_root)]).exit_code()
}

fn an_ordinary_user_is_as_safe() -> Result<(), Failed> {
    // The build's own folder may be closed to others.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("ringfence");
    fs::copy(binary(), &copy)?;
    let mut demo = Command::new(copy);
    demo.args(["demo", "--json"]).uid(1234).gid(1234).current_dir("/").env("TMPDIR", "/tmp");
    nothing_got_through(&run(&mut demo));
    Ok(())
}

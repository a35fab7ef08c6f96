//! One step: a command that is shown, run, and has to end well.

use std::process::Command;
use std::time::Instant;

use crate::root;

/// Runs cargo at the root of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Result<(), String> {
    run(Command::new(env!("CARGO")).args(arguments))
}

/// Runs a command at the root of the workspace.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}").replace('"', "");
    println!("\n$ {shown}");
    let began = Instant::now();
    let status = command.current_dir(root()).status().map_err(|error| format!("`{shown}`: {error}"))?;
    println!("  ({:.0} s)", began.elapsed().as_secs_f32());
    if status.success() { Ok(()) } else { Err(format!("`{shown}` ended with {status}")) }
}

/// Installs a package of Debian's, where that is the machine and this user may. Whether it did.
pub(crate) fn install_debian(package: &str) -> bool {
    let user = Command::new("id").arg("-u").output();
    if !user.is_ok_and(|user| user.stdout.trim_ascii() == b"0") || !is_there("apt-get", &["--version"]) {
        return false;
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends", package]);
    run(install.env("DEBIAN_FRONTEND", "noninteractive")).is_ok()
}

/// Whether a program is there and answers to `--version`.
pub(crate) fn is_there(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    output.is_ok_and(|output| output.status.success())
}

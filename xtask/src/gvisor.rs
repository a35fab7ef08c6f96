//! `runsc`, which the tests of the gVisor backend need.

use crate::step;

/// Installs it where this machine and user may. Where it is not to be had, that is returned, in words, and its tests are ignored.
pub(crate) fn install() -> Option<String> {
    let is_there = || step::is_there("/usr/bin/runsc", &["--version"]);
    if is_there() || (step::install_debian("runsc") && is_there()) {
        return None;
    }
    Some("the tests of the gVisor backend: there is no `/usr/bin/runsc` (Debian: runsc)".to_owned())
}

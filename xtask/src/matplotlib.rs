//! Matplotlib for the host's Python, which the tests of plots need.

use crate::step;

/// Installs it where this machine and user may. Where it is not to be had, that is returned, in words, and its tests are ignored.
pub(crate) fn install() -> Option<String> {
    let is_there = || step::is_there("/usr/bin/python3", &["-I", "-c", "import matplotlib"]);
    if is_there() || (step::install_debian("python3-matplotlib") && is_there()) {
        return None;
    }
    Some("the test of a plot: `/usr/bin/python3` has no matplotlib (Debian: python3-matplotlib)".to_owned())
}

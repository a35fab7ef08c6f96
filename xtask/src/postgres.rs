//! PostgreSQL's server, which the tests of its tools need. Each of them starts one of its own.

use std::path::Path;

use crate::step;

/// Installs it where this machine and user may. Where it is not to be had, that is returned, in words, and its tests are ignored.
pub(crate) fn install() -> Option<String> {
    if is_there() || (step::install_debian("postgresql") && is_there()) {
        return None;
    }
    Some(
        "the tests of PostgreSQL tools: there is no `/usr/lib/postgresql/*/bin/initdb` (Debian: postgresql)"
            .to_owned(),
    )
}

fn is_there() -> bool {
    let versions = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin/initdb")).any(|initdb| initdb.is_file())
}

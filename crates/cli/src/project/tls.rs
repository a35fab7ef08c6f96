//! The three files by which a gateway and a sandbox host know each other.

use std::path::{Path, PathBuf};

use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem, Secret};
use ringfence_sandbox::remote::{TlsFault, TlsPart, TlsTexts};

use crate::private_file::PrivateFile;

/// Where they are.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    ca: Named,
    certificate: Named,
    key: Named,
}

/// A file, and where it is named.
#[derive(Clone)]
struct Named {
    place: Place,
    path: PathBuf,
}

/// What is in them.
pub(crate) struct TlsContents {
    ca: String,
    certificate: String,
    key: Secret,
}

impl TlsContents {
    pub(crate) fn texts(&self) -> TlsTexts<'_> {
        TlsTexts { ca: &self.ca, certificate: &self.certificate, key: self.key.expose() }
    }
}

impl TlsFiles {
    /// Takes `ca`, `certificate` and `key`.
    pub(super) fn read(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut named = |key| {
            let name = table.require::<String>(key, problems)?;
            Some(Named { place: table.place_of(&name), path: folder.join(name.into_inner()) })
        };
        let (ca, certificate, key) = (named("ca"), named("certificate"), named("key"));
        Some(Self { ca: ca?, certificate: certificate?, key: key? })
    }

    /// Reads all of them; each that cannot be read is a problem.
    pub(crate) fn contents(&self, problems: &mut Vec<Problem>) -> Option<TlsContents> {
        let ca = text(&self.ca, problems);
        let certificate = text(&self.certificate, problems);
        let key = match PrivateFile::read(&self.key.path) {
            Ok(Some(key)) => Some(key),
            Ok(None) => {
                missing(&self.key, "it does not exist", problems);
                None
            }
            Err(refused) => {
                let said = refused.to_string();
                let (what, instead) =
                    said.split_once("; ").unwrap_or((&said, "make it readable for this user alone"));
                problems.push(Problem::error(self.key.place.clone(), what, instead));
                None
            }
        };
        Some(TlsContents { ca: ca?, certificate: certificate?, key: key? })
    }

    /// The problem that a fault in one of them is; `name` is where a name stands that it may be about.
    pub(crate) fn problem(&self, fault: &TlsFault, name: &Place) -> Problem {
        let named = match fault.part {
            TlsPart::Ca => &self.ca,
            TlsPart::Certificate => &self.certificate,
            TlsPart::Key => &self.key,
            TlsPart::Name => return Problem::error(name.clone(), fault.what.clone(), fault.instead),
        };
        let what = format!("`{}` cannot be used: {}", named.path.display(), fault.what);
        Problem::error(named.place.clone(), what, fault.instead)
    }
}

fn text(named: &Named, problems: &mut Vec<Problem>) -> Option<String> {
    let read = std::fs::read_to_string(&named.path);
    if let Err(error) = &read {
        missing(named, &error.to_string(), problems);
    }
    read.ok()
}

fn missing(named: &Named, why: &str, problems: &mut Vec<Problem>) {
    let what = format!("`{}` cannot be read: {why}", named.path.display());
    let instead = "name the file; `ringfence sandbox-host keys DIR` makes a set";
    problems.push(Problem::error(named.place.clone(), what, instead));
}

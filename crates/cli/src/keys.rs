//! The key files of a project: made when they are first needed, in the journal's folder.

use std::path::{Path, PathBuf};

use ringfence_core::Secret;

use crate::failure::Failure;
use crate::private_file::PrivateFile;
use crate::project::Project;

pub(crate) fn issuer_key_file(project: &Project) -> PathBuf {
    project.journal.folder.join("issuer.key")
}

pub(crate) fn journal_key_file(project: &Project) -> PathBuf {
    project.journal.folder.join("journal.key")
}

/// The key of the development issuer.
pub(crate) fn issuer_key(project: &Project) -> Result<Secret, Failure> {
    read_or_make(&issuer_key_file(project), ringfence_identity::development::new_key)
}

/// The key that signs the journal's heads.
pub(crate) fn journal_key(project: &Project) -> Result<Secret, Failure> {
    read_or_make(&journal_key_file(project), ringfence_store::new_key)
}

fn read_or_make(path: &Path, new: fn() -> Option<Secret>) -> Result<Secret, Failure> {
    make_folder(path)?;
    PrivateFile::read_or_create(path, new).map_err(Failure::of)
}

/// The folder of the keys: for its owner alone.
fn make_folder(file: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let Some(folder) = file.parent() else { return Ok(()) };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| {
        Failure::new(
            format!("folder `{}` cannot be made: {error}", folder.display()),
            "make it writable for this user",
        )
    })
}

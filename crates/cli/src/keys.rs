//! The key files of a project: made when they are first needed, in the journal's folder.

use std::path::{Path, PathBuf};

use ringfence_core::Secret;
use ringfence_identity::development;
use ringfence_store::HeadKey;

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
    issuer_key_is_sound(project)?;
    make_folder(&issuer_key_file(project))?;
    PrivateFile::read_or_create(&issuer_key_file(project), development::new_key).map_err(Failure::of)
}

/// The key that signs the journal's heads. It is made together with the journal, and never again.
pub(crate) fn journal_key(project: &Project) -> Result<Secret, Failure> {
    journal_key_is_there_or_not_needed(project)?;
    make_folder(&journal_key_file(project))?;
    PrivateFile::read_or_create(&journal_key_file(project), ringfence_store::new_key).map_err(Failure::of)
}

/// Fails where the issuer's key file holds something else.
pub(crate) fn issuer_key_is_sound(project: &Project) -> Result<(), Failure> {
    let file = issuer_key_file(project);
    match PrivateFile::read(&file).map_err(Failure::of)? {
        Some(key) if !development::is_key(&key) => {
            Err(no_key(&file, "move the file away: a new key is made, and tokens that were given out end"))
        }
        _ => Ok(()),
    }
}

/// Fails where the journal's key file holds something else, or is gone although it signed a head: a new key could neither
/// prove nor continue what the old one signed.
pub(crate) fn journal_key_is_there_or_not_needed(project: &Project) -> Result<(), Failure> {
    let file = journal_key_file(project);
    let instead = "put the right file back; without it, move `journal.db` and the head away and keep them, to start a new journal";
    match PrivateFile::read(&file).map_err(Failure::of)? {
        Some(key) if HeadKey::new(&key).is_err() => Err(no_key(&file, instead)),
        Some(_) => Ok(()),
        None => match [project.journal.folder.join("journal.db"), project.journal.head.clone()]
            .into_iter()
            .find(|signed| signed.exists())
        {
            Some(signed) => {
                let what = format!(
                    "the journal's key `{}` is gone, and `{}`, which it signed, is there",
                    file.display(),
                    signed.display()
                );
                Err(Failure::new(what, instead))
            }
            None => Ok(()),
        },
    }
}

fn no_key(file: &Path, instead: &str) -> Failure {
    Failure::new(format!("key file `{}` holds no key", file.display()), instead)
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

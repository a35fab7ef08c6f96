//! Files with keys or tokens: made for their owner alone, and refused where others can read them.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use ringfence_core::Secret;
use tempfile::NamedTempFile;

/// A file that its owner alone can read.
pub(crate) struct PrivateFile;

/// Such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivateFileRefused {
    /// Others than its owner may read or write it.
    #[error(
        "file `{path}` has mode {mode:03o}: others could read it; run `chmod 600 {path}`, and replace the key in it if they may have"
    )]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user, who could change it.
    #[error(
        "file `{path}` belongs to another user; run `chown $(id -u) {path}`, and replace the key if they may have read it"
    )]
    Owner {
        /// The file.
        path: String,
    },
    /// It cannot be read or written.
    #[error("file `{path}` cannot be used: {reason}")]
    Unusable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
}

/// Whether a file of this user can be believed by this process: its own, or root's.
fn is_ours(uid: u32) -> bool {
    uid == 0 || rustix::process::geteuid().as_raw() == uid
}

impl PrivateFile {
    /// Reads the file; `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Secret>, PrivateFileRefused> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(path, &error)),
        };
        // Asked of the open file, so that what was checked is what is read.
        let metadata = file.metadata().map_err(|error| unusable(path, &error))?;
        let mode = metadata.mode() & 0o777;
        if !is_ours(metadata.uid()) {
            return Err(PrivateFileRefused::Owner { path: path.display().to_string() });
        }
        if mode & 0o077 != 0 {
            return Err(PrivateFileRefused::Mode { path: path.display().to_string(), mode });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| unusable(path, &error))?;
        Ok(Some(Secret::new(text)))
    }

    /// Puts this in the file's place, whole: who reads it at the same time gets the old text or the new one.
    pub(crate) fn replace(path: &Path, secret: &Secret) -> Result<(), PrivateFileRefused> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let replaced = || {
            // For its owner alone from the start.
            let mut draft = NamedTempFile::new_in(folder)?;
            draft.write_all(secret.expose().as_bytes())?;
            draft.as_file().sync_all()?;
            draft.persist(path).map_err(|error| error.error)?;
            File::open(folder)?.sync_all()
        };
        replaced().map_err(|error: std::io::Error| unusable(path, &error))
    }

    /// Reads the file, or makes it out of a new secret. Of two processes that make it at once, one wins and both get the same.
    pub(crate) fn read_or_create(
        path: &Path,
        new: impl FnOnce() -> Option<Secret>,
    ) -> Result<Secret, PrivateFileRefused> {
        if let Some(found) = Self::read(path)? {
            return Ok(found);
        }
        let no_key = || PrivateFileRefused::Unusable {
            path: path.display().to_string(),
            reason: "no key could be made".into(),
        };
        let secret = new().ok_or_else(no_key)?;
        // Written whole under another name first: a key file is either all there or not there.
        let draft = path.with_extension(format!("new-{}", std::process::id()));
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
                file.write_all(secret.expose().as_bytes())?;
                file.sync_all()
            });
        let linked = written.and_then(|()| std::fs::hard_link(&draft, path));
        let _gone = std::fs::remove_file(&draft);
        match linked {
            Ok(()) => Ok(secret),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Self::read(path)?.ok_or_else(no_key)
            }
            Err(error) => Err(unusable(path, &error)),
        }
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> PrivateFileRefused {
    PrivateFileRefused::Unusable { path: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let made = PrivateFile::read_or_create(&path, || Some(Secret::new("k1".into()))).ok().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = PrivateFile::read_or_create(&path, || Some(Secret::new("k2".into()))).ok().unwrap();
        assert_eq!((made.expose(), again.expose()), ("k1", "k1"));
        PrivateFile::replace(&path, &Secret::new("k3".into())).unwrap();
        assert_eq!(PrivateFile::read(&path).ok().flatten().unwrap().expose(), "k3");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = PrivateFile::read(&path).err().unwrap().to_string();
        assert!(refused.contains("mode 640") && refused.contains("chmod 600"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-written stays behind");
    }
}

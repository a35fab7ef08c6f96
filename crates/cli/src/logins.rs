//! Where a user's logins are: a file for each gateway, for the user alone, below `$XDG_STATE_HOME`.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_core::Digest;
use ringfence_identity::native::Login;

use crate::failure::Failure;
use crate::private_file::PrivateFile;

/// How long another program of the user may take to renew a login.
const LOCK_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether it is done.
const LOCK_EVERY: Duration = Duration::from_millis(20);

/// The login of this user at one gateway.
pub(crate) struct LoginFile {
    resource: String,
    path: PathBuf,
}

/// While this is held, no other program of the user renews or deletes the login.
#[must_use]
pub(crate) struct Locked {
    _file: File,
}

impl LoginFile {
    /// The file for the gateway whose `/mcp` has this address. Its folder is made.
    pub(crate) fn of(resource: &str) -> Result<Self, Failure> {
        let folder = folder()?;
        let failed = |error: std::io::Error| {
            let help = "make it writable for this user, or set XDG_STATE_HOME to another folder";
            Failure::new(format!("logins cannot be kept in `{}`: {error}", folder.display()), help)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let metadata = std::fs::metadata(&folder).map_err(failed)?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 || metadata.uid() != rustix::process::geteuid().as_raw() {
            let what = format!("others than this user can get into `{}` (mode {mode:03o})", folder.display());
            return Err(Failure::new(what, format!("run `chmod 700 {}` as this user", folder.display())));
        }
        let name = format!("{}.json", Digest::of(&[resource.as_bytes()]));
        Ok(Self { resource: resource.to_owned(), path: folder.join(name) })
    }

    /// The login; `None` where there is none.
    pub(crate) fn read(&self) -> Result<Option<Login>, Failure> {
        let Some(text) = PrivateFile::read(&self.path).map_err(Failure::of)? else { return Ok(None) };
        let login = Login::from_text(&text).filter(|login| login.resource() == self.resource);
        let broken = || {
            let what = format!("the login in `{}` cannot be read", self.path.display());
            Failure::new(what, "delete the file, and log in again")
        };
        login.map(Some).ok_or_else(broken)
    }

    /// Keeps a login in place of the one that is there.
    pub(crate) fn keep(&self, login: &Login) -> Result<(), Failure> {
        let text = login.to_text().ok_or_else(|| Failure::new("the login cannot be written down", ""))?;
        PrivateFile::replace(&self.path, &text).map_err(Failure::of)
    }

    /// Deletes the login.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        let failed =
            |error| Failure::new(format!("`{}` cannot be deleted: {error}", self.path.display()), "");
        std::fs::remove_file(&self.path).map_err(failed)
    }

    /// Waits until no other program of the user is at it.
    pub(crate) async fn lock(&self) -> Result<Locked, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let what = format!("the login in `{}` cannot be locked: {error}", self.path.display());
            Failure::new(what, "look which other `ringfence` of this user hangs")
        };
        let path = self.path.with_extension("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = file.map_err(|error| failed(&error))?;
        let trying = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_EVERY).await,
                    Err(TryLockError::Error(error)) => return Err(failed(&error)),
                }
            }
        };
        let late = |_| failed(&format!("another program has it for longer than {} s", LOCK_MAX.as_secs()));
        tokio::time::timeout(LOCK_MAX, trying).await.map_err(late)??;
        Ok(Locked { _file: file })
    }

    /// The file itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// `$XDG_STATE_HOME`, where it is absolute (XDG Base Directory Specification), or `~/.local/state`.
fn folder() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let nowhere = || Failure::new("this user has no folder of its own", "set HOME or XDG_STATE_HOME");
    state.map(|state| state.join("ringfence/logins")).ok_or_else(nowhere)
}

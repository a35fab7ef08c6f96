//! The file of the signed head: replaced as a whole, and never by an older one.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Head, HeadKey};

/// How often another process that replaces the head is waited for, and how long each time.
const TRIES: u32 = 500;
const WAIT: Duration = Duration::from_millis(10);

pub(crate) struct HeadFile {
    path: PathBuf,
    /// Held while the head is compared and replaced: several processes may have the journal open.
    lock: File,
}

impl HeadFile {
    /// The head at `path`, of the journal in `folder`.
    pub(crate) fn new(path: PathBuf, folder: &Path) -> std::io::Result<Self> {
        Ok(Self { path, lock: File::create(folder.join("head.lock"))? })
    }

    /// Signs the head and puts it in place, unless one that covers as much or more is there already.
    pub(crate) fn raise(&self, key: &HeadKey, head: &Head) -> std::io::Result<()> {
        self.lock()?;
        let raised = self.raise_locked(key, head);
        self.lock.unlock()?;
        raised
    }

    fn lock(&self) -> std::io::Result<()> {
        for _ in 0..TRIES {
            match self.lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(WAIT),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "another process holds the head"))
    }

    fn raise_locked(&self, key: &HeadKey, head: &Head) -> std::io::Result<()> {
        match std::fs::read_to_string(&self.path) {
            Ok(note) => match key.open(&note) {
                Ok(stands) if stands.entries > head.entries || stands == *head => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "the head was changed by someone else; it is put right");
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, "the head cannot be read; it is put right"),
        }
        write(&self.path, &key.sign(head))
    }
}

/// Replaces the head as a whole: a reader sees the old one or the new one.
fn write(path: &Path, note: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::Builder::new().prefix(".journal.head-").tempfile_in(folder)?;
    draft.write_all(note.as_bytes())?;
    draft.as_file().sync_data()?;
    draft.persist(path).map(drop).map_err(|error| error.error)
}

//! What a program left in `/artifacts`: collected when everything in the sandbox is dead, through the one descriptor of that
//! folder, regular files alone, counted and capped. Nothing in it is followed, and nothing of it is executed.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use crate::profile::Limits;
use crate::{Artifact, LeftOut};

/// Folders below folders that are looked into.
const DEPTH_MAX: usize = 8;
/// Entries of any kind that are looked at.
const ENTRIES_MAX: usize = 4096;
/// Entries that are named as left out.
const LEFT_OUT_MAX: usize = 32;

/// What was there.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) left_out: Vec<LeftOut>,
}

struct Collecting<'a> {
    limits: &'a Limits,
    into: Collected,
    bytes: u64,
    entries: usize,
}

/// Takes all files that may be taken, in the order of their names.
pub(crate) fn collect(folder: &OwnedFd, limits: &Limits) -> Collected {
    let mut collecting = Collecting { limits, into: Collected::default(), bytes: 0, entries: 0 };
    collecting.folder(folder.as_fd(), "", 0);
    collecting.into
}

impl Collecting<'_> {
    fn folder(&mut self, folder: impl AsFd, prefix: &str, depth: usize) {
        let Ok(entries) = Dir::read_from(&folder) else { return };
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                self.leave_out(prefix.to_owned(), "there are too many entries");
                break;
            }
            names.push(name.to_vec());
        }
        names.sort();
        for name in names {
            let Ok(text) = std::str::from_utf8(&name) else {
                self.leave_out(format!("{prefix}{}", shown(&name)), "its name is not UTF-8");
                continue;
            };
            if text.chars().any(char::is_control) {
                self.leave_out(format!("{prefix}{}", shown(&name)), "its name has control characters");
                continue;
            }
            self.entry(&folder, text, format!("{prefix}{text}"), depth);
        }
    }

    fn entry(&mut self, folder: impl AsFd, name: &str, path: String, depth: usize) {
        // Opened without a follow of any kind, and without a wait where it is a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let opened = match openat2(&folder, name, flags, Mode::empty(), resolve) {
            // The sentry of gVisor has no such call; in it, a single name that is not followed leads nowhere else either.
            Err(Errno::NOSYS) => openat(&folder, name, flags, Mode::empty()),
            opened => opened,
        };
        let Ok(opened) = opened else {
            return self.leave_out(path, "it is neither a file nor a folder, or cannot be read");
        };
        let Ok(found) = fstat(&opened) else { return self.leave_out(path, "it cannot be read") };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory if depth < DEPTH_MAX => self.folder(opened, &format!("{path}/"), depth + 1),
            FileType::Directory => self.leave_out(path, "its folder is too deep"),
            FileType::RegularFile => {
                self.file(opened, path, u64::try_from(found.st_size).unwrap_or(u64::MAX));
            }
            _ => self.leave_out(path, "it is neither a file nor a folder"),
        }
    }

    fn file(&mut self, opened: OwnedFd, name: String, size: u64) {
        if self.into.artifacts.len() as u64 >= self.limits.artifact_files {
            return self.leave_out(name, "there are too many files");
        }
        let left = self.limits.artifact_bytes.saturating_sub(self.bytes);
        if size > left {
            return self.leave_out(name, "it is too large");
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::from(opened).take(left).read_to_end(&mut bytes);
        if read.is_err() {
            return self.leave_out(name, "it cannot be read");
        }
        self.bytes += bytes.len() as u64;
        self.into.artifacts.push(Artifact { name, mime_type: mime_type(&bytes).to_owned(), bytes });
    }

    fn leave_out(&mut self, name: String, why: &str) {
        if self.into.left_out.len() < LEFT_OUT_MAX {
            self.into.left_out.push(LeftOut { name, why: why.to_owned() });
        }
    }
}

/// Artifacts that somebody hands out who is not believed: capped and checked as they come.
pub(crate) struct Received<'a> {
    collecting: Collecting<'a>,
    /// The one that is coming.
    coming: Option<(String, Vec<u8>)>,
    /// Bytes that may still come, of which too many end it.
    rest: u64,
}

impl<'a> Received<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        let collecting = Collecting { limits, into: Collected::default(), bytes: 0, entries: 0 };
        Self { collecting, coming: None, rest: limits.artifact_bytes }
    }

    /// Another one begins.
    pub(crate) fn begin(&mut self, name: String) {
        self.take();
        self.collecting.entries += 1;
        let is_plain = name.split('/').all(|part| !["", ".", ".."].contains(&part));
        if !is_plain || name.chars().any(char::is_control) {
            return self.leave_out(&name, "its name is not plain");
        }
        self.coming = Some((name, Vec::new()));
    }

    /// More of it; none once there is too much of it all.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest = self.rest.checked_sub(bytes.len() as u64)?;
        if let Some((_, coming)) = &mut self.coming {
            coming.extend_from_slice(bytes);
        }
        Some(())
    }

    pub(crate) fn leave_out(&mut self, name: &str, why: &str) {
        self.collecting.leave_out(shown(name.as_bytes()), &shown(why.as_bytes()));
    }

    /// What was coming does not come any more.
    pub(crate) fn break_off(&mut self, why: &str) {
        let name = self.coming.take().map_or_else(|| ".".to_owned(), |(name, _)| name);
        self.leave_out(&name, why);
    }

    /// Once all has come.
    pub(crate) fn finish(mut self) -> Collected {
        self.take();
        self.collecting.into
    }

    fn take(&mut self) {
        let Some((name, bytes)) = self.coming.take() else { return };
        let into = &mut self.collecting.into;
        if into.artifacts.len() as u64 >= self.collecting.limits.artifact_files {
            return self.collecting.leave_out(name, "there are too many files");
        }
        into.artifacts.push(Artifact { mime_type: mime_type(&bytes).to_owned(), name, bytes });
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

/// What a file is, by its first bytes. Its name says nothing: it is the program's word.
fn mime_type(bytes: &[u8]) -> &'static str {
    match infer::get(bytes) {
        Some(found) => found.mime_type(),
        None if std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0')) => "text/plain",
        None => "application/octet-stream",
    }
}

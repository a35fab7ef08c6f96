//! Files that the kernel writes as they are read, and that tell no size: in one or two calls, where the standard library, which
//! does not know how much comes, takes ten.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, read, retry_on_intr};

/// The whole text of a file below a folder in `/proc` or of a cgroup.
pub(crate) fn text(folder: impl AsFd, name: &str) -> Result<String, Errno> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = retry_on_intr(|| read(&file, &mut buffer))?;
        if count == 0 {
            return String::from_utf8(text).map_err(|_| Errno::ILSEQ);
        }
        text.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
}

//! What the gateway and the jail say to one another. Both are on one machine and of one build, and every message is a packet
//! of its own, with the descriptors that go along.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::filter;
use crate::profile::Fault;
use crate::{Ended, Language, Layer, Limits, Profile, Refused, Resources, Root, Start};

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 160 << 10;
/// The most descriptors in one message.
const DESCRIPTORS_MAX: usize = 16;

/// What all sandboxes of one nursery are. Said once, first of all.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Settings {
    pub(crate) language: Language,
    pub(crate) root: Root,
    pub(crate) limits: Limits,
    pub(crate) resources: Resources,
    pub(crate) landlock_abi_min: u32,
    pub(crate) start: Start,
    pub(crate) preload: Vec<String>,
    pub(crate) layers: BTreeSet<Layer>,
    pub(crate) environment: BTreeMap<String, String>,
    /// Whether there is a way out, by sockets that are handed out.
    pub(crate) egress: bool,
    pub(crate) fault: Option<(Layer, Fault)>,
    /// Names the nursery on this machine, and every cgroup of its sandboxes.
    pub(crate) name: String,
    /// The first of the users of the host that its sandboxes get, and how many there are.
    pub(crate) host_uids: (u32, u32),
}

impl Settings {
    pub(crate) fn new(profile: &Profile, name: String, host_uids: (u32, u32)) -> Self {
        Self {
            language: profile.language,
            root: profile.root.clone(),
            limits: profile.limits.clone(),
            resources: profile.resources,
            landlock_abi_min: profile.landlock_abi_min,
            start: profile.start,
            preload: profile.preload.clone(),
            layers: profile.layers().clone(),
            environment: profile.environment.clone(),
            egress: profile.egress.is_some(),
            fault: profile.fault,
            name,
            host_uids,
        }
    }

    /// Whether a layer is to be put up here. One that a test makes fail is refused, or left out without a word.
    pub(crate) fn wants(&self, layer: Layer) -> Result<bool, Refused> {
        match self.fault {
            Some((faulty, Fault::Refused)) if faulty == layer => {
                Err(Refused::new(layer.as_str(), "a test makes it fail"))
            }
            Some((faulty, Fault::Skipped)) if faulty == layer => Ok(false),
            _ => Ok(self.has(layer)),
        }
    }

    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    /// What its filter depends on.
    pub(crate) fn filter(&self) -> filter::Kind {
        filter::Kind { resources: self.resources, egress: self.egress }
    }

    /// Whether an interpreter with its modules waits to be forked.
    pub(crate) fn forks(&self) -> bool {
        self.language == Language::Python && self.start == Start::Fork
    }

    /// Whether the interpreter is started before its program is there.
    pub(crate) fn starts_early(&self) -> bool {
        self.language == Language::Python && self.start == Start::Exec
    }
}

/// From the gateway to the nursery.
#[derive(Deserialize, Serialize)]
pub(crate) enum Order {
    /// Build a sandbox. With it: its end of the words, and, where it starts its interpreter itself, what that gets as standard
    /// output, standard error and control.
    Build { number: u64 },
}

/// From the nursery to the gateway.
#[derive(Deserialize, Serialize)]
pub(crate) enum News {
    /// It takes orders.
    Up,
    /// It cannot be, and is gone.
    Down(Refused),
    /// A sandbox has its first process. With it: a handle on that process.
    Born { number: u64, host_uid: u32 },
    /// A sandbox could not be begun.
    NotBorn { number: u64, refused: Refused },
    /// A sandbox's first process has ended, and all others of it with it.
    Gone { number: u64, cpu_us: u64, memory_peak_bytes: u64 },
}

/// From a sandbox's first process to the gateway.
#[derive(Deserialize, Serialize)]
pub(crate) enum Word {
    Refused(Refused),
    /// It is confined. With it: the folder of artifacts; its namespaces; where there is a way out, the sockets that listen in it;
    /// where an interpreter is to be forked into them, its Landlock rules.
    Ready {
        landlock_abi: u32,
    },
    /// The interpreter is started. With it: a handle on it.
    Started,
    /// Nobody inside may look into it any more.
    Hidden,
    /// The files are written.
    Written,
    /// The interpreter has ended.
    Ended {
        ended: Ended,
    },
}

/// From the gateway to a sandbox's first process.
#[derive(Deserialize, Serialize)]
pub(crate) enum Command {
    /// It was looked at from outside: from now on show yourself to nobody.
    Hide,
    /// Write these files, which stand in the memory that comes along, one after the other.
    Write { files: Vec<(String, u64)> },
    /// The program runs, or may: from now on only wait for it.
    Start,
}

/// Sends one message.
pub(crate) fn send(
    to: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_bytes(to, &serde_json::to_vec(message)?, descriptors)
}

/// Sends one packet.
pub(crate) fn send_bytes(to: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = rustix::io::retry_on_intr(|| sendmsg(&to, &[IoSlice::new(bytes)], &mut ancillary, flags))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one packet; none where the other side is gone.
pub(crate) fn receive_bytes(from: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    // As much room as the message needs and no more: each page that is touched is copied where a process has forked.
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, length) = rustix::io::retry_on_intr(|| recv(&from, &mut [0; 0], flags))?;
    let mut bytes = vec![0; length.min(MESSAGE_BYTES_MAX)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message was too long"));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some((bytes, descriptors)))
}

/// Receives one message; none where the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(from: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((bytes, descriptors)) = receive_bytes(from)? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&bytes)?, descriptors)))
}

//! What the gateway tells the jail, and what the jail answers. Both are on one machine and of one build.

use std::collections::BTreeSet;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::{Ended, InputFile, Language, Layer, Limits, Profile, Program, Receipt, Refused, Resources};

/// The longest orders that are read, in bytes.
const ORDERS_BYTES_MAX: u64 = 256 << 20;

/// What to run, and in what.
#[derive(Deserialize, Serialize)]
pub(crate) struct Orders {
    pub(crate) language: Language,
    pub(crate) limits: Limits,
    pub(crate) resources: Resources,
    pub(crate) landlock_abi_min: u32,
    pub(crate) layers: BTreeSet<Layer>,
    pub(crate) source: String,
    pub(crate) files: Vec<InputFile>,
    /// Names the run on this machine.
    pub(crate) name: String,
    pub(crate) host_uid: u32,
}

/// What came of it.
#[derive(Deserialize, Serialize)]
pub(crate) enum Report {
    Refused(Refused),
    Done { ended: Ended, receipt: Receipt },
}

/// So that a name is not met again by a gateway that has the same process id after a crash, as the first of a container has.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the name is only less unlike others.
    let _filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

impl Orders {
    pub(crate) fn new(profile: &Profile, program: Program, number: u32, host_uid: u32) -> Self {
        Self {
            language: profile.language,
            limits: profile.limits.clone(),
            resources: profile.resources,
            landlock_abi_min: profile.landlock_abi_min,
            layers: profile.layers().clone(),
            source: program.source,
            files: program.files,
            name: format!("ringfence-{}-{number}-{:08x}", std::process::id(), random()),
            host_uid,
        }
    }

    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    /// The length, then JSON: the writer keeps its side open, since closing it means *stop*.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = (json.len() as u64).to_be_bytes().to_vec();
        bytes.extend(json);
        bytes
    }

    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 8];
        from.read_exact(&mut length)?;
        let length = u64::from_be_bytes(length);
        if length > ORDERS_BYTES_MAX {
            return Err(io::Error::other("the orders are too long"));
        }
        let mut json = Vec::new();
        from.take(length).read_to_end(&mut json)?;
        serde_json::from_slice(&json).map_err(io::Error::other)
    }
}

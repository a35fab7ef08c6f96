//! Limits of each process, no privileges, Landlock.

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

use super::orders::Orders;
use super::root::Place;
use crate::sys::{self, LandlockRuleset};
use crate::{Refused, Resources};

/// Limits that each process has to itself. Hard limits are only ever lowered.
pub(super) fn limit(orders: &Orders) -> Result<(), Refused> {
    let limits = &orders.limits;
    let seconds = limits.wall.as_secs() + 1;
    let mut wanted = vec![
        // 1 and not 0: a pipe in `core_pattern` runs as root on the host, and only 1 keeps it from running (fs/coredump.c).
        (Resource::Core, 1),
        (Resource::Cpu, seconds * limits.cpu_millicores.div_ceil(1000)),
        (Resource::Fsize, limits.work_bytes),
        (Resource::Nofile, 4096),
        (Resource::Nproc, limits.processes + 1),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    if orders.resources == Resources::RlimitsOnly {
        wanted.push((Resource::As, limits.memory_bytes));
    }
    wanted.into_iter().try_for_each(|(resource, most)| {
        let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| Refused::new("limits", format!("{resource:?}: {error}")))
    })
}

/// No capability in any set, none to be had by executing anything, for good.
pub(super) fn give_up_privileges() -> Result<(), Refused> {
    let layer = |error: rustix::io::Errno| Refused::new("no_privileges", error);
    for capability in CapabilitySet::all() {
        match remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(layer(error)),
        }
    }
    clear_ambient_capability_set().map_err(layer)?;
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(locked).map_err(layer)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(layer)?;
    set_no_new_privs(true).map_err(layer)
}

// Access rights of `include/uapi/linux/landlock.h`.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// All rights that version 1 knows.
const FILES_V1: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
/// Binding and connecting TCP sockets.
const NETWORK: u64 = 3;
/// Abstract sockets and signals of processes outside.
const SCOPES: u64 = 3;

/// Landlock with everything that this kernel's version can deny; returns that version.
pub(super) fn landlock(abi_min: u32, place: &Place) -> Result<u32, Refused> {
    let layer = |error: &dyn std::fmt::Display| Refused::new("landlock", error);
    let abi = sys::landlock_abi().map_err(|error| layer(&error))?;
    if abi < abi_min {
        return Err(layer(&format!("this kernel has ABI {abi}, and {abi_min} is needed")));
    }
    let since = |version: u32, rights: u64| if abi >= version { rights } else { 0 };
    let ruleset = LandlockRuleset {
        handled_files: FILES_V1 | since(2, REFER) | since(3, TRUNCATE) | since(5, IOCTL_DEV),
        handled_network: since(4, NETWORK),
        scoped: since(6, SCOPES),
    };
    let size = if abi >= 6 {
        24
    } else if abi >= 4 {
        16
    } else {
        8
    };
    let rules = sys::landlock_create(&ruleset, size).map_err(|error| layer(&error))?;
    let allow = |path: &str, rights: u64| {
        let Ok(opened) = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { return Ok(()) };
        let is_folder = std::fs::metadata(path).is_ok_and(|found| found.is_dir());
        let of_files = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
        let rights = if is_folder { rights } else { rights & of_files };
        sys::landlock_allow(&rules, &opened, rights & ruleset.handled_files)
            .map_err(|error| layer(&format!("{path}: {error}")))
    };
    place.readable.iter().try_for_each(|path| allow(path, EXECUTE | READ_FILE | READ_DIR))?;
    place.writable.iter().try_for_each(|path| allow(path, ruleset.handled_files & !IOCTL_DEV))?;
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        allow(device, READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV)?;
    }
    sys::landlock_restrict(&rules).map_err(|error| layer(&error))?;
    Ok(abi)
}

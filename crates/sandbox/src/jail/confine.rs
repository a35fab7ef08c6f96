//! Limits of each process, no privileges, Landlock.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

use super::orders::Settings;
use super::root::Place;
use crate::sys::{self, LandlockRuleset};
use crate::{Refused, Resources};

/// What each process may have at the most, by itself.
fn wanted(settings: &Settings) -> Vec<(Resource, u64)> {
    let limits = &settings.limits;
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
    if settings.resources == Resources::RlimitsOnly {
        wanted.push((Resource::As, limits.memory_bytes));
    }
    // Hard limits are only ever lowered.
    wanted
        .into_iter()
        .map(|(resource, most)| (resource, getrlimit(resource).maximum.map_or(most, |hard| hard.min(most))))
        .collect()
}

/// The most files that a program may have open.
pub(super) fn open_files(settings: &Settings) -> u64 {
    wanted(settings)
        .into_iter()
        .find_map(|(resource, most)| (resource == Resource::Nofile).then_some(most))
        .unwrap_or(0)
}

/// As many open files as this process may have. The kernel counts descriptors on their way by user of the host, and holds
/// against a sender all that its user has sent (`net/core/scm.c`): where sandboxes are one user's, who builds them must have
/// more than a program can keep on their way.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _only_as_many =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Limits that each process has to itself, but for open files: a first process hands descriptors out, and a program gets
/// that limit when it starts.
pub(super) fn limit(settings: &Settings) -> Result<(), Refused> {
    wanted(settings).into_iter().filter(|(resource, _)| *resource != Resource::Nofile).try_for_each(
        |(resource, most)| {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            setrlimit(resource, limit)
                .map_err(|error| Refused::new("limits", format!("{resource:?}: {error}")))
        },
    )
}

/// The same limits, by the kernel's numbers for them, for an interpreter that sets them itself.
pub(super) fn limits(settings: &Settings) -> Vec<(u32, u64)> {
    wanted(settings).into_iter().map(|(resource, most)| (resource as u32, most)).collect()
}

/// Of root's rights the one to enter namespaces; what is not in the bounding set, no program gets that is executed.
pub(super) fn keep_only_the_right_to_enter() -> Result<(), Refused> {
    empty_bounding_set(CapabilitySet::SYS_ADMIN)
}

fn empty_bounding_set(kept: CapabilitySet) -> Result<(), Refused> {
    for capability in CapabilitySet::all().difference(kept) {
        match remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(Refused::new("no_privileges", error)),
        }
    }
    Ok(())
}

/// What root may do that others may not, it may not here either.
pub(super) const SECURE_BITS: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);

/// No capability in any set, none to be had by executing anything, for good.
pub(super) fn give_up_privileges() -> Result<(), Refused> {
    let layer = |error: rustix::io::Errno| Refused::new("no_privileges", error);
    empty_bounding_set(CapabilitySet::empty())?;
    clear_ambient_capability_set().map_err(layer)?;
    set_capabilities_secure_bits(SECURE_BITS).map_err(layer)?;
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
const MAKE_REG: u64 = 1 << 8;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// All rights that version 1 knows.
const FILES_V1: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
/// Binding and connecting TCP sockets.
const NETWORK: u64 = 3;
const CONNECT: u64 = 2;
/// Abstract sockets and signals of processes outside.
const SCOPES: u64 = 3;

/// Landlock with everything that this kernel's version can deny; returns that version, and the rules.
pub(super) fn landlock(abi_min: u32, place: &Place, ports: &[u16]) -> Result<(u32, OwnedFd), Refused> {
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
    if abi >= 4 {
        ports
            .iter()
            .try_for_each(|port| sys::landlock_allow_port(&rules, *port, CONNECT))
            .map_err(|error| layer(&error))?;
    }
    let files = WRITE_FILE | MAKE_REG;
    sys::landlock_allow(&rules, &place.given, files).map_err(|error| layer(&error))?;
    sys::landlock_restrict(&rules).map_err(|error| layer(&error))?;
    Ok((abi, rules))
}

//! What this machine can do, so that `init` and `demo` can write the strongest profile and say what it is.

use serde::Serialize;

use crate::process::cgroup;
use crate::{Language, Profile, Refused, Resources, Start, sys};

/// What this machine gives to this user.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// The newest Landlock ABI; 0 where there is none.
    pub landlock_abi: u32,
    /// Who counts resources in cgroups that this user can make: `cgroup-v2` or `cgroup-v1`.
    pub cgroup: Option<&'static str>,
}

/// Looks at the machine.
#[must_use]
pub fn probe() -> Machine {
    Machine { landlock_abi: sys::landlock_abi().unwrap_or(0), cgroup: cgroup::available() }
}

/// The strongest profile for this machine and user. What it names is still checked at each run.
pub fn strongest(language: Language) -> Result<Profile, Refused> {
    let machine = probe();
    let mut profile = Profile::new(language);
    if machine.landlock_abi < profile.landlock_abi_min {
        let reason = format!(
            "this kernel has ABI {}, and {} is needed",
            machine.landlock_abi, profile.landlock_abi_min
        );
        return Err(Refused::new("landlock", reason));
    }
    if language == Language::Python {
        profile.start = Start::Fork;
    }
    profile.resources = if machine.cgroup.is_some() { Resources::Cgroup } else { Resources::RlimitsOnly };
    Ok(profile)
}

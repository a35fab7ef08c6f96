//! `ringfence doctor`: what this machine can enforce, what it cannot, and what to do about it.

use std::fs;
use std::process::ExitCode;

use owo_colors::OwoColorize as _;
use ringfence_sandbox::{Language, Refused, Sandbox, probe, self_attack, strongest};
use serde::Serialize;
use serde_json::json;

use super::verdict;
use crate::failure::Failure;
use crate::print;

/// The oldest Landlock that a profile takes, by its ABI version: Linux 5.19.
const LANDLOCK_ABI_MIN: u32 = 2;

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    fine: bool,
    found: String,
    /// What to do; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead: Option<String>,
}

impl Finding {
    fn fine(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, fine: true, found: found.into(), instead: None }
    }

    fn lacking(what: &'static str, found: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { what, fine: false, found: found.into(), instead: Some(instead.into()) }
    }
}

pub(crate) async fn run(as_json: bool) -> Result<ExitCode, Failure> {
    let mut findings = vec![kernel(), landlock(), resources()];
    for (what, language) in [("Python", Language::Python), ("Bash", Language::Bash)] {
        findings.push(interpreter(what, language).await);
    }
    let is_fine = findings.iter().all(|finding| finding.fine);
    if as_json {
        print::json(&json!({ "fine": is_fine, "findings": findings }));
        return Ok(verdict(is_fine));
    }
    for finding in &findings {
        let mark = if finding.fine { "ok".green().to_string() } else { "no".red().bold().to_string() };
        anstream::println!("{mark}  {:<12}  {}", finding.what, finding.found);
        if let Some(instead) = &finding.instead {
            anstream::println!("    {}", instead.replace('\n', "\n    "));
        }
    }
    Ok(verdict(is_fine))
}

fn setting(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Finding {
    let release = setting("/proc/sys/kernel/osrelease").unwrap_or_default();
    match user_namespaces_off() {
        None => Finding::fine("kernel", format!("Linux {release}, user namespaces may be made")),
        Some((found, instead)) => Finding::lacking("kernel", format!("Linux {release}; {found}"), instead),
    }
}

/// A setting that keeps this user from making a user namespace, and what to do about it.
fn user_namespaces_off() -> Option<(&'static str, &'static str)> {
    let is = |path: &str, value: &str| setting(path).as_deref() == Some(value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return Some(("user namespaces are off", "as root: sysctl -w user.max_user_namespaces=15000"));
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some((
            "user namespaces are root's alone",
            "as root: sysctl -w kernel.unprivileged_userns_clone=1",
        ));
    }
    // Root is not held by it; everyone else is (Ubuntu 23.10 and later).
    let is_root = setting("/proc/self/uid_map").is_some() && rustix::process::geteuid().is_root();
    if !is_root && is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        let instead = "give `ringfence` an AppArmor profile with the rule `userns,`, or, as root and for every program:\n\
                       sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
        return Some(("AppArmor keeps unprivileged programs from user namespaces", instead));
    }
    None
}

fn landlock() -> Finding {
    match probe().landlock_abi {
        0 => Finding::lacking(
            "Landlock",
            "there is none",
            "boot a kernel of 5.19 or later with CONFIG_SECURITY_LANDLOCK, and with `landlock` in its `lsm=` list",
        ),
        old if old < LANDLOCK_ABI_MIN => Finding::lacking(
            "Landlock",
            format!("ABI {old}, and {LANDLOCK_ABI_MIN} is needed"),
            "boot a kernel of 5.19 or later",
        ),
        abi => Finding::fine("Landlock", format!("ABI {abi}")),
    }
}

fn resources() -> Finding {
    if let Some(driver) = probe().cgroup {
        return Finding::fine("resources", format!("a cgroup holds a sandbox as a whole ({driver})"));
    }
    Finding::lacking(
        "resources",
        "this user can make no cgroup: only each process by itself can be held",
        "run the gateway where it may make cgroups (systemd: `Delegate=yes`), or write `resources = \"rlimits\"` for the sandbox and read in SECURITY.md what that is",
    )
}

/// Whether programs of a language run, and the sandbox holds against an attack by one.
async fn interpreter(what: &'static str, language: Language) -> Finding {
    let probes = match strongest(language) {
        Ok(profile) => {
            let sandbox = Sandbox::new(profile);
            let probes = self_attack(&sandbox, language).await;
            sandbox.close().await;
            probes
        }
        Err(refused) => Err(refused),
    };
    match probes {
        Ok(probes) => {
            let holes: Vec<&str> =
                probes.iter().filter(|probe| !probe.held).map(|probe| probe.name.as_str()).collect();
            if holes.is_empty() {
                return Finding::fine(
                    what,
                    format!("a sandbox held against {} attacks from inside", probes.len()),
                );
            }
            let instead = "do not run programs of strangers here; please report it as SECURITY.md says";
            Finding::lacking(what, format!("an attack from inside reached {}", holes.join(", ")), instead)
        }
        Err(refused) => Finding::lacking(what, refused.to_string(), advice(&refused)),
    }
}

/// What helps against a refusal, by the layer that is not in force.
pub(super) fn advice(refused: &Refused) -> String {
    let text = match refused.layer.as_str() {
        "user_namespace" => user_namespaces_off().map_or(
            "in a container, let it make user namespaces: its seccomp profile has to allow `clone` and `unshare` with them",
            |(_, instead)| instead,
        ),
        "own_root" | "pid_namespace" => {
            "in a container, leave `/proc` unmasked (Docker: `--security-opt systempaths=unconfined`) and let it mount"
        }
        "landlock" => "boot a kernel of 5.19 or later with `landlock` in its `lsm=` list",
        "limits" => {
            "run the gateway where it may make cgroups (systemd: `Delegate=yes`), or write `resources = \"rlimits\"` for the sandbox and read in SECURITY.md what that is"
        }
        "interpreter" => "install it, or declare no tool that needs it",
        "input" => "name files by letters, digits, `.`, `-` and `_`, not beginning with a dot",
        _ => "the log of the kernel (`dmesg`) may say more",
    };
    text.to_owned()
}

//! `ringfence sandbox-host`: runs programs for gateways on other machines. It has profiles and certificates, and nothing else: no
//! project, no journal, no tokens, no database.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use owo_colors::OwoColorize as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use ringfence_core::Problem;
use ringfence_sandbox::Sandbox;
use ringfence_sandbox::remote::{Hosted, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::doctor::advice;
use super::serve::Stop;
use super::verdict;
use crate::failure::Failure;
use crate::print;
use crate::project::HostProject;
use crate::wiring::{self, count};

/// Reports all problems of a host's file.
pub(crate) fn check(path: &Path) -> Result<ExitCode, Failure> {
    let mut project = HostProject::read(path)?;
    let _settings = wiring::host_settings(&mut project);
    let _profiles = wiring::host_profiles(&mut project);
    project.problems.sort();
    for problem in &project.problems {
        print::problem(&project.folder, problem);
    }
    if project.problems.is_empty() {
        let offered = count(project.profiles.len(), "profile");
        anstream::println!("{}: {offered}", "in order".green().bold());
    } else {
        anstream::eprintln!("{}: {}", "not in order".red().bold(), count(project.problems.len(), "error"));
    }
    Ok(verdict(project.problems.is_empty()))
}

pub(crate) async fn run(path: &Path) -> Result<ExitCode, Failure> {
    let mut project = HostProject::read(path)?;
    let (settings, profiles) = (wiring::host_settings(&mut project), wiring::host_profiles(&mut project));
    let (Some((listen, settings)), []) = (settings, &project.problems[..]) else {
        return Err(refuse(&project.folder, &project.problems));
    };
    attack(&profiles).await?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        let help = "stop what listens there, or write another address of this machine as `listen`";
        Failure::new(format!("address {listen} cannot be listened on: {error}"), help)
    })?;
    let address = listener.local_addr().map_err(Failure::of)?;
    let offered: Vec<&str> = profiles.keys().map(String::as_str).collect();
    let told = Stop::listen()?;
    tracing::info!(%address, profiles = offered.join(","), "serving");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, settings, profiles, stop.clone()));
    told.wait().await?;
    tracing::info!("stopping: runs under way are ended");
    stop.cancel();
    serving.await.map_err(Failure::of)?;
    Ok(ExitCode::SUCCESS)
}

fn refuse(folder: &Path, problems: &[Problem]) -> Failure {
    for problem in problems {
        print::problem(folder, problem);
    }
    let what = format!("the sandbox host has {}", count(problems.len(), "error"));
    Failure::new(what, "correct what is named above")
}

/// Nobody is let in before each profile has held against an attack from inside.
async fn attack(profiles: &BTreeMap<String, Hosted>) -> Result<(), Failure> {
    for (name, hosted) in profiles {
        let failed = |why: String, help: String| {
            Failure::new(format!("the profile `{name}` does not hold here: {why}"), help)
        };
        let attacked = hosted.sandbox.self_attack().await;
        let probes = attacked.map_err(|refused| failed(refused.to_string(), advice(&refused)))?;
        let holes: Vec<String> =
            probes.iter().filter(|probe| !probe.held).map(|probe| format!("`{}`", probe.name)).collect();
        if !holes.is_empty() {
            let why = format!("an attack from inside reached {}", holes.join(", "));
            return Err(failed(why, "run `ringfence doctor`, which says what this machine lacks".to_owned()));
        }
        let warmed = hosted.sandbox.warm().await;
        warmed.map_err(|refused| failed(refused.to_string(), advice(&refused)))?;
    }
    Ok(())
}

/// One profile as it is offered.
pub(crate) fn hosted(profile: ringfence_sandbox::Profile, parallel_max: usize) -> Hosted {
    Hosted { language: profile.language, sandbox: Sandbox::new(profile), parallel_max }
}

/// Makes an authority, and a certificate with its key for each side. The authority's own key is never written: who has it could
/// make itself a gateway.
pub(crate) fn keys(folder: &Path, server_name: &str, days: u32) -> Result<ExitCode, Failure> {
    let set = KeySet::new(server_name, days).map_err(|why| {
        Failure::new(format!("no certificates can be made: {why}"), "name a host as `--server-name`")
    })?;
    let files = set.files();
    if let Some((name, _, _)) = files.iter().find(|(name, _, _)| folder.join(name).exists()) {
        let message = format!("`{}` is there already, and nothing was written", folder.join(name).display());
        return Err(Failure::new(message, "name another folder, or move the old set away"));
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let written = made.and_then(|()| {
        files.iter().try_for_each(|(name, mode, text)| {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(*mode);
            options.open(folder.join(name))?.write_all(text.as_bytes())
        })
    });
    written.map_err(|error| {
        Failure::new(
            format!("keys cannot be written to `{}`: {error}", folder.display()),
            "make the folder writable for this user, or name another one",
        )
    })?;
    let shown = folder.display();
    anstream::println!(
        "Certificates for {days} days stand in `{shown}`. To renew them, make all of them anew.\n"
    );
    anstream::println!("On the sandbox host: ca.pem, host.pem, host.key (for `{server_name}`)");
    anstream::println!("On the gateway:      ca.pem, gateway.pem, gateway.key");
    anstream::println!("\nMove each key to its machine, and leave it nowhere else.");
    Ok(ExitCode::SUCCESS)
}

struct KeySet {
    ca: String,
    host: (String, String),
    gateway: (String, String),
}

impl KeySet {
    fn new(server_name: &str, days: u32) -> Result<Self, String> {
        let (authority, issuer) = authority(days)?;
        let host = pair(&issuer, server_name, ExtendedKeyUsagePurpose::ServerAuth, days)?;
        let gateway = pair(&issuer, "gateway", ExtendedKeyUsagePurpose::ClientAuth, days)?;
        Ok(Self { ca: authority, host, gateway })
    }

    fn files(&self) -> [(&'static str, u32, &str); 5] {
        [
            ("ca.pem", 0o644, &self.ca),
            ("host.pem", 0o644, &self.host.0),
            ("host.key", 0o600, &self.host.1),
            ("gateway.pem", 0o644, &self.gateway.0),
            ("gateway.key", 0o600, &self.gateway.1),
        ]
    }
}

fn authority(days: u32) -> Result<(String, Issuer<'static, KeyPair>), String> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| error.to_string())?;
    params.distinguished_name.push(DnType::CommonName, "Ringfence sandbox hosts");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    valid_for(&mut params, days)?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?.pem();
    Ok((certificate, Issuer::new(params, key)))
}

fn pair(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
    days: u32,
) -> Result<(String, String), String> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|error| error.to_string())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![purpose];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid_for(&mut params, days)?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.signed_by(&key, issuer).map_err(|error| error.to_string())?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// From yesterday, since clocks differ.
fn valid_for(params: &mut CertificateParams, days: u32) -> Result<(), String> {
    let now = jiff::Timestamp::now().as_second();
    let day = |offset: i64| {
        let moment =
            jiff::Timestamp::from_second(now + offset * 86_400).map_err(|error| error.to_string())?;
        let date = jiff::tz::Offset::UTC.to_datetime(moment).date();
        let part = |part: i8| u8::try_from(part).map_err(|error| error.to_string());
        Ok::<_, String>(date_time_ymd(i32::from(date.year()), part(date.month())?, part(date.day())?))
    };
    params.not_before = day(-1)?;
    params.not_after = day(i64::from(days) + 1)?;
    Ok(())
}

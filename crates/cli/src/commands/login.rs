//! `ringfence login` and `ringfence logout`: a user's login at one gateway, for `ringfence stdio`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use ringfence_identity::native::{Gateway, Login};
use serde_json::json;

use super::verdict;
use crate::args::LoginAsking;
use crate::browser::{self, Callback};
use crate::failure::Failure;
use crate::logins::LoginFile;
use crate::print;
use crate::wiring::{self, Addresses, Checked};

pub(crate) async fn log_in(asking: LoginAsking) -> Result<ExitCode, Failure> {
    let gateway = gateway(&asking.gateway).await?;
    let found = gateway.issuer(asking.issuer.as_deref()).await.map_err(Failure::of)?;
    let callback = Callback::bind().await?;
    let client = found.client(asking.client_id, asking.scopes, callback.uri().to_owned());
    let client = client.await.map_err(Failure::of)?;
    // What would keep the login from being kept is seen before anybody logs in.
    let file = LoginFile::of(client.resource())?;
    let (url, pending) = client.begin().map_err(Failure::of)?;
    let pending = Arc::new(pending);
    anstream::eprintln!("Log in at {} with your browser:\n  {url}", client.issuer());
    if !asking.no_browser {
        browser::open(&url);
    }
    let returned = callback.answer(pending.clone()).await?;
    let login = client.finish(&pending, returned, wiring::now()).await.map_err(Failure::of)?;
    let _locked = file.lock().await?;
    let before = file.read().ok().flatten();
    file.keep(&login)?;
    if let Some(before) = before
        && let Err(error) = before.revoke().await
    {
        tracing::warn!(%error, "the login from before is good until it ends");
    }
    show(&login, &file, asking.json);
    Ok(ExitCode::SUCCESS)
}

/// The gateway at an address, or the one that a project's folder describes.
async fn gateway(named: &str) -> Result<Gateway, Failure> {
    if is_address(named) {
        return Gateway::at(named).await.map_err(Failure::of);
    }
    let checked = Checked::read(Path::new(named))?;
    checked.refuse_problems()?;
    let settings = wiring::agents_settings(&checked.project, &Addresses::declared(&checked.project));
    let of_tools = checked.space.tools().filter_map(|tool| tool.scope().map(str::to_owned));
    let scopes: std::collections::BTreeSet<String> = settings.scopes.into_iter().chain(of_tools).collect();
    Ok(Gateway::known(settings.resource, settings.issuers, scopes.into_iter().collect()))
}

fn is_address(named: &str) -> bool {
    named.contains("://")
}

fn show(login: &Login, file: &LoginFile, as_json: bool) {
    if as_json {
        return print::json(&json!({
            "gateway": login.resource(),
            "issuer": login.issuer(),
            "client_id": login.client_id(),
            "scopes": login.scopes(),
            "expires": login.expires(),
            "renewable": login.can_be_renewed(),
            "file": file.path().display().to_string(),
        }));
    }
    anstream::println!("logged in at {}", login.resource());
    if !login.can_be_renewed() {
        anstream::eprintln!("The issuer gave no refresh token: log in again when this one ends.");
    }
}

pub(crate) async fn log_out(named: &str) -> Result<ExitCode, Failure> {
    let resource = resource(named)?;
    let file = LoginFile::of(&resource)?;
    let _locked = file.lock().await?;
    let Some(login) = file.read()? else {
        anstream::eprintln!("nobody is logged in at {resource}");
        return Ok(ExitCode::SUCCESS);
    };
    let revoked = login.revoke().await;
    file.remove()?;
    match &revoked {
        Ok(true) => anstream::println!("logged out at {resource}"),
        Ok(false) => anstream::println!(
            "the login is deleted; its issuer takes none back, so its token is good until it ends"
        ),
        Err(error) => anstream::eprintln!("the login is deleted here, and good until it ends: {error}"),
    }
    Ok(verdict(revoked.is_ok()))
}

fn resource(named: &str) -> Result<String, Failure> {
    if is_address(named) {
        return Ok(named.to_owned());
    }
    let checked = Checked::read(Path::new(named))?;
    Ok(wiring::agents_audience(&checked.project, &Addresses::declared(&checked.project)))
}

//! `ringfence token`: a development token, on standard output alone.

use std::path::PathBuf;
use std::process::ExitCode;

use ringfence_identity::development::Minting;

use super::call::development_issuer;
use crate::args::TokenDoor;
use crate::failure::Failure;
use crate::wiring::{self, Addresses, Checked};

/// What was asked for.
pub(crate) struct Asking {
    pub(crate) user: String,
    pub(crate) folder: PathBuf,
    pub(crate) door: TokenDoor,
    pub(crate) agent: String,
    pub(crate) lifetime_seconds: u64,
    pub(crate) scopes: Vec<String>,
}

pub(crate) fn run(asking: &Asking) -> Result<ExitCode, Failure> {
    let checked = Checked::read(&asking.folder)?;
    checked.refuse_problems()?;
    let addresses = Addresses::declared(&checked.project);
    let issuer = development_issuer(&checked, &addresses)?;
    let audience = match asking.door {
        TokenDoor::Agents => wiring::agents_audience(&checked.project, &addresses),
        TokenDoor::People => wiring::peoples_audience(&checked.project, &addresses),
    };
    let scopes: Vec<String> = checked.project.identity.scopes.iter().chain(&asking.scopes).cloned().collect();
    let (user, agent, lifetime_seconds) =
        (asking.user.as_str(), asking.agent.as_str(), asking.lifetime_seconds);
    let minting = Minting { user, agent, audience: &audience, scopes: &scopes, lifetime_seconds };
    let token = issuer.mint(minting, wiring::now()).map_err(Failure::of)?;
    anstream::println!("{}", token.expose());
    Ok(ExitCode::SUCCESS)
}

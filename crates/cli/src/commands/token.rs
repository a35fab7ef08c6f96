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
    pub(crate) who: Who,
    pub(crate) folder: PathBuf,
    pub(crate) door: TokenDoor,
    pub(crate) lifetime_seconds: u64,
    pub(crate) scopes: Vec<String>,
}

/// Whom the token is about.
pub(crate) enum Who {
    /// A user, and the client that acts for that user.
    User { name: String, agent: String },
    /// A client in its own name.
    Application(String),
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
    let (audience, lifetime_seconds) = (audience.as_str(), asking.lifetime_seconds);
    let token = match &asking.who {
        Who::User { name, agent } => {
            let minting = Minting { user: name, agent, audience, scopes: &scopes, lifetime_seconds };
            issuer.mint(minting, wiring::now())
        }
        Who::Application(client) => {
            issuer.mint_application(client, audience, &scopes, lifetime_seconds, wiring::now())
        }
    };
    let token = token.map_err(Failure::of)?;
    anstream::println!("{}", token.expose());
    Ok(ExitCode::SUCCESS)
}

//! `ringfence stdio`: MCP on standard input and output, in the name of the one user who has logged in.
//!
//! Who that is comes from the login's token alone, which the gateway checks as any other: nothing that is read here says so.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ringfence_mcp::stdio::carry_all;
use tokio_util::sync::CancellationToken;

use super::call::answer_exchanges;
use super::serve::{Built, Stop};
use crate::bearer::Bearer;
use crate::carrier::LoggedIn;
use crate::failure::Failure;
use crate::logins::LoginFile;
use crate::wiring::{self, Addresses, Checked};

/// How long calls under way have once the client is gone.
const GRACE: Duration = Duration::from_secs(20);
/// What the in-process form cannot promise (SECURITY.md, *stdio*).
const NOT_PROMISED: &str = "this gateway runs under the account of its client: an agent that can run programs or write files \
    under this account could edit the project, read the login, or call what it likes past the gateway. Where that matters, run \
    `ringfence serve` under another account and `ringfence stdio --connect URL` here";

/// A bridge to the gateway at this address.
pub(crate) async fn connect(address: &str) -> Result<ExitCode, Failure> {
    let stop = Stop::listen()?;
    let bearer = bearer(address, address)?;
    let carrier = LoggedIn::to_gateway(address, bearer)?;
    tracing::info!(gateway = address, "carrying messages");
    carry(&carrier, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// The project in this folder, in this process.
pub(crate) async fn here(folder: &Path) -> Result<ExitCode, Failure> {
    let checked = Checked::read(folder)?;
    checked.refuse_problems()?;
    let addresses = Addresses::declared(&checked.project);
    let resource = wiring::agents_audience(&checked.project, &addresses);
    let bearer = bearer(&resource, &folder.display().to_string())?;
    let stop = Stop::listen()?;
    tracing::warn!("{NOT_PROMISED}");
    let Built { gateway, issuer, users, agents_door, .. } = Built::of(checked, &addresses).await?;
    let stopping = CancellationToken::new();
    // Users log in at the development issuer, and tokens for systems are had there.
    let issuing = match issuer {
        Some(issuer) => {
            tokio::spawn(users.follow(issuer.clone(), stopping.clone()));
            answer_exchanges(issuer, &addresses, &stopping).await
        }
        None => None,
    };
    tokio::spawn(gateway.clone().watch_runs(stopping.clone()));
    tracing::info!(project = %folder.display(), "serving");
    let carried = carry(&LoggedIn::to_router(agents_door, &addresses, bearer)?, stop).await;
    gateway.finish(GRACE).await;
    stopping.cancel();
    if let Some(issuing) = issuing {
        let _ended_in_time = tokio::time::timeout(GRACE, issuing).await;
    }
    carried?;
    Ok(ExitCode::SUCCESS)
}

/// The login at this gateway, and how the user makes it.
fn bearer(resource: &str, named: &str) -> Result<Bearer, Failure> {
    let (file, command) = (LoginFile::of(resource)?, format!("ringfence login {named}"));
    // Each message is told so too, until it is put right.
    match file.read() {
        Ok(Some(_)) => {}
        Ok(None) => tracing::warn!("nobody is logged in yet: run `{command}`"),
        Err(failure) => tracing::warn!("{}", failure.into_sentence()),
    }
    Ok(Bearer::new(file, command))
}

/// Until the client closes its end, or this process is told to stop.
async fn carry(carrier: &LoggedIn, stop: Stop) -> Result<(), Failure> {
    let ended = tokio::select! {
        ended = carry_all(carrier.clone(), tokio::io::stdin(), tokio::io::stdout()) => {
            ended.map_err(|error| Failure::new(format!("standard input or output broke off: {error}"), ""))
        }
        stopped = stop.wait() => stopped,
    };
    carrier.settle().await;
    ended
}

//! What the demo acts on: a project in a folder, the development issuer, a ticket service and the gateway, all on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfence_core::{Instant, Secret};
use ringfence_identity::development::Minting;
use ringfence_identity::{Endpoint, KeySource, SigningAlgorithm, TokenCheck, TokenRules};
use ringfence_mcp::{Revision, client::Client};
use rusqlite::{Connection, OpenFlags};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::tickets::Tickets;
use crate::commands::{Doors, Serving, TEMPLATE, bind, fit_to_machine, write_sample_database};
use crate::failure::Failure;
use crate::http_server;
use crate::wiring::{self, Checked};

const FILES: &[(&str, &str)] = &[
    ("ringfence.toml", include_str!("project/ringfence.toml")),
    ("users.toml", include_str!("project/users.toml")),
    ("tools/office.toml", include_str!("project/office.toml")),
    ("policies/policies.cedar", include_str!("project/policies.cedar")),
];
/// The demo's own folder; none where the user named one to keep.
type Temporary = Option<tempfile::TempDir>;

/// The OAuth client that the rogue engine is.
const AGENT: &str = "rogue-engine";

/// Everything that the script acts on.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) serving: Serving,
    pub(super) tickets: Tickets,
    /// The audiences of the agents' door, the people's door and the ticket service.
    pub(super) audiences: [String; 3],
    /// A secret in the gateway's memory.
    pub(super) canary: Secret,
    stop: CancellationToken,
    temporary: Temporary,
}

impl Stage {
    pub(super) async fn build(keep: Option<PathBuf>) -> Result<Self, Failure> {
        let (folder, temporary) = folder(keep)?;
        let listener = bind("127.0.0.1:0".parse().map_err(Failure::of)?, "listen").await?;
        let tickets_url = format!("http://{}", listener.local_addr().map_err(Failure::of)?);
        write(&folder, &tickets_url).map_err(|error| {
            Failure::new(
                format!("`{}` cannot be written: {error}", folder.display()),
                "name a folder that can be",
            )
        })?;
        let checked = Checked::read(&folder)?;
        let doors = Doors::bind(&checked.project).await?;
        let addresses = doors.addresses()?;
        let agents = wiring::agents_audience(&checked.project, &addresses);
        let people = wiring::peoples_audience(&checked.project, &addresses);
        let serving = Serving::start(checked, doors).await?;
        let issuer = serving.issuer.as_ref().ok_or_else(|| Failure::of("the demo has no issuer"))?.name();
        let tickets = Tickets::new(tickets_check(&issuer, &tickets_url)?);
        let stop = CancellationToken::new();
        tokio::spawn(http_server::serve(listener, tickets.router(), stop.clone()));
        let canary =
            ringfence_store::new_key().ok_or_else(|| Failure::of("this machine has no randomness"))?;
        let audiences = [agents, people, tickets_url];
        Ok(Self { folder, serving, tickets, audiences, canary, stop, temporary })
    }

    /// The MCP endpoint.
    pub(super) fn mcp(&self) -> &str {
        &self.audiences[0]
    }

    /// A token of this user for an audience, minted at this time.
    pub(super) fn token(&self, user: &str, audience: &str, at: Instant) -> Result<Secret, Failure> {
        let issuer: Option<&Arc<_>> = self.serving.issuer.as_ref();
        let scopes = ["tools".to_owned()];
        let minting = Minting { user, agent: AGENT, audience, scopes: &scopes, lifetime_seconds: 600 };
        let issuer = issuer.ok_or_else(|| Failure::of("the demo has no issuer"))?;
        issuer.mint(minting, at).map_err(Failure::of)
    }

    /// An MCP client that presents this token.
    pub(super) fn client(&self, token: &str, revision: Revision) -> Result<Client, Failure> {
        Client::new(self.mcp(), Some(token.to_owned()), revision).map_err(Failure::of)
    }

    /// How many rows a table of the metrics database holds, past the gateway.
    pub(super) fn rows(&self, table: &str) -> Option<u32> {
        let path = self.folder.join("metrics.db");
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).ok()
    }

    /// Stops the gateway and the ticket service. The folder stays until the stage is dropped.
    pub(super) async fn close(self) -> Closed {
        let Self { folder, serving, stop, temporary, .. } = self;
        serving.finish(std::time::Duration::from_secs(5)).await;
        stop.cancel();
        Closed { folder, _temporary: temporary }
    }
}

/// What is left of a stage whose servers have stopped.
pub(super) struct Closed {
    pub(super) folder: PathBuf,
    /// Deleted when it is dropped.
    _temporary: Temporary,
}

fn folder(keep: Option<PathBuf>) -> Result<(PathBuf, Temporary), Failure> {
    if let Some(folder) = keep {
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            let message = format!("`{}` is not empty, and nothing was written", folder.display());
            return Err(Failure::new(message, "name a new folder, or an empty one"));
        }
        return Ok((folder, None));
    }
    let made = tempfile::Builder::new().prefix("ringfence-demo-").tempdir();
    let made = made.map_err(|error| {
        Failure::new(
            format!("no temporary folder can be made: {error}"),
            "set TMPDIR to a folder that is writable",
        )
    })?;
    Ok((made.path().to_owned(), Some(made)))
}

fn write(folder: &Path, tickets_url: &str) -> std::io::Result<()> {
    for sub in ["tools", "policies", "kept-apart"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    let tools = TEMPLATE.iter().filter(|(name, _)| name.starts_with("tools/"));
    for (name, text) in FILES.iter().chain(tools) {
        fs::write(folder.join(name), fit_to_machine(text).replace("TICKETS_URL", tickets_url))?;
    }
    write_sample_database(folder).map_err(std::io::Error::other)
}

/// The ticket service checks tokens as any system would: by the issuer's published keys, for its own audience.
fn tickets_check(issuer: &str, audience: &str) -> Result<TokenCheck, Failure> {
    let rules = TokenRules {
        issuer: issuer.to_owned(),
        audience: audience.to_owned(),
        algorithms: vec![SigningAlgorithm::Es256],
        token_type: "at+jwt".to_owned(),
        lifetime_max_seconds: 300,
    };
    let keys = Endpoint::new(&format!("{issuer}/jwks.json")).map_err(Failure::of)?;
    TokenCheck::new(rules, KeySource::Url(keys)).map_err(Failure::of)
}

/// A listener of the host that nobody of the host connects to.
pub(super) async fn silent_listener() -> Result<TcpListener, Failure> {
    bind("127.0.0.1:0".parse().map_err(Failure::of)?, "listen").await
}

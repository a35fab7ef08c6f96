//! Connections that wait for their next call, each wiped before it waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::target::{Link, Target, Unconnected};

/// How long a connection may take to be wiped.
const WIPE_SECONDS: u64 = 1;

pub(super) struct Pool {
    target: Arc<Target>,
    /// What the statements' results have besides the types that every server has.
    types: Vec<Type>,
    idle: Mutex<Vec<Link>>,
}

/// A connection for one call. Dropped before it is given back, it is closed, and what it does is cancelled at the server.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    link: Option<Link>,
    /// Whether it waited before, so that its server may be gone.
    pub(super) is_used: bool,
}

impl Pool {
    pub(super) fn new(target: Arc<Target>, types: Vec<Type>) -> Self {
        Self { target, types, idle: Mutex::default() }
    }

    /// A connection that nothing is left on: one that waited, or a new one.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Unconnected> {
        while let Some(link) = self.idle.lock().ok().and_then(|mut idle| idle.pop()) {
            if !link.client.is_closed() {
                return Ok(Lease { pool: self, link: Some(link), is_used: true });
            }
        }
        let link = self.target.connect().await?;
        // The driver asks about a type where it meets it, which must not be amid a result.
        for kind in &self.types {
            let asked = link.client.prepare_typed("SELECT $1", std::slice::from_ref(kind)).await;
            asked.map_err(Unconnected::Refused)?;
        }
        Ok(Lease { pool: self, link: Some(link), is_used: false })
    }
}

impl Lease<'_> {
    /// `None` only while it is dropped.
    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// Ends whatever transaction is open, wipes the session, and lets the connection wait for its next call.
    pub(super) async fn give_back(mut self) {
        let Some(link) = self.link.take() else { return };
        link.allow(0);
        let wiped = tokio::time::timeout(Duration::from_secs(WIPE_SECONDS), wipe(&link.client)).await;
        if matches!(wiped, Ok(Ok(())))
            && let Ok(mut idle) = self.pool.idle.lock()
        {
            idle.push(link);
        }
    }
}

/// Both at once. `ROLLBACK` leaves advisory locks, prepared statements and `LISTEN` behind, and a commit settings too.
async fn wipe(client: &Client) -> Result<(), Error> {
    let (ended, wiped) = tokio::join!(
        biased;
        client.execute_typed("ROLLBACK", &[]),
        client.execute_typed("DISCARD ALL", &[])
    );
    ended.and(wiped).map(drop)
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.pool.target.cancel(link.client.cancel_token());
        }
    }
}

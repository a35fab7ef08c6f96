//! One call of a proved statement, in a transaction of its own.

use std::pin::pin;
use std::time::Duration;

use futures_core::Stream as _;
use ringfence_core::{Arguments, Effect, Refusal, RefusalClass, Retry, Wall};
use serde_json::Map;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Error, Row, RowStream};

use super::bind::{Bound, bound};
use super::enter::{Entry, NotEntered, Terms, changed, role_refused};
use super::json::{Cell, Length};
use super::pool::{Lease, Pool};
use super::target::Link;
use super::wire::Allowance;
use super::{Plan, failure};
use crate::sql::rows::{Changed, Rows};
use crate::watch::not_begun;
use crate::{Outcome, Watch, sql};

/// How much longer than the tool's own limit is waited for the server, which keeps that limit itself.
const GRACE: Duration = Duration::from_secs(2);
/// How much of a result that is cut is still read, so that its connection can go on: rows, and bytes.
const READ_ON: (u64, u64) = (1_000, 1 << 20);

/// What one call is.
pub(super) struct Work<'a> {
    pub(super) plan: &'a Plan,
    pub(super) entry: &'a Entry,
    pub(super) search_path: &'a str,
    pub(super) values: Vec<(Bound, Type)>,
    pub(super) deadline: Instant,
}

/// What came out of a statement.
struct Stepped {
    rows: Rows,
    changed: Changed,
    /// The rest of the result is on its way still, so that nothing else can be asked on the connection.
    is_unfinished: bool,
}

enum Failed {
    Database(Error),
    /// The result is not what it was when the tool was checked.
    Result(Refusal),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

/// The values of a statement's parameters, in their order.
pub(super) fn values(plan: &Plan, arguments: &Arguments) -> Result<Vec<(Bound, Type)>, Refusal> {
    let values = plan.params.iter().map(|(name, kind)| {
        let value = bound(arguments.value(name.as_str()), kind);
        value.map(|value| (value, kind.clone())).ok_or_else(|| {
            let message = format!("argument `{name}`: it is not base64");
            let (class, wall) = (RefusalClass::Arguments, Wall::ActionSpace);
            Refusal::new("argument_invalid", class, wall, Retry::WithChange, message)
        })
    });
    values.collect()
}

impl Work<'_> {
    /// Runs it. Where the connection is not given back it is closed, and what it does is cancelled at the server.
    pub(super) async fn run(self, pool: &Pool, watch: &Watch) -> Outcome {
        let limits = &self.plan.limits;
        let until = self.deadline + GRACE;
        let entered = tokio::select! {
            biased;
            () = watch.cancelled() => return Outcome::failed(not_begun()),
            entered = timeout_at(until, self.entered(pool)) => entered,
        };
        let (lease, before) = match entered {
            Ok(Ok(entered)) => entered,
            Ok(Err(refusal)) => return Outcome::failed(refusal),
            Err(_) => return Outcome::failed(sql::busy()),
        };
        if let Err(refusal) = watch.wanted() {
            lease.give_back().await;
            return Outcome::failed(refusal);
        }
        let Some(link) = lease.link() else { return Outcome::failed(sql::could_not()) };
        let stepped = tokio::select! {
            // A write that has begun runs to its end: its user may have to know what became of it.
            () = watch.cancelled(), if self.plan.effect == Effect::Read => {
                return Outcome::failed(failure::cancelled());
            }
            stepped = timeout_at(until, self.step(link, before)) => stepped,
        };
        let (outcome, can_go_on) = match stepped {
            Ok(Ok(stepped)) if stepped.is_unfinished => (self.outcome(stepped), false),
            Ok(Ok(stepped)) => self.kept(&link.client, stepped, until).await,
            Ok(Err(Failed::Database(error))) => {
                (Outcome::failed(failure::refusal(&error, limits)), !failure::is_lost(&error))
            }
            Ok(Err(Failed::Result(refusal))) => (Outcome::failed(refusal), false),
            Err(_) => (Outcome::failed(sql::too_slow(limits.seconds)), false),
        };
        if can_go_on {
            lease.give_back().await;
        }
        outcome
    }

    /// A connection with a transaction that is this user's. One that waited too long may be gone; then another is taken,
    /// since nothing was asked on it yet.
    async fn entered<'p>(&self, pool: &'p Pool) -> Result<(Lease<'p>, i64), Refusal> {
        loop {
            let lease = pool.lease().await.map_err(|error| unreachable(&error.to_string()))?;
            let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
            let milliseconds = u64::try_from(left).unwrap_or(1).max(1);
            let writes = self.plan.effect != Effect::Read;
            let terms = Terms { search_path: self.search_path, milliseconds, writes };
            let Some(link) = lease.link() else { return Err(sql::could_not()) };
            link.allow(self.plan.limits.bytes);
            match self.entry.enter(&link.client, &terms).await {
                Ok(before) => return Ok((lease, before)),
                Err(NotEntered::Failed(error)) if lease.is_used && failure::is_lost(&error) => {}
                // From version 16 on a membership may be one without the right to act in the role.
                Err(NotEntered::Failed(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    tracing::warn!(role = ?self.entry.role, "the connection may not act in a role that a call named");
                    lease.give_back().await;
                    return Err(role_refused());
                }
                Err(NotEntered::Failed(error)) => {
                    return Err(unreachable(error.code().map_or("none", |code| code.code())));
                }
                Err(NotEntered::Role(verdict)) => {
                    tracing::warn!(role = ?self.entry.role, verdict, "a call named a role that it may not act in");
                    lease.give_back().await;
                    return Err(role_refused());
                }
            }
        }
    }

    async fn step(&self, link: &Link, before: i64) -> Result<Stepped, Failed> {
        let client = &link.client;
        let values = self.values.iter().map(|(value, kind)| (value, kind.clone()));
        let stream = client.query_typed_raw(&self.plan.statement, values).await?;
        let mut stepped = self.read(stream, &link.allowance).await?;
        if self.plan.effect != Effect::Read {
            let all = changed(client).await?.saturating_sub(before);
            stepped.changed.all = u64::try_from(all).unwrap_or(0).max(stepped.changed.own);
        }
        Ok(stepped)
    }

    /// Reads to the end of what the limits allow, and a little on. A write is read to its own end.
    async fn read(&self, stream: RowStream, allowance: &Allowance) -> Result<Stepped, Failed> {
        let mut stream = pin!(stream);
        let mut rows = Rows::default();
        let (mut beyond_rows, mut beyond_bytes) = (0_u64, 0_u64);
        while let Some(row) = std::future::poll_fn(|task| stream.as_mut().poll_next(task)).await {
            let row = match row {
                Err(_) if allowance.is_used_up() => return self.too_large(rows),
                row => row?,
            };
            if !rows.is_cut() {
                self.keep(&row, &mut rows)?;
                continue;
            }
            beyond_rows += 1;
            beyond_bytes += row.raw_size_bytes() as u64;
            if self.plan.effect == Effect::Read && (beyond_rows > READ_ON.0 || beyond_bytes > READ_ON.1) {
                return Ok(Stepped { rows, changed: Changed::default(), is_unfinished: true });
            }
        }
        let own = stream.rows_affected().unwrap_or(0);
        Ok(Stepped { rows, changed: Changed { own, all: own }, is_unfinished: false })
    }

    /// More came than any result of this tool can be: what was kept so far is all of it, and a change does not stay.
    fn too_large(&self, mut rows: Rows) -> Result<Stepped, Failed> {
        if self.plan.effect != Effect::Read {
            return Err(Failed::Result(failure::too_large()));
        }
        rows.cut();
        Ok(Stepped { rows, changed: Changed::default(), is_unfinished: true })
    }

    fn keep(&self, row: &Row, rows: &mut Rows) -> Result<(), Failed> {
        let limits = &self.plan.limits;
        let is_as_checked = row.columns().iter().map(|column| (column.name(), column.type_()));
        if !is_as_checked.eq(self.plan.columns.iter().map(|(name, kind)| (name.as_str(), kind))) {
            return Err(Failed::Result(sql::stale()));
        }
        let columns = 0..self.plan.columns.len();
        let lengths = columns.clone().map(|at| self.value(row, at).map(|Length(bytes)| bytes));
        let least = lengths.sum::<Result<u64, Failed>>()?;
        if row.raw_size_bytes() as u64 > limits.bytes || !rows.has_room(least, limits) {
            rows.cut();
            return Ok(());
        }
        let values = columns.map(|at| self.value(row, at).map(|Cell(value)| value));
        let names = self.plan.columns.iter().map(|(name, _)| name.clone());
        let object = names.zip(values).map(|(name, value)| value.map(|value| (name, value)));
        rows.push(object.collect::<Result<Map<_, _>, _>>()?, limits);
        Ok(())
    }

    fn value<'r, T: FromSql<'r>>(&self, row: &'r Row, at: usize) -> Result<T, Failed> {
        row.try_get(at).map_err(|_| {
            let column = self.plan.columns.get(at).map(|(name, _)| name);
            tracing::warn!(column, "a value has no form in JSON; cast it to text in the statement");
            Failed::Result(sql::could_not())
        })
    }

    /// Commits a write that is within its limits; whether the connection can go on.
    async fn kept(&self, client: &Client, stepped: Stepped, until: Instant) -> (Outcome, bool) {
        let limits = &self.plan.limits;
        if self.plan.effect == Effect::Read {
            return (self.outcome(stepped), true);
        }
        if let Some(refusal) = stepped.changed.refusal(limits) {
            return (Outcome::failed(refusal), true);
        }
        match timeout_at(until + GRACE, client.execute_typed("COMMIT", &[])).await {
            Ok(Ok(_)) => (self.outcome(stepped), true),
            // The server itself says that it did not.
            Ok(Err(error)) if !failure::is_lost(&error) => {
                (Outcome::failed(failure::refusal(&error, limits)), true)
            }
            Ok(Err(_)) | Err(_) => (Outcome::unknown(failure::unknown()), false),
        }
    }

    fn outcome(&self, stepped: Stepped) -> Outcome {
        stepped.rows.outcome(self.plan.effect, stepped.changed.all, !self.plan.columns.is_empty())
    }
}

/// Nothing was asked yet.
fn unreachable(why: &str) -> Refusal {
    tracing::warn!(why, "the database could not be reached, or let the transaction not begin");
    sql::busy()
}

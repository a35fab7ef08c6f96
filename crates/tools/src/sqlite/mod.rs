//! SQLite: one statement a tool, proved narrow when it loads and held to what was proved at each call.
//!
//! The wall is SQLite's own authorizer, asked for every table, column and function while a statement is prepared
//! (<https://www.sqlite.org/c3ref/set_authorizer.html>). Everything is denied unless the proof of the tool allows it.

mod connection;
mod execute;
mod grant;
mod prove;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringfence_actions::{Limits, Tool};
use ringfence_core::{Call, Effect, ParamName, Place, Problem, Refusal, ToolName, Wall};

use crate::turns::Turns;
use crate::{Outcome, Watch, sql};
use connection::Guarded;
use execute::Work;
use grant::Grant;

/// Calls that one database serves at the same time; more wait for their turn, within their own time limit.
const CONNECTIONS_MAX: usize = 8;

/// One SQLite database with the proved statements of its tools.
pub(crate) struct Sqlite {
    path: PathBuf,
    plans: BTreeMap<ToolName, Arc<Plan>>,
    readers: Pool,
    writers: Pool,
}

/// A proved statement.
struct Plan {
    statement: String,
    /// The parameter of each placeholder, in SQLite's order.
    params: Vec<ParamName>,
    columns: Vec<String>,
    grant: Arc<Grant>,
    effect: Effect,
    limits: Limits,
}

struct Pool {
    turns: Turns,
    idle: Arc<Mutex<Vec<Guarded>>>,
}

impl Pool {
    fn new(most: usize) -> Self {
        Self { turns: Turns::new(most), idle: Arc::default() }
    }
}

impl Sqlite {
    /// Opens the database and proves the statements of its tools. Every problem is pushed.
    pub(crate) fn open<'a>(
        path: &Path,
        declared_at: &Place,
        tools: impl Iterator<Item = &'a Tool>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        // Once for the system, which may have no tool yet, rather than once for each of them.
        if let Err(error) = Guarded::open(path, Effect::Read) {
            problems.push(prove::unopened(path, declared_at, &error));
            return Self::without_tools(path);
        }
        let plans = tools.filter_map(|tool| {
            let plan = prove::prove(path, declared_at, tool, problems)?;
            Some((tool.name().clone(), Arc::new(plan)))
        });
        let plans = plans.collect();
        Self { plans, ..Self::without_tools(path) }
    }

    fn without_tools(path: &Path) -> Self {
        // SQLite lets one writer in at a time: a second connection would only wait inside it.
        let (readers, writers) = (Pool::new(CONNECTIONS_MAX), Pool::new(1));
        Self { path: path.to_owned(), plans: BTreeMap::new(), readers, writers }
    }

    /// Runs the statement of a call's tool with its arguments, unless nobody wants it any more when its turn comes.
    pub(crate) async fn run(&self, call: &Call, watch: &Watch) -> Outcome {
        let Some(plan) = self.plans.get(call.tool()).cloned() else {
            return Outcome::failed(Refusal::internal("statement_not_proved", Wall::System));
        };
        let deadline = Instant::now() + Duration::from_secs(plan.limits.seconds);
        let pool = if plan.effect == Effect::Read { &self.readers } else { &self.writers };
        let turn = match pool.turns.take(call.run().id(), deadline.into(), watch).await {
            Ok(turn) => turn,
            Err(why) => return Outcome::failed(sql::no_turn(&why)),
        };
        let (path, idle, arguments) = (self.path.clone(), pool.idle.clone(), call.arguments().clone());
        let watch = watch.clone();
        let work = tokio::task::spawn_blocking(move || {
            let work = Work { plan: &plan, arguments: &arguments, deadline, watch: &watch };
            let outcome = on_connection(&path, &idle, &work);
            drop(turn);
            outcome
        });
        work.await.unwrap_or_else(|_| Outcome::failed(Refusal::internal("statement_panicked", Wall::System)))
    }
}

fn on_connection(path: &Path, idle: &Mutex<Vec<Guarded>>, work: &Work<'_>) -> Outcome {
    let pooled = idle.lock().ok().and_then(|mut idle| idle.pop());
    let opened = match pooled {
        Some(connection) => Ok(connection),
        None => Guarded::open(path, work.plan.effect),
    };
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => return execute::failure(&error, work.plan),
    };
    let outcome = work.run(&mut connection);
    // A connection that still holds a transaction, for whatever reason, is closed rather than shared.
    if connection.is_clean()
        && let Ok(mut idle) = idle.lock()
    {
        idle.push(connection);
    }
    outcome
}

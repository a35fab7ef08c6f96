//! PostgreSQL: one statement a tool, prepared when it loads, run in a transaction that is the user's own.
//!
//! The wall is the database: each call runs in its user's role (`SET LOCAL ROLE`), so that grants and row-level security
//! decide, and in a READ ONLY transaction where the tool reads. Only the extended protocol is spoken, which takes one
//! statement and its values apart (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>).

mod bind;
mod enter;
mod execute;
mod failure;
mod json;
mod pool;
mod prove;
mod rights;
mod target;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_actions::{Limits, Tool};
use ringfence_core::{Call, Effect, ParamName, Place, Problem, Refusal, Secret, ToolName, Wall};
use tokio::time::Instant;
use tokio_postgres::types::Type;

use crate::turns::Turns;
use crate::{Outcome, Watch, sql};
pub use enter::ActAs;
use enter::{Entry, is_role, search_path};
use execute::{Work, values};
use pool::Pool;
use target::{Link, Target, Unconnected, reason};

/// How long all of a check may take for one system.
const CHECK_SECONDS: u64 = 60;

/// How much the server may say to all of it.
const CHECK_BYTES: u64 = 256 << 20;

/// One `[systems.NAME]` of kind `postgres`.
pub struct PostgresSettings {
    /// `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: Secret,
    /// PEM: the authority that has signed the server's certificate; `None` for those that this machine trusts.
    pub ca: Option<String>,
    /// In which role statements run.
    pub act_as: ActAs,
    /// The claims of the principal that statements and row-level security see, as `ringfence.claims`.
    pub claims: Vec<String>,
    /// Where names are looked for, after `pg_catalog`.
    pub schemas: Vec<String>,
    /// Calls at the same time; one run takes at most half.
    pub connections_max: usize,
    /// Where the project declares it.
    pub place: Place,
}

/// One database with the prepared statements of its tools.
pub(crate) struct Postgres {
    plans: BTreeMap<ToolName, Plan>,
    act_as: ActAs,
    claims: Vec<String>,
    search_path: String,
    /// None where the project has an error.
    pool: Option<Pool>,
    turns: Turns,
}

/// A statement as the server understood it.
struct Plan {
    statement: String,
    /// The parameter of each number, with its type.
    params: Vec<(ParamName, Type)>,
    columns: Vec<(String, Type)>,
    effect: Effect,
    limits: Limits,
}

impl Postgres {
    /// Connects, looks at what the connection may do, and prepares the statements of the tools. Every problem is pushed.
    pub(crate) async fn open<'a>(
        settings: PostgresSettings,
        tools: impl Iterator<Item = &'a Tool>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let tools: Vec<&Tool> = tools.collect();
        let mut postgres = Self {
            plans: BTreeMap::new(),
            act_as: settings.act_as.clone(),
            claims: settings.claims.clone(),
            search_path: search_path(&settings.schemas),
            pool: None,
            turns: Turns::new(settings.connections_max),
        };
        let limit = Duration::from_secs(CHECK_SECONDS);
        let looked = tokio::time::timeout(limit, postgres.look(&settings, &tools, problems)).await;
        let what = match looked {
            Ok(Ok(())) => return postgres,
            Ok(Err((what, instead))) => (what, instead),
            Err(_) => ("the database did not answer in time".to_owned(), "try again later".to_owned()),
        };
        problems.push(Problem::error(settings.place, what.0, what.1));
        postgres
    }

    async fn look(
        &mut self,
        settings: &PostgresSettings,
        tools: &[&Tool],
        problems: &mut Vec<Problem>,
    ) -> Result<(), (String, String)> {
        if let ActAs::Role(role) = &settings.act_as
            && !is_role(role)
        {
            return Err((
                format!("`{role}` is no role"),
                "write the name of a role of the database".to_owned(),
            ));
        }
        let target = Arc::new(Target::new(&settings.url, settings.ca.as_deref())?);
        let link = target.connect().await.map_err(|error| unconnected(&error))?;
        link.allow(CHECK_BYTES);
        let writes = tools.iter().any(|tool| tool.effect() != Effect::Read);
        let (act_as, schemas, place) = (&settings.act_as, &settings.schemas, &settings.place);
        let question = rights::Question { act_as, schemas, writes, place };
        let roles = question.ask(&link.client, problems).await.map_err(|error| unread(&error))?;
        self.prove(&link, tools, &roles, problems).await;
        self.pool = Some(Pool::new(target, prove::own_types(self.plans.values())));
        Ok(())
    }

    async fn prove(&mut self, link: &Link, tools: &[&Tool], roles: &[String], problems: &mut Vec<Problem>) {
        for tool in tools {
            let plan = prove::prove(&link.client, tool, roles, &self.search_path, problems).await;
            self.plans.extend(plan.map(|plan| (tool.name().clone(), plan)));
        }
    }

    /// Runs the statement of a call's tool with its arguments, in its user's role.
    pub(crate) async fn run(&self, call: &Call, watch: &Watch) -> Outcome {
        let (Some(plan), Some(pool)) = (self.plans.get(call.tool()), &self.pool) else {
            return Outcome::failed(Refusal::internal("statement_not_proved", Wall::System));
        };
        let deadline = Instant::now() + Duration::from_secs(plan.limits.seconds);
        let ready = Entry::of(call, &self.act_as, &self.claims)
            .and_then(|entry| Ok((entry, values(plan, call.arguments())?)));
        let (entry, values) = match ready {
            Ok(ready) => ready,
            Err(refusal) => return Outcome::failed(refusal),
        };
        let turn = match self.turns.take(call.run().id(), deadline, watch).await {
            Ok(turn) => turn,
            Err(why) => return Outcome::failed(sql::no_turn(&why)),
        };
        let search_path = &self.search_path;
        let outcome = Work { plan, entry: &entry, search_path, values, deadline }.run(pool, watch).await;
        drop(turn);
        outcome
    }
}

fn unconnected(error: &Unconnected) -> (String, String) {
    let what = format!("the database cannot be connected to: {error}");
    (what, "start it, or correct `url` and `ca`".to_owned())
}

fn unread(error: &tokio_postgres::Error) -> (String, String) {
    let what = format!("the rights of the connection's role cannot be read: {}", reason(error));
    (what, "it needs PostgreSQL 13 or later, whose catalogue everyone can read".to_owned())
}

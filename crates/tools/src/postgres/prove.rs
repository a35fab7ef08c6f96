//! Prepares each statement at the server when its tool loads: its parameters' types and its columns are the server's word.

use ringfence_actions::{Operation, Tool};
use ringfence_core::{Effect, ParamName, Place, Problem};
use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Error, Statement};

use super::enter::{Entry, NotEntered, Terms};
use super::target::reason;
use super::{Plan, bind, json};
use crate::sql::words::{self, Dialect};
use crate::sql::{placeholders, twice, wrong_beginning};

/// How long the server may take to prepare a statement, in milliseconds.
const PREPARE_MILLISECONDS: u64 = 10_000;

/// In how many roles a statement is tried.
const ROLES_MAX: usize = 16;

/// The plan of a tool's statement; `None` where there is a problem, which is pushed. `roles` are those in which it may run:
/// a statement has to be sound in one of them, whose rights to schemas may differ.
pub(super) async fn prove(
    client: &Client,
    tool: &Tool,
    roles: &[String],
    search_path: &str,
    problems: &mut Vec<Problem>,
) -> Option<Plan> {
    let Operation::Sql { statement, place } = tool.operation() else { return None };
    let begins = words::first(statement, Dialect::Postgres);
    let writing = ["INSERT", "UPDATE", "DELETE", "MERGE"];
    let wrong = wrong_beginning(&begins, tool.effect(), &writing).or_else(|| changes(tool, statement));
    if let Some((what, instead)) = wrong {
        problems.push(Problem::error(place.clone(), what, instead));
        return None;
    }
    let numbered = placeholders::numbered(statement);
    let names = placeholders::declared(tool, &numbered.names, place, problems)?;
    let prepared = match prepared(client, &numbered.text, roles, search_path).await {
        Ok(prepared) => prepared,
        Err(error) => {
            let what = format!("PostgreSQL cannot prepare this: {}", reason(&error));
            problems.push(Problem::error(place.clone(), what, "correct the statement"));
            return None;
        }
    };
    let params: Vec<(ParamName, Type)> = names.into_iter().zip(prepared.params().iter().cloned()).collect();
    let fit = [fit_params(tool, &params, problems), fit_columns(&prepared, place, problems)];
    let columns = prepared.columns().iter();
    let columns = columns.map(|column| (column.name().to_owned(), column.type_().clone())).collect();
    let (effect, limits) = (tool.effect(), tool.limits());
    fit.iter().all(|fit| *fit).then_some(Plan { statement: numbered.text, params, columns, effect, limits })
}

/// That a tool that reads would change something: the transaction forbids it whatever is written, so this is for the author.
fn changes(tool: &Tool, statement: &str) -> Option<(String, String)> {
    let changing = ["INSERT", "UPDATE", "DELETE", "MERGE", "INTO"];
    if tool.effect() != Effect::Read {
        return None;
    }
    let found = changing.into_iter().find(|word| words::has(statement, word, Dialect::Postgres))?;
    let what = format!("a tool that reads has the word `{found}` in its statement");
    let instead = "say `effect = \"write\"` or `\"irreversible\"`; a column of that name goes in quotes";
    Some((what, instead.to_owned()))
}

async fn prepared(
    client: &Client,
    statement: &str,
    roles: &[String],
    search_path: &str,
) -> Result<Statement, Error> {
    let mut first = None;
    for role in roles.iter().take(ROLES_MAX) {
        let tried = prepared_as(client, statement, role, search_path).await;
        client.execute_typed("ROLLBACK", &[]).await?;
        match tried {
            Ok(statement) => return Ok(statement),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    match first {
        Some(error) => Err(error),
        None => client.prepare(statement).await,
    }
}

async fn prepared_as(
    client: &Client,
    statement: &str,
    role: &str,
    search_path: &str,
) -> Result<Statement, Error> {
    let terms = Terms { search_path, milliseconds: PREPARE_MILLISECONDS, writes: false };
    if let Err(NotEntered::Failed(error)) = Entry::check(role.to_owned()).enter(client, &terms).await {
        return Err(error);
    }
    client.prepare(statement).await
}

fn fit_params(tool: &Tool, params: &[(ParamName, Type)], problems: &mut Vec<Problem>) -> bool {
    let before = problems.len();
    for (name, kind) in params {
        let declared = tool.params().iter().find(|param| param.name() == name);
        let wrong = declared.and_then(|param| Some((param, bind::misfit(param.kind(), kind)?)));
        if let Some((param, (what, instead))) = wrong {
            problems.push(Problem::error(
                param.place().clone(),
                format!("parameter `{name}`: {what}"),
                instead,
            ));
        }
    }
    problems.len() == before
}

fn fit_columns(prepared: &Statement, place: &Place, problems: &mut Vec<Problem>) -> bool {
    let before = problems.len();
    let names: Vec<&str> = prepared.columns().iter().map(tokio_postgres::Column::name).collect();
    if let Some(name) = twice(&names) {
        let what = format!("two columns of the result are called `{name}`");
        problems.push(Problem::error(place.clone(), what, "name them apart with `AS`"));
    }
    for column in prepared.columns().iter().filter(|column| !json::is_offered(column.type_())) {
        let (name, kind) = (column.name(), column.type_().name());
        let what = format!("column `{name}` is of type `{kind}`, which has no form in JSON here");
        problems.push(Problem::error(place.clone(), what, format!("write `{name}::text AS {name}`")));
    }
    problems.len() == before
}

/// The types of results that not every server has, which a connection has to learn before it meets them.
pub(super) fn own_types<'a>(plans: impl Iterator<Item = &'a Plan>) -> Vec<Type> {
    let mut own: Vec<Type> = Vec::new();
    for (_, kind) in plans.flat_map(|plan| &plan.columns) {
        let is_own = Type::from_oid(kind.oid()).is_none() && !matches!(kind.kind(), Kind::Pseudo);
        if is_own && !own.contains(kind) {
            own.push(kind.clone());
        }
    }
    own
}

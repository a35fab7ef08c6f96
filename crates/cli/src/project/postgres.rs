//! `[systems.NAME]` of kind `postgres`.

use std::path::{Path, PathBuf};

use ringfence_actions::file::Table;
use ringfence_core::Problem;
use ringfence_tools::ActAs;
use toml::Spanned;

use super::SecretSource;

pub(crate) struct PostgresDeclaration {
    /// Where the URL is to be had: it holds a password.
    pub(crate) url: SecretSource,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) act_as: ActAs,
    pub(crate) claims: Vec<String>,
    pub(crate) schemas: Vec<String>,
    pub(crate) connections_max: usize,
}

pub(super) fn read(
    folder: &Path,
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<PostgresDeclaration> {
    let url = url(folder, table, problems);
    let ca = table.take::<String>("ca", problems).map(|file| folder.join(file.into_inner()));
    let act_as = act_as(table, problems);
    let mut list = |key| table.take::<Vec<String>>(key, problems).map(Spanned::into_inner);
    let (claims, schemas) = (list("claims"), list("schemas"));
    let connections = table.number("connections", 1..=1_000, problems).unwrap_or(8);
    Some(PostgresDeclaration {
        url: url?,
        ca,
        act_as: act_as?,
        claims: claims.unwrap_or_default(),
        schemas: schemas.unwrap_or_else(|| vec!["public".to_owned()]),
        connections_max: usize::try_from(connections).unwrap_or(1),
    })
}

/// Never the URL itself: the project file is no place for a password.
fn url(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<SecretSource> {
    let instead =
        "write `url = { env = \"VARIABLE\" }` or `url = { file = \"…\" }`, a file for its owner alone";
    if !table.has("url") {
        problems.push(Problem::error(table.place(), "`url` is missing", instead));
        return None;
    }
    let mut source = table.table("url", problems)?;
    let mut take = |key| source.take::<String>(key, problems).map(Spanned::into_inner);
    let given = match (take("env"), take("file")) {
        (Some(variable), None) => Some(SecretSource::Environment(variable)),
        (None, Some(file)) => Some(SecretSource::File(folder.join(file))),
        _ => {
            problems.push(Problem::error(source.place(), "`url` is to be had from one place", instead));
            None
        }
    };
    source.finish(problems);
    given
}

fn act_as(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<ActAs> {
    let instead = "write `act-as = { role-claim = \"CLAIM\" }`, or `act-as = { role = \"ROLE\" }` with `claims` for row-level security";
    if !table.has("act-as") {
        let what = "`act-as` is missing: no statement runs in the connection's own role";
        problems.push(Problem::error(table.place(), what, instead));
        return None;
    }
    let mut named = table.table("act-as", problems)?;
    let mut take = |key| named.take::<String>(key, problems).map(Spanned::into_inner);
    let given = match (take("role-claim"), take("role")) {
        (Some(claim), None) => Some(ActAs::Claim(claim)),
        (None, Some(role)) => Some(ActAs::Role(role)),
        _ => {
            problems.push(Problem::error(named.place(), "`act-as` names one role", instead));
            None
        }
    };
    named.finish(problems);
    given
}

//! `credential = { … }`: how a system is shown in whose name a call comes.

use std::path::{Path, PathBuf};

use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem};
use ringfence_identity::credential::Target;
use toml::Spanned;

use super::SecretSource;

/// What `shared` has to begin with: somebody has thought of it, and says why.
const ACCEPTED: &str = "accepted, because ";

#[derive(Clone)]
pub(crate) struct CredentialDeclaration {
    pub(crate) place: Place,
    pub(crate) way: CredentialWay,
}

#[derive(Clone)]
pub(crate) enum CredentialWay {
    /// RFC 8693.
    Exchange { client: ClientDeclaration, target: Target, scopes: Vec<String>, act_required: bool },
    /// RFC 7523, as Entra has it.
    OnBehalfOf {
        client: ClientDeclaration,
        audience: Option<String>,
        scopes: Vec<String>,
        also_given: Vec<String>,
    },
    /// The user's own account at a third party.
    Account { login: LoginDeclaration, resource: Option<String> },
    /// One key for all users.
    Static { header: String, format: String, value: SecretSource, shared: String },
}

/// The gateway's own client at an issuer; the development issuer makes one.
#[derive(Clone)]
pub(crate) struct ClientDeclaration {
    pub(crate) token_endpoint: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret_file: Option<PathBuf>,
}

/// A client that people's browsers go through.
#[derive(Clone)]
pub(crate) struct LoginDeclaration {
    pub(crate) place: Place,
    pub(crate) authorization_endpoint: String,
    pub(crate) client: ClientDeclaration,
    pub(crate) issuer: Option<String>,
    pub(crate) scopes: Vec<String>,
}

impl CredentialDeclaration {
    /// The scopes that the credential may carry.
    pub(crate) fn scopes(&self) -> &[String] {
        match &self.way {
            CredentialWay::Exchange { scopes, .. } | CredentialWay::OnBehalfOf { scopes, .. } => scopes,
            CredentialWay::Account { login, .. } => &login.scopes,
            CredentialWay::Static { .. } => &[],
        }
    }
}

pub(super) fn credential(
    folder: &Path,
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<CredentialDeclaration> {
    let mut credential = table.has("credential").then(|| table.table("credential", problems)).flatten()?;
    let place = credential.place();
    let mut ways = Vec::new();
    for way in ["exchange", "on-behalf-of", "account", "static"] {
        let Some(table) = credential.has(way).then(|| credential.table(way, problems)).flatten() else {
            continue;
        };
        ways.push(match way {
            "exchange" => exchange(folder, table, problems),
            "on-behalf-of" => on_behalf_of(folder, table, problems),
            "account" => account(folder, table, problems),
            _ => shared_key(folder, table, problems),
        });
    }
    credential.finish(problems);
    if ways.len() != 1 {
        let what = if ways.is_empty() {
            "`credential` names no way to get one"
        } else {
            "`credential` names several ways"
        };
        let instead = "write one of `exchange`, `on-behalf-of`, `account` and `static`, such as `credential = { exchange = { audience = \"https://…\" } }`";
        problems.push(Problem::error(place, what, instead));
        return None;
    }
    let way = ways.pop().flatten()?;
    Some(CredentialDeclaration { place, way })
}

fn exchange(folder: &Path, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<CredentialWay> {
    let client = client(folder, &mut table, problems);
    let scopes = texts(&mut table, "scopes", problems);
    let act_required = table.take::<bool>("require-act", problems).is_some_and(Spanned::into_inner);
    let (audience, resource) =
        (text(&mut table, "audience", problems), text(&mut table, "resource", problems));
    let place = table.place();
    table.finish(problems);
    let target = match (audience, resource) {
        (Some(audience), None) => Target::Audience(audience),
        (None, Some(resource)) => Target::Resource(resource),
        _ => {
            let instead =
                "write `audience = \"…\"`, a name that the issuer knows, or `resource = \"https://…\"`";
            problems.push(Problem::error(place, "`exchange` names its system not once", instead));
            return None;
        }
    };
    Some(CredentialWay::Exchange { client, target, scopes, act_required })
}

fn on_behalf_of(folder: &Path, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<CredentialWay> {
    let client = client(folder, &mut table, problems);
    let audience = text(&mut table, "audience", problems);
    let also_given = texts(&mut table, "also-given", problems);
    // Here the scopes say which system the token is for.
    let scopes = table.require::<Vec<String>>("scopes", problems);
    table.finish(problems);
    Some(CredentialWay::OnBehalfOf { client, audience, scopes: scopes?.into_inner(), also_given })
}

fn account(folder: &Path, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<CredentialWay> {
    let resource = text(&mut table, "resource", problems);
    let login = login(folder, table, problems)?;
    Some(CredentialWay::Account { login, resource })
}

/// A client that people's browsers go through: `[login]`, or an account.
pub(super) fn login(
    folder: &Path,
    mut table: Table<'_>,
    problems: &mut Vec<Problem>,
) -> Option<LoginDeclaration> {
    let place = table.place();
    let authorization_endpoint = table.require::<String>("authorization-endpoint", problems);
    let client = client(folder, &mut table, problems);
    let issuer = text(&mut table, "issuer", problems);
    let scopes = texts(&mut table, "scopes", problems);
    table.finish(problems);
    let authorization_endpoint = authorization_endpoint?.into_inner();
    Some(LoginDeclaration { place, authorization_endpoint, client, issuer, scopes })
}

fn shared_key(folder: &Path, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Option<CredentialWay> {
    let header = table.require::<String>("header", problems);
    let format = text(&mut table, "format", problems).unwrap_or_else(|| "{}".to_owned());
    let value = secret_source(folder, &mut table, "value", problems);
    let shared = text(&mut table, "shared", problems);
    let place = table.place();
    table.finish(problems);
    let is_accepted =
        |shared: &String| shared.strip_prefix(ACCEPTED).is_some_and(|why| why.trim().len() >= 8);
    let Some(shared) = shared.filter(is_accepted) else {
        let what = "the system would see one key for all users, and cannot tell them apart";
        let instead =
            format!("use `exchange` or `account`; or write `shared = \"{ACCEPTED}…\"`, with the reason");
        problems.push(Problem::error(place, what, instead));
        return None;
    };
    Some(CredentialWay::Static { header: header?.into_inner(), format, value: value?, shared })
}

fn client(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> ClientDeclaration {
    ClientDeclaration {
        token_endpoint: text(table, "token-endpoint", problems),
        client_id: text(table, "client-id", problems),
        client_secret_file: text(table, "client-secret-file", problems).map(|file| folder.join(file)),
    }
}

/// `{ env = "VARIABLE" }` or `{ file = "…" }`: where a secret is to be had, never the secret itself.
pub(super) fn secret_source(
    folder: &Path,
    table: &mut Table<'_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<SecretSource> {
    let place = table.place();
    let source = table.has(key).then(|| table.table(key, problems)).flatten().and_then(|mut source| {
        let (variable, file) = (text(&mut source, "env", problems), text(&mut source, "file", problems));
        source.finish(problems);
        match (variable, file) {
            (Some(variable), None) => Some(SecretSource::Environment(variable)),
            (None, Some(file)) => Some(SecretSource::File(folder.join(file))),
            _ => None,
        }
    });
    if source.is_none() {
        let instead = format!("write `{key} = {{ env = \"VARIABLE\" }}` or `{key} = {{ file = \"…\" }}`");
        problems.push(Problem::error(
            place,
            format!("`{key}` does not say where the secret is to be had"),
            instead,
        ));
    }
    source
}

fn text(table: &mut Table<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Option<String> {
    table.take::<String>(key, problems).map(Spanned::into_inner)
}

fn texts(table: &mut Table<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Vec<String> {
    table.take::<Vec<String>>(key, problems).map(Spanned::into_inner).unwrap_or_default()
}

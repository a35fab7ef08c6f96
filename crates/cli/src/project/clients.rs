//! `[[identity.clients]]`: the clients of the development issuer that do not register themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ringfence_actions::file::Table;
use ringfence_core::{Problem, Secret};
use ringfence_identity::development::{Client, GATEWAY_CLIENT, Grant, RedirectUri, User};

use crate::private_file::PrivateFile;

/// The longest name, in bytes: it is a claim of tokens.
const ID_BYTES_MAX: usize = 128;

pub(super) fn clients(
    folder: &Path,
    identity: &mut Table<'_>,
    users: &BTreeMap<String, User>,
    problems: &mut Vec<Problem>,
) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    for mut table in identity.list("clients", problems) {
        let client = client(folder, &mut table, problems);
        let Some(client) = client else { continue };
        let is_taken = client.id == GATEWAY_CLIENT
            || users.contains_key(&client.id)
            || clients.iter().any(|other| other.id == client.id);
        if is_taken {
            let what = format!("`{}` is the name of a user or of another client", client.id);
            let instead = "rename the client: a token in its own name would name that one";
            problems.push(Problem::error(table.place(), what, instead));
        }
        table.finish(problems);
        clients.push(client);
    }
    clients
}

fn client(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Client> {
    let id = table.require::<String>("id", problems);
    let secret = secret(folder, table, problems);
    let redirect_uris = redirect_uris(table, problems);
    let grants = grants(table, problems);
    let may_exchange = table.has("may-exchange").then(|| table.table("may-exchange", problems)).flatten();
    let may_exchange = may_exchange.map(|audiences| audiences.values::<Vec<String>>(problems));
    let may_exchange = may_exchange.unwrap_or_default().into_iter();
    let id = id?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if id.get_ref().is_empty() || id.get_ref().len() > ID_BYTES_MAX || !id.get_ref().bytes().all(is_plain) {
        let what = format!("`{}` is not the name of a client", id.get_ref());
        problems.push(Problem::error(table.place_of(&id), what, "write letters, digits, `-`, `.` and `_`"));
    }
    let client = Client {
        id: id.into_inner(),
        name: None,
        secret,
        redirect_uris,
        grants,
        may_exchange: may_exchange.map(|(name, scopes)| (name, scopes.into_iter().collect())).collect(),
    };
    let mut refuse = |is_wrong: bool, what: &str, instead: &str| {
        if is_wrong {
            problems.push(Problem::error(table.place(), what, instead));
        }
    };
    let may = |grant| client.grants.contains(&grant);
    refuse(
        client.secret.is_none() && (may(Grant::ClientCredentials) || may(Grant::TokenExchange)),
        "a client without `secret-file` cannot prove who it is",
        "add `secret-file = \"FILE\"`, or write `grants = [\"authorization-code\"]`",
    );
    refuse(
        client.redirect_uris.is_empty() && may(Grant::AuthorizationCode),
        "users could not be sent back to a client without `redirect-uris`",
        "add `redirect-uris = [\"https://…\"]`, or write other `grants`",
    );
    refuse(
        client.may_exchange.is_empty() == may(Grant::TokenExchange),
        "`may-exchange` and the grant `token-exchange` need each other",
        "add the other one: `may-exchange = { \"https://AUDIENCE\" = [\"SCOPE\"] }`",
    );
    Some(client)
}

fn secret(folder: &Path, table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Secret> {
    let file = table.take::<String>("secret-file", problems)?;
    let (what, instead) = match PrivateFile::read(&folder.join(file.get_ref())) {
        Ok(Some(secret)) if secret.expose().trim().len() >= 16 => {
            return Some(Secret::new(secret.expose().trim().to_owned()));
        }
        Ok(Some(_)) => {
            (format!("the secret in `{}` can be guessed", file.get_ref()), "write 16 characters or more")
        }
        Ok(None) => (format!("`{}` does not exist", file.get_ref()), "write the client's secret there"),
        Err(error) => (error.to_string(), "correct the file"),
    };
    problems.push(Problem::error(table.place_of(&file), what, instead));
    None
}

fn redirect_uris(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<RedirectUri> {
    let Some(texts) = table.take::<Vec<String>>("redirect-uris", problems) else { return Vec::new() };
    let mut read = Vec::new();
    for text in texts.get_ref() {
        match RedirectUri::new(text) {
            Ok(uri) => read.push(uri),
            Err(bad) => {
                problems.push(Problem::error(table.place_of(&texts), bad.to_string(), "correct it"));
            }
        }
    }
    read
}

fn grants(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> BTreeSet<Grant> {
    let names = table.take::<Vec<String>>("grants", problems);
    let Some(names) = names else { return BTreeSet::from([Grant::AuthorizationCode]) };
    let mut grants = BTreeSet::new();
    for name in names.get_ref() {
        if let Some(grant) = Grant::named(name) {
            grants.insert(grant);
            continue;
        }
        let instead = "write `authorization-code`, `client-credentials` or `token-exchange`";
        problems.push(Problem::error(table.place_of(&names), format!("`{name}` is not a grant"), instead));
    }
    grants
}

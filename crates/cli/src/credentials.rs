//! Makes the credentials that a project declares, and says what is wrong with them, or worth knowing.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence_actions::ActionSpace;
use ringfence_core::{Place, Problem, Secret, SystemName};
use ringfence_identity::Endpoint;
use ringfence_identity::credential::{
    AccountSettings, Accounts, AccountsSettings, ClientSettings, Credential, Exchange, ExchangeSettings,
    OnBehalfOf, OnBehalfOfSettings, Sealer, StaticKey,
};
use ringfence_identity::development::{GATEWAY_CLIENT, Issuer};
use ringfence_identity::login::{CodeClient, CodeClientSettings};

use crate::failure::Failure;
use crate::grants::GrantsOf;
use crate::private_file::PrivateFile;
use crate::project::{
    ClientDeclaration, CredentialDeclaration, CredentialWay, IssuerSource, LoginDeclaration, PROJECT_FILE,
    Project, SecretSource, SystemDeclaration,
};

/// What is wrong, and what to write instead.
type Wrong = (String, String);

/// The credential that was declared.
pub(crate) fn credential(
    declared: &CredentialDeclaration,
    issuer: Option<&Issuer>,
    accounts: Option<&Arc<Accounts>>,
) -> Result<Credential, Wrong> {
    match declared.way.clone() {
        CredentialWay::Exchange { client, target, scopes, act_required } => {
            let client = self::client(&client, issuer)?;
            let made = Exchange::new(ExchangeSettings { client, target, scopes, act_required });
            made.map(Box::new).map(Credential::Exchange).map_err(no_tls)
        }
        CredentialWay::OnBehalfOf { client, audience, scopes, also_given } => {
            let client = self::client(&client, None)?;
            let made = OnBehalfOf::new(OnBehalfOfSettings { client, audience, scopes, also_given });
            made.map(Box::new).map(Credential::OnBehalfOf).map_err(no_tls)
        }
        CredentialWay::Account { .. } => {
            let missing = || ("there are no accounts".to_owned(), "correct `[accounts]`".to_owned());
            accounts.cloned().map(Credential::Account).ok_or_else(missing)
        }
        CredentialWay::Static { header, format, value, .. } => {
            let made = StaticKey::new(&header, &format, secret(&value)?);
            made.map(Credential::Static)
                .map_err(|bad| (bad.to_string(), "correct the key, `header` or `format`".to_owned()))
        }
    }
}

/// The accounts of all systems that have them; none where there is no such system, or something is wrong.
pub(crate) fn accounts(
    project: &Project,
    base: String,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Accounts>> {
    let mut systems = BTreeMap::new();
    for (name, system) in &project.systems {
        let SystemDeclaration::Http { credential: Some(declared), .. } = &system.declaration else {
            continue;
        };
        let CredentialWay::Account { login, resource } = &declared.way else { continue };
        match code_client(login, resource.clone(), login.issuer.clone()) {
            Ok(client) => {
                systems.insert(name.clone(), AccountSettings { client });
            }
            Err((what, instead)) => problems.push(Problem::error(login.place.clone(), what, instead)),
        }
    }
    if systems.is_empty() {
        return None;
    }
    match sealer(project).and_then(|sealer| {
        let store = Arc::new(GrantsOf::new(project.journal.folder.clone()));
        let settings = AccountsSettings { base, sealer, store, systems };
        Accounts::new(settings)
            .map_err(|refused| (refused.to_string(), "correct the account's endpoints".to_owned()))
    }) {
        Ok(accounts) => Some(Arc::new(accounts)),
        Err((what, instead)) => {
            problems.push(Problem::error(Place::start(PROJECT_FILE), what, instead));
            None
        }
    }
}

fn sealer(project: &Project) -> Result<Sealer, Wrong> {
    let instead = "write `[accounts]` with `key = { env = \"VARIABLE\" }` or `key = { file = \"…\" }`: 32 random bytes in base64, as `head -c 32 /dev/urandom | base64` makes them";
    let missing =
        || ("users connect accounts, and there is no key to seal them with".to_owned(), instead.to_owned());
    let source = project.accounts_key.as_ref().ok_or_else(missing)?;
    Sealer::new(&secret(source)?).map_err(|bad| (bad.to_string(), instead.to_owned()))
}

/// The identity provider as browsers are sent to it, for a token that opens the people's door.
pub(crate) fn login(
    project: &Project,
    issuer: Option<&Issuer>,
    audience: String,
) -> Result<CodeClient, Failure> {
    let settings = match (&project.login, issuer, &project.identity.source) {
        (Some(declared), _, source) => {
            let named = match source {
                IssuerSource::External(declared) => match declared.as_slice() {
                    [only] => Some(only.issuer.clone()),
                    _ => None,
                },
                IssuerSource::Development(_) => issuer.map(Issuer::name),
            };
            code_client(declared, Some(audience), declared.issuer.clone().or(named))
        }
        (None, Some(issuer), _) => developments(issuer, audience),
        (None, None, _) => {
            let instead = "add `[login]` with `authorization-endpoint`, `token-endpoint` and `client-id`: the gateway's own client at your issuer";
            Err(("users connect accounts, and have no way to log in".to_owned(), instead.to_owned()))
        }
    };
    let (settings, failed) = (settings, |(what, instead): Wrong| Failure::new(what, instead));
    CodeClient::new(settings.map_err(failed)?).map_err(Failure::of)
}

fn developments(issuer: &Issuer, audience: String) -> Result<CodeClientSettings, Wrong> {
    let name = issuer.name();
    Ok(CodeClientSettings {
        authorization_endpoint: format!("{name}/authorize"),
        client: own_client(issuer)?,
        issuer: Some(name),
        resource: Some(audience),
        scopes: Vec::new(),
    })
}

fn code_client(
    declared: &LoginDeclaration,
    resource: Option<String>,
    issuer: Option<String>,
) -> Result<CodeClientSettings, Wrong> {
    let LoginDeclaration { authorization_endpoint, client, scopes, .. } = declared;
    let endpoint = authorization_endpoint.clone();
    // The operator writes these, so they are of the operator's own network where they say so.
    Endpoint::internal(&endpoint)
        .map_err(|bad| (bad.to_string(), "correct `authorization-endpoint`".to_owned()))?;
    // A public client has no secret: PKCE alone binds the code to the browser that asked for it.
    let client = match client.client_secret_file {
        Some(_) => self::client(client, None)?,
        None => ClientSettings {
            token_endpoint: token_endpoint(client)?,
            client_id: client.client_id.clone().ok_or_else(|| lacks("client-id"))?,
            client_secret: None,
        },
    };
    Ok(CodeClientSettings {
        authorization_endpoint: endpoint,
        client,
        issuer,
        resource,
        scopes: scopes.clone(),
    })
}

/// The gateway's own client: as it was declared, or the one of the development issuer.
fn client(declared: &ClientDeclaration, issuer: Option<&Issuer>) -> Result<ClientSettings, Wrong> {
    if let (Some(issuer), None) = (issuer, &declared.token_endpoint) {
        return own_client(issuer);
    }
    let file = declared.client_secret_file.clone().ok_or_else(|| lacks("client-secret-file"))?;
    let client_secret = Some(secret(&SecretSource::File(file))?);
    let client_id = declared.client_id.clone().ok_or_else(|| lacks("client-id"))?;
    Ok(ClientSettings { token_endpoint: token_endpoint(declared)?, client_id, client_secret })
}

fn own_client(issuer: &Issuer) -> Result<ClientSettings, Wrong> {
    let endpoint = Endpoint::new(&format!("{}/token", issuer.name()));
    let token_endpoint =
        endpoint.map_err(|bad| (bad.to_string(), "correct `development-listen`".to_owned()))?;
    Ok(ClientSettings {
        token_endpoint,
        client_id: GATEWAY_CLIENT.to_owned(),
        client_secret: Some(issuer.gateway_secret()),
    })
}

fn token_endpoint(declared: &ClientDeclaration) -> Result<Endpoint, Wrong> {
    let endpoint = declared.token_endpoint.as_ref().ok_or_else(|| lacks("token-endpoint"))?;
    Endpoint::internal(endpoint).map_err(|bad| (bad.to_string(), "correct `token-endpoint`".to_owned()))
}

fn lacks(key: &str) -> Wrong {
    (format!("`{key}` is missing"), format!("write `{key} = …`: the gateway's own client at your issuer"))
}

fn no_tls(error: String) -> Wrong {
    (error, "see the log".to_owned())
}

/// A secret out of the environment, or out of a file that its owner alone can read.
pub(crate) fn secret(source: &SecretSource) -> Result<Secret, Wrong> {
    let text = match source {
        SecretSource::Environment(variable) => std::env::var(variable).map(Secret::new).map_err(|_| {
            (format!("the environment has no `{variable}`"), "set it where the gateway is started".to_owned())
        })?,
        SecretSource::File(file) => {
            let read = PrivateFile::read(file)
                .map_err(|error| (error.to_string(), "correct the file".to_owned()))?;
            let missing =
                || (format!("`{}` does not exist", file.display()), "write the secret there".to_owned());
            read.ok_or_else(missing)?
        }
    };
    Ok(Secret::new(text.expose().trim().to_owned()))
}

/// That each tool names scopes of its own, within those of its system.
pub(crate) fn check_scopes(project: &Project, space: &ActionSpace, problems: &mut Vec<Problem>) {
    for tool in space.tools() {
        let declared = project.systems.get(tool.system()).and_then(|system| match &system.declaration {
            SystemDeclaration::Http { credential, .. } => credential.as_deref(),
            _ => None,
        });
        let of_system = declared.map_or(&[][..], CredentialDeclaration::scopes);
        let listed = of_system.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(", ");
        match tool.scopes() {
            Some(scopes) => {
                for scope in scopes.iter().filter(|scope| !of_system.contains(scope)) {
                    let what = format!("`{scope}` is not among the scopes of `{}`", tool.system());
                    let instead = if of_system.is_empty() {
                        "leave `scopes` out: the system's `credential` has none".to_owned()
                    } else {
                        format!("write some of {listed}, or add it to the system's `credential`")
                    };
                    problems.push(Problem::error(tool.place().clone(), what, instead));
                }
            }
            None if of_system.len() > 1 => {
                let what = format!("`{}` does not say which scopes of its system it needs", tool.name());
                let instead =
                    format!("add `scopes = […]`, with some of {listed}: its credential carries no others");
                problems.push(Problem::error(tool.place().clone(), what, instead));
            }
            None => {}
        }
    }
}

/// Each credential that many users share: the system behind it cannot tell them apart.
pub(crate) fn note_shared(project: &Project, problems: &mut Vec<Problem>) {
    let mut note = |place: &Place, name: &SystemName, why: &str| {
        let what = format!("`{name}` sees one key for all users: {why}");
        let instead = "what it lets that key do, policy alone decides for whom";
        problems.push(Problem::note(place.clone(), what, instead));
    };
    for (name, system) in &project.systems {
        match &system.declaration {
            SystemDeclaration::Http { credential: Some(declared), .. } => {
                if let CredentialWay::Static { shared, .. } = &declared.way {
                    note(&declared.place, name, shared);
                }
            }
            SystemDeclaration::Sandbox(sandbox) => {
                for secret in sandbox.secrets.keys() {
                    note(&system.place, name, &format!("`{secret}`, on the way out of its programs"));
                }
            }
            _ => {}
        }
    }
}

//! Whose tokens are believed at which door: the part of the wiring that makes the [`Identity`].

use ringfence_core::{Problem, Secret, Verifier};
use ringfence_identity::development::Issuer;
use ringfence_identity::{
    Identity, Introspection, IntrospectionSettings, KeySource, TokenCheck, TokenRules, TrustedIssuer,
};

use crate::failure::Failure;
use crate::private_file::PrivateFile;
use crate::project::{CredentialWay, IssuerDeclaration, IssuerSource, Project, SystemDeclaration};
use crate::wiring::{Addresses, agents_audience, peoples_audience};

/// The identity of a project, with the development issuer where it has one.
pub(crate) fn identity(
    project: &Project,
    development: Option<&Issuer>,
    addresses: &Addresses,
    verifier: Verifier,
) -> Result<Identity, Failure> {
    let (agents, people) = (agents_audience(project, addresses), peoples_audience(project, addresses));
    let mut trusted = match &project.identity.source {
        IssuerSource::External(declared) => {
            let trusted = declared.iter().map(|declared| trusted(declared, &agents, &people));
            trusted.collect::<Result<Vec<_>, _>>()?
        }
        IssuerSource::Development(_) => {
            let issuer = development.ok_or_else(|| Failure::of("the development issuer is missing"))?;
            let check = |audience: &str| issuer.check(audience).map_err(Failure::of);
            let groups = project.identity.groups_claim.clone();
            vec![TrustedIssuer { agents: check(&agents)?, people: check(&people)?, groups }]
        }
    }
    .into_iter();
    let TrustedIssuer { agents, people, groups } =
        trusted.next().ok_or_else(|| Failure::of("no issuer is trusted"))?;
    let identity = Identity::new(agents, people, groups, verifier);
    let identity = trusted.fold(identity, Identity::trusting);
    Ok(identity.knowing(project.agents.clone()).proving(project.identity.proofs))
}

fn trusted(declared: &IssuerDeclaration, agents: &str, people: &str) -> Result<TrustedIssuer, Failure> {
    let of_door = |own: &Option<String>, door: &str| own.clone().unwrap_or_else(|| door.to_owned());
    let rules = TokenRules {
        issuer: declared.issuer.clone(),
        audience: of_door(&declared.agents_audience, agents),
        algorithms: declared.algorithms.clone(),
        token_type: declared.token_type.clone(),
        lifetime_max_seconds: declared.lifetime_max_seconds,
    };
    let keys = match (&declared.jwks, &declared.discovery) {
        (Some(jwks), _) => KeySource::Url(jwks.clone()),
        (None, Some(issuer)) => KeySource::Discovered(issuer.clone()),
        (None, None) => return Err(Failure::of("an issuer's keys are nowhere to be found")),
    };
    let check = TokenCheck::keeping_keys(rules, keys, declared.key_times).map_err(Failure::of)?;
    let check = asking(declared, check)?;
    let people = check.for_audience(of_door(&declared.people_audience, people));
    Ok(TrustedIssuer { agents: check, people, groups: declared.groups.clone() })
}

/// The check of an issuer that is asked about its tokens, where it is.
fn asking(declared: &IssuerDeclaration, check: TokenCheck) -> Result<TokenCheck, Failure> {
    let Some(asked) = &declared.introspection else { return Ok(check) };
    let introspection = Introspection::new(IntrospectionSettings {
        endpoint: asked.endpoint.clone(),
        client_id: asked.client_id.clone(),
        client_secret: client_secret(declared)?,
    });
    let introspection = introspection.map_err(Failure::of)?;
    Ok(match declared.recheck_seconds {
        Some(seconds) => check.rechecked(introspection, seconds),
        None => check.opaque(introspection, asked.cache_seconds),
    })
}

fn client_secret(declared: &IssuerDeclaration) -> Result<Secret, Failure> {
    let Some(asked) = &declared.introspection else { return Err(Failure::of("nobody is asked")) };
    let file = &asked.client_secret_file;
    let lacks = || Failure::new(format!("`{}` does not exist", file.display()), "write the secret there");
    let secret = PrivateFile::read(file).map_err(Failure::of)?.ok_or_else(lacks)?;
    Ok(Secret::new(secret.expose().trim().to_owned()))
}

/// What is wrong with whom a project trusts, as far as it shows without asking anybody.
pub(crate) fn check(project: &mut Project) {
    let IssuerSource::External(declared) = &project.identity.source else { return };
    let mut problems = Vec::new();
    for declared in declared.iter().filter(|declared| declared.introspection.is_some()) {
        if let Err(failure) = client_secret(declared) {
            let (what, instead) = failure.into_parts("write the secret there, readable for this user alone");
            problems.push(Problem::error(declared.place.clone(), what, instead));
        }
    }
    project.problems.extend(problems);
}

/// What would take a token of the gateway's own doors, or of another issuer, through a system's exchange.
pub(crate) fn check_exchanges(project: &Project, problems: &mut Vec<Problem>) {
    let IssuerSource::External(issuers) = &project.identity.source else { return };
    let own: Vec<&String> = issuers
        .iter()
        .flat_map(|issuer| issuer.agents_audience.iter().chain(&issuer.people_audience))
        .collect();
    for system in project.systems.values() {
        let SystemDeclaration::Http { credential: Some(declared), .. } = &system.declaration else {
            continue;
        };
        let CredentialWay::Exchange { target, .. } = &declared.way else { continue };
        if issuers.len() > 1 {
            let what = "tokens of several issuers would be exchanged at the endpoint of one";
            let instead = "trust one issuer in a project whose systems exchange tokens";
            problems.push(Problem::error(system.place.clone(), what, instead));
        }
        if own.iter().any(|own| own.as_str() == target.name()) {
            let what = format!("the audience `{}` is one of the gateway's own doors", target.name());
            let instead = "name the system itself: a tool would get a token that opens the gateway";
            problems.push(Problem::error(system.place.clone(), what, instead));
        }
    }
}

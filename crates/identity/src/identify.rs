//! A verified token becomes a principal and an agent. The only place that makes a principal.

use std::collections::BTreeSet;

use ringfence_core::{AgentId, Claims, GroupName, Instant, Principal, Secret, Verifier};
use serde_json::Value;

use crate::{TokenCheck, TokenRefused, VerifiedToken};

/// Which listener a token was sent to. Each has an audience of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// `/mcp`.
    Agents,
    /// The console, approvals and metrics.
    People,
}

/// Says who calls.
pub struct Identity {
    agents: TokenCheck,
    people: TokenCheck,
    groups_claim: GroupsClaim,
    verifier: Verifier,
}

/// Where a token names the groups of its user.
#[derive(Clone, Debug)]
pub struct GroupsClaim {
    /// The claim: a list of texts.
    pub name: String,
    /// Whether a token without the claim is one of a user without groups. Otherwise it is refused: a group that is not named
    /// might be one that a forbid names.
    pub optional: bool,
}

/// Who calls, and until when.
#[derive(Clone, Debug, PartialEq)]
pub struct Identified {
    /// In whose name.
    pub principal: Principal,
    /// The OAuth client.
    pub agent: AgentId,
    /// What the token allows.
    pub scopes: BTreeSet<String>,
    /// When the token ends.
    pub expires: Instant,
}

/// An application, in its own name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Application {
    /// Its OAuth client.
    pub client: AgentId,
    /// What its token allows.
    pub scopes: BTreeSet<String>,
}

impl Identity {
    /// An identity with a token check for each door.
    #[must_use]
    pub fn new(
        agents: TokenCheck,
        people: TokenCheck,
        groups_claim: GroupsClaim,
        verifier: Verifier,
    ) -> Self {
        Self { agents, people, groups_claim, verifier }
    }

    /// Who sent this token to this door.
    pub async fn identify(
        &self,
        door: Door,
        token: &Secret,
        now: Instant,
    ) -> Result<Identified, TokenRefused> {
        self.principal(self.check(door).check(token, now).await?)
    }

    /// Which application sent this token to this door in its own name: by the client credentials grant, of which the client
    /// is the subject (RFC 9068 §2.2).
    pub async fn application(
        &self,
        door: Door,
        token: &Secret,
        now: Instant,
    ) -> Result<Application, TokenRefused> {
        let token = self.check(door).check(token, now).await?;
        if token.subject != token.client {
            return Err(TokenRefused::Claims);
        }
        let client = AgentId::new(token.client).map_err(|_| TokenRefused::Claims)?;
        Ok(Application { client, scopes: token.scopes })
    }

    /// The principal of a run that was stored with the claims of a token that was verified when it began.
    pub fn restored(&self, stored: VerifiedToken) -> Result<Identified, TokenRefused> {
        self.principal(stored)
    }

    fn check(&self, door: Door) -> &TokenCheck {
        match door {
            Door::Agents => &self.agents,
            Door::People => &self.people,
        }
    }

    fn principal(&self, token: VerifiedToken) -> Result<Identified, TokenRefused> {
        let issuer = token.claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
        let groups = groups(&token.claims, &self.groups_claim)?;
        let agent = AgentId::new(token.client).map_err(|_| TokenRefused::Claims)?;
        let principal = Principal::verified(&self.verifier, issuer, token.subject, groups, token.claims);
        Ok(Identified { principal, agent, scopes: token.scopes, expires: token.expires })
    }
}

/// The groups of a token. Where some may be missing, or cannot be read, one could be a group that a forbid names: no.
fn groups(claims: &Claims, wanted: &GroupsClaim) -> Result<BTreeSet<GroupName>, TokenRefused> {
    // Too many groups for the token: they are to be fetched elsewhere (OpenID Connect Core §5.6.2; Entra's *overage*).
    if claims.contains_key("_claim_names") || claims.contains_key("hasgroups") {
        return Err(TokenRefused::Claims);
    }
    let claim = match claims.get(&wanted.name) {
        Some(claim) => claim,
        None if wanted.optional => return Ok(BTreeSet::new()),
        None => return Err(TokenRefused::Claims),
    };
    let list = claim.as_array().ok_or(TokenRefused::Claims)?;
    let names = list.iter().map(|name| GroupName::new(name.as_str()?.to_owned()).ok());
    names.collect::<Option<_>>().ok_or(TokenRefused::Claims)
}

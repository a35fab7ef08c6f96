//! A verified token becomes a principal and an agent. The only place that makes a principal.

use std::collections::BTreeSet;

use ringfence_core::{AgentId, GroupName, Instant, Principal, Secret, Verifier};
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
    groups_claim: String,
    verifier: Verifier,
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

impl Identity {
    /// An identity with a token check for each door.
    #[must_use]
    pub fn new(agents: TokenCheck, people: TokenCheck, groups_claim: String, verifier: Verifier) -> Self {
        Self { agents, people, groups_claim, verifier }
    }

    /// Who sent this token to this door.
    pub async fn identify(
        &self,
        door: Door,
        token: &Secret,
        now: Instant,
    ) -> Result<Identified, TokenRefused> {
        let check = match door {
            Door::Agents => &self.agents,
            Door::People => &self.people,
        };
        self.principal(check.check(token, now).await?)
    }

    fn principal(&self, token: VerifiedToken) -> Result<Identified, TokenRefused> {
        let issuer = token.claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
        let groups = groups(token.claims.get(&self.groups_claim))?;
        let agent = AgentId::new(token.client).map_err(|_| TokenRefused::Claims)?;
        let principal = Principal::verified(&self.verifier, issuer, token.subject, groups, token.claims);
        Ok(Identified { principal, agent, scopes: token.scopes, expires: token.expires })
    }
}

/// The groups of a claim. A claim that is there but cannot be read might hold a group that a forbid names: no.
fn groups(claim: Option<&Value>) -> Result<BTreeSet<GroupName>, TokenRefused> {
    let Some(claim) = claim else { return Ok(BTreeSet::new()) };
    let list = claim.as_array().ok_or(TokenRefused::Claims)?;
    let names = list.iter().map(|name| GroupName::new(name.as_str()?.to_owned()).ok());
    names.collect::<Option<_>>().ok_or(TokenRefused::Claims)
}

//! A verified token becomes a principal and an agent. The only place that makes a principal.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::{AgentId, Claims, GroupName, Instant, Principal, Secret, Verifier};
use serde::Deserialize;

use crate::dpop::{self, ProofRefused, SpentProofs};
use crate::{Presented, Scheme, TokenCheck, TokenRefused, VerifiedToken};

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
    issuers: Vec<TrustedIssuer>,
    agents: KnownAgents,
    proofs: ProofRule,
    spent: SpentProofs,
    verifier: Verifier,
}

/// An issuer whose tokens are believed: its own keys and rules alone judge them.
pub struct TrustedIssuer {
    /// Tokens for the agents' door.
    pub agents: TokenCheck,
    /// Tokens for the people's door.
    pub people: TokenCheck,
    /// Where its tokens name groups.
    pub groups: GroupsClaim,
}

/// The OAuth clients that may act as agents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KnownAgents {
    /// Any that a trusted issuer gives a token to.
    Any,
    /// These.
    Only(BTreeSet<String>),
}

/// Whether tokens have to be bound to a key of the client's (RFC 9449).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProofRule {
    /// A token that is bound needs its proof; another one does not.
    WhereBound,
    /// Every token has to be bound.
    Always,
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

/// An application that calls in its own name (client credentials, RFC 6749 §4.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Application {
    /// The issuer that vouches for it.
    pub issuer: String,
    /// Its OAuth client.
    pub client: AgentId,
    /// The thumbprint of the key that its token is bound to.
    pub key: Option<String>,
    /// What the token allows.
    pub scopes: BTreeSet<String>,
    /// When the token ends.
    pub expires: Instant,
}

impl Identity {
    /// An identity with a token check for each door. No agent is known yet.
    #[must_use]
    pub fn new(
        agents: TokenCheck,
        people: TokenCheck,
        groups_claim: GroupsClaim,
        verifier: Verifier,
    ) -> Self {
        Self {
            issuers: vec![TrustedIssuer { agents, people, groups: groups_claim }],
            agents: KnownAgents::Only(BTreeSet::new()),
            proofs: ProofRule::WhereBound,
            spent: SpentProofs::default(),
            verifier,
        }
    }

    /// Trusts a further issuer.
    #[must_use]
    pub fn trusting(mut self, issuer: TrustedIssuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// Knows these agents.
    #[must_use]
    pub fn knowing(self, agents: KnownAgents) -> Self {
        Self { agents, ..self }
    }

    /// Asks for proofs by this rule.
    #[must_use]
    pub fn proving(self, proofs: ProofRule) -> Self {
        Self { proofs, ..self }
    }

    /// Who sent this token to this door.
    pub async fn identify(
        &self,
        door: Door,
        presented: impl Into<Presented<'_>>,
        now: Instant,
    ) -> Result<Identified, TokenRefused> {
        let (issuer, token) = self.presented(door, &presented.into(), now).await?;
        if door == Door::Agents && !self.agents.has(&token.client) {
            return Err(TokenRefused::Agent);
        }
        self.principal(issuer, token)
    }

    /// Which application sent its own token to this door. It has no user, and so no groups.
    pub async fn application(
        &self,
        door: Door,
        presented: impl Into<Presented<'_>>,
        now: Instant,
    ) -> Result<Application, TokenRefused> {
        let (issuer, token) = self.presented(door, &presented.into(), now).await?;
        // RFC 9068 §2.2: without a user the subject is the client.
        if token.subject != token.client {
            return Err(TokenRefused::NotAnApplication);
        }
        let issuer = issuer.agents.issuer().to_owned();
        let key = bound_to(&token.claims)?;
        let client = AgentId::new(token.client).map_err(|_| TokenRefused::Claims)?;
        Ok(Application { issuer, client, key, scopes: token.scopes, expires: token.expires })
    }

    /// The user of a token that an application hands over, which proved to be `application`. A token that is bound has to be
    /// bound to the application's own key.
    pub async fn handed_over(
        &self,
        door: Door,
        token: &Secret,
        application: &Application,
        now: Instant,
    ) -> Result<Identified, TokenRefused> {
        let issuer = self.issuer_of(token)?;
        let token = issuer.check(door).check(token, now).await?;
        if bound_to(&token.claims)? != application.key {
            return Err(TokenRefused::Bound);
        }
        self.principal(issuer, token)
    }

    /// The principal of a run that was stored with the claims of a token that was verified when it began. An issuer that is
    /// trusted no more vouches for nobody.
    pub fn restored(&self, issuer: &str, stored: VerifiedToken) -> Result<Identified, TokenRefused> {
        let issuer = self.issuers.iter().find(|trusted| trusted.agents.issuer() == issuer);
        self.principal(issuer.ok_or(TokenRefused::Issuer)?, stored)
    }

    /// Whether this issuer is asked, again and again, about the tokens that it gave out.
    #[must_use]
    pub fn is_rechecked(&self, issuer: &str) -> bool {
        let issuer = self.issuers.iter().find(|trusted| trusted.agents.issuer() == issuer);
        issuer.is_some_and(|issuer| issuer.people.is_asked())
    }

    /// Whether a token that was presented before is good still: not expired, and not revoked as far as its issuer is asked.
    pub async fn still_good(&self, door: Door, token: &Secret, now: Instant) -> Result<(), TokenRefused> {
        let issuer = self.issuer_of(token)?;
        issuer.check(door).check(token, now).await.map(drop)
    }

    /// A token that is sound, for this door, and used by whom it was bound to.
    async fn presented(
        &self,
        door: Door,
        presented: &Presented<'_>,
        now: Instant,
    ) -> Result<(&TrustedIssuer, VerifiedToken), TokenRefused> {
        let issuer = self.issuer_of(presented.token)?;
        let token = issuer.check(door).check(presented.token, now).await?;
        let owner = (issuer.agents.issuer(), token.subject.as_str());
        self.check_key(presented, bound_to(&token.claims)?.as_deref(), owner, now)?;
        Ok((issuer, token))
    }

    /// The issuer that the token names, which nothing vouches for yet: its keys do so next, and no other's are asked.
    fn issuer_of(&self, token: &Secret) -> Result<&TrustedIssuer, TokenRefused> {
        match named_issuer(token.expose()) {
            Some(name) => {
                let named = self.issuers.iter().find(|issuer| issuer.agents.issuer() == name);
                named.ok_or(TokenRefused::Issuer)
            }
            None => {
                let opaque = self.issuers.iter().find(|issuer| issuer.agents.is_opaque());
                opaque.ok_or(TokenRefused::Malformed)
            }
        }
    }

    /// Whether a token that is bound to this key, if any, is used as it is bound (RFC 9449 §7.1 and §7.2). `owner` is whose it is:
    /// issuer and subject.
    pub fn check_key(
        &self,
        presented: &Presented<'_>,
        key: Option<&str>,
        owner: (&str, &str),
        now: Instant,
    ) -> Result<(), TokenRefused> {
        let Some(key) = key else {
            let is_bearer = presented.scheme == Scheme::Bearer && self.proofs == ProofRule::WhereBound;
            return if is_bearer { Ok(()) } else { Err(TokenRefused::Unbound) };
        };
        if presented.scheme == Scheme::Bearer {
            return Err(TokenRefused::Bound);
        }
        let proof = presented.proof.ok_or(TokenRefused::Proof(ProofRefused::Malformed))?;
        let url = presented.url.ok_or(TokenRefused::Proof(ProofRefused::Url))?;
        let (method, token) = (presented.method, Some(presented.token));
        let expected = dpop::Expected { method, url, token, key: Some(key), owner: Some(owner) };
        dpop::check(proof, &expected, now, &self.spent).map(drop).map_err(TokenRefused::Proof)
    }

    fn principal(&self, issuer: &TrustedIssuer, token: VerifiedToken) -> Result<Identified, TokenRefused> {
        let groups = groups(&token.claims, &issuer.groups)?;
        let issuer = issuer.agents.issuer().to_owned();
        let agent = AgentId::new(token.client).map_err(|_| TokenRefused::Claims)?;
        let principal = Principal::verified(&self.verifier, issuer, token.subject, groups, token.claims);
        Ok(Identified { principal, agent, scopes: token.scopes, expires: token.expires })
    }
}

impl TrustedIssuer {
    fn check(&self, door: Door) -> &TokenCheck {
        match door {
            Door::Agents => &self.agents,
            Door::People => &self.people,
        }
    }
}

impl KnownAgents {
    fn has(&self, client: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(known) => known.contains(client),
        }
    }
}

/// The key that a token is bound to. A binding of another kind cannot be checked here.
fn bound_to(claims: &Claims) -> Result<Option<String>, TokenRefused> {
    let Some(binding) = claims.get("cnf") else { return Ok(None) };
    let only = binding.as_object().filter(|members| members.len() == 1);
    let key = only.and_then(|members| members.get("jkt")?.as_str()).ok_or(TokenRefused::Claims)?;
    Ok(Some(key.to_owned()))
}

/// The `iss` of what looks like a JWT, unverified.
fn named_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    let (_, rest) = token.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    if signature.contains('.') {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Named>(&payload).ok().map(|named| named.iss)
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

//! Where the accounts that users have connected are kept. Whoever keeps them sees them sealed.

use ringfence_core::{Instant, SystemName};

/// Whose account it is, and where.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Owner {
    /// The issuer that vouches for the user.
    pub issuer: String,
    /// The user.
    pub subject: String,
    /// The system.
    pub system: SystemName,
}

/// A grant as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredGrant {
    /// Names this connection, until it is made anew.
    pub connection: String,
    /// What [`Sealer`](super::Sealer) made of it.
    pub sealed: Vec<u8>,
}

/// What is kept cannot be read or written. For the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the connected accounts cannot be read or written: {0}")]
pub struct GrantsUnavailable(pub String);

/// Keeps grants on disk. Several processes may have them open.
pub trait GrantStore: Send + Sync {
    /// The grant of an owner.
    fn read(&self, owner: &Owner) -> Result<Option<StoredGrant>, GrantsUnavailable>;
    /// Puts a grant in the place of whatever was there.
    fn put(&self, owner: &Owner, grant: &StoredGrant, now: Instant) -> Result<(), GrantsUnavailable>;
    /// Replaces what is sealed, if it still is what it was; says whether it did.
    fn replace(&self, owner: &Owner, was: &StoredGrant, sealed: &[u8]) -> Result<bool, GrantsUnavailable>;
    /// Removes a grant, if it still is what it was.
    fn remove(&self, owner: &Owner, was: &StoredGrant) -> Result<(), GrantsUnavailable>;
}

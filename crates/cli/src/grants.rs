//! Hands what identity seals to the store, which knows nothing of it. The file is made when it is first needed.

use std::path::PathBuf;
use std::sync::Mutex;

use ringfence_core::Instant;
use ringfence_identity::credential::{GrantStore, GrantsUnavailable, Owner, StoredGrant};
use ringfence_store::{GrantOwner, Grants, GrantsRefused, SealedGrant};

use crate::wiring::now;

/// The grants in a folder.
pub(crate) struct GrantsOf {
    folder: PathBuf,
    opened: Mutex<Option<Grants>>,
}

impl GrantsOf {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, opened: Mutex::default() }
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Grants) -> Result<T, GrantsRefused>,
    ) -> Result<T, GrantsUnavailable> {
        let unavailable = |error: GrantsRefused| GrantsUnavailable(error.to_string());
        let mut opened = self.opened.lock().map_err(|_| GrantsUnavailable("a use of it failed".into()))?;
        let grants = match opened.take() {
            Some(grants) => grants,
            None => Grants::open(&self.folder).map_err(unavailable)?,
        };
        work(opened.insert(grants)).map_err(unavailable)
    }
}

fn owner(owner: &Owner) -> GrantOwner<'_> {
    GrantOwner { issuer: &owner.issuer, subject: &owner.subject, system: owner.system.as_str() }
}

fn sealed(grant: &StoredGrant) -> SealedGrant {
    SealedGrant { connection: grant.connection.clone(), sealed: grant.sealed.clone() }
}

impl GrantStore for GrantsOf {
    fn read(&self, whose: &Owner) -> Result<Option<StoredGrant>, GrantsUnavailable> {
        let read = self.with(|grants| grants.read(owner(whose)))?;
        Ok(read.map(|SealedGrant { connection, sealed }| StoredGrant { connection, sealed }))
    }

    fn put(&self, whose: &Owner, grant: &StoredGrant, now: Instant) -> Result<(), GrantsUnavailable> {
        self.with(|grants| grants.put(owner(whose), &sealed(grant), now))
    }

    fn replace(&self, whose: &Owner, was: &StoredGrant, renewed: &[u8]) -> Result<bool, GrantsUnavailable> {
        self.with(|grants| grants.replace(owner(whose), &sealed(was), renewed, now()))
    }

    fn remove(&self, whose: &Owner, was: &StoredGrant) -> Result<(), GrantsUnavailable> {
        self.with(|grants| grants.remove(owner(whose), &sealed(was))).map(drop)
    }
}

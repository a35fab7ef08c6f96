//! The accounts that users have connected, in a file beside the journal. What is in it is sealed before it comes here; unlike
//! the journal it forgets, and wipes what it forgets.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ringfence_core::Instant;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Marks the file as ours: "RFG1".
const APPLICATION_ID: i64 = 0x5246_4731;
const FILE: &str = "grants.db";

const SCHEMA: &str = "
CREATE TABLE grants (
    issuer TEXT NOT NULL, subject TEXT NOT NULL, system TEXT NOT NULL,
    connection TEXT NOT NULL, sealed BLOB NOT NULL, connected_at INTEGER NOT NULL, renewed_at INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject, system)
) STRICT, WITHOUT ROWID;
";

/// The grants of a gateway. Several processes may have them open.
pub struct Grants(Mutex<Connection>);

/// Whose grant it is: issuer, subject and system.
#[derive(Clone, Copy, Debug)]
pub struct GrantOwner<'a> {
    /// The issuer that vouches for the user.
    pub issuer: &'a str,
    /// The user.
    pub subject: &'a str,
    /// The system.
    pub system: &'a str,
}

/// What is kept under an owner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedGrant {
    /// Names the connection, until it is made anew.
    pub connection: String,
    /// What nobody reads here.
    pub sealed: Vec<u8>,
}

/// A grant as people see it.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct ListedGrant {
    /// The issuer that vouches for the user.
    pub issuer: String,
    /// The user.
    pub subject: String,
    /// The system.
    pub system: String,
    /// When it was connected.
    pub connected_at: Instant,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{FILE}` in the journal's folder cannot be used: {0}")]
pub struct GrantsRefused(#[from] rusqlite::Error);

impl Grants {
    /// Opens the file in this folder; makes it where there is none.
    pub fn open(folder: &Path) -> Result<Self, GrantsRefused> {
        let path = folder.join(FILE);
        // Made for its owner alone before anything is in it.
        let made = private(&path);
        let connection = Connection::open(&path)?;
        made.map_err(|error| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
            rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
        })?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "synchronous", "full")?;
        let made_by: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if made_by != APPLICATION_ID {
            // Fails on a file that holds other tables, rather than mixing with them.
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
            ))?;
        }
        Ok(Self(Mutex::new(connection)))
    }

    /// The grant of this owner.
    pub fn read(&self, owner: GrantOwner<'_>) -> Result<Option<SealedGrant>, GrantsRefused> {
        let sql = "SELECT connection, sealed FROM grants WHERE issuer = ?1 AND subject = ?2 AND system = ?3";
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let row =
                |row: &rusqlite::Row<'_>| Ok(SealedGrant { connection: row.get(0)?, sealed: row.get(1)? });
            statement.query_row([owner.issuer, owner.subject, owner.system], row).optional()
        })
    }

    /// Puts a grant in the place of whatever was there.
    pub fn put(&self, owner: GrantOwner<'_>, grant: &SealedGrant, now: Instant) -> Result<(), GrantsRefused> {
        let sql = "INSERT OR REPLACE INTO grants VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)";
        let SealedGrant { connection: name, sealed } = grant;
        let GrantOwner { issuer, subject, system } = owner;
        self.with(|connection| {
            connection.execute(sql, params![issuer, subject, system, name, sealed, at(now)])
        })?;
        Ok(())
    }

    /// Replaces what is sealed, if it still is what it was; says whether it did.
    pub fn replace(
        &self,
        owner: GrantOwner<'_>,
        was: &SealedGrant,
        sealed: &[u8],
        now: Instant,
    ) -> Result<bool, GrantsRefused> {
        let sql = "UPDATE grants SET sealed = ?1, renewed_at = ?2
            WHERE issuer = ?3 AND subject = ?4 AND system = ?5 AND connection = ?6 AND sealed = ?7";
        let GrantOwner { issuer, subject, system } = owner;
        let values = params![sealed, at(now), issuer, subject, system, was.connection, was.sealed];
        self.with(|connection| connection.execute(sql, values)).map(|changed| changed == 1)
    }

    /// Removes a grant, if it still is what it was; says whether it did.
    pub fn remove(&self, owner: GrantOwner<'_>, was: &SealedGrant) -> Result<bool, GrantsRefused> {
        let sql = "DELETE FROM grants
            WHERE issuer = ?1 AND subject = ?2 AND system = ?3 AND connection = ?4 AND sealed = ?5";
        let GrantOwner { issuer, subject, system } = owner;
        let values = params![issuer, subject, system, was.connection, was.sealed];
        self.with(|connection| connection.execute(sql, values)).map(|changed| changed == 1)
    }

    /// All grants, in the order of systems and users.
    pub fn list(&self) -> Result<Vec<ListedGrant>, GrantsRefused> {
        let sql = "SELECT issuer, subject, system, connected_at FROM grants ORDER BY system, subject, issuer";
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let row = |row: &rusqlite::Row<'_>| {
                let connected_at = Instant(u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0));
                Ok(ListedGrant {
                    issuer: row.get(0)?,
                    subject: row.get(1)?,
                    system: row.get(2)?,
                    connected_at,
                })
            };
            statement.query_map([], row)?.collect()
        })
    }

    /// Removes the grants of a user at a system, whichever issuer vouches for that user; says how many there were.
    pub fn disconnect(&self, subject: &str, system: &str) -> Result<usize, GrantsRefused> {
        let sql = "DELETE FROM grants WHERE subject = ?1 AND system = ?2";
        self.with(|connection| connection.execute(sql, [subject, system]))
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, GrantsRefused> {
        let connection = self.0.lock().map_err(|_| rusqlite::Error::InvalidQuery)?;
        Ok(work(&connection)?)
    }
}

fn at(now: Instant) -> i64 {
    i64::try_from(now.0).unwrap_or(i64::MAX)
}

fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const BOB: GrantOwner<'_> = GrantOwner { issuer: "i", subject: "bob", system: "crm" };
    const EVE: GrantOwner<'_> = GrantOwner { issuer: "i", subject: "eve", system: "crm" };

    fn grant(sealed: &str) -> SealedGrant {
        SealedGrant { connection: "c".into(), sealed: sealed.as_bytes().to_vec() }
    }

    #[test]
    fn a_grant_is_its_owners_and_is_changed_by_whoever_knows_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (Grants::open(folder.path()).unwrap(), Grants::open(folder.path()).unwrap());
        here.put(BOB, &grant("one"), Instant(7)).unwrap();
        assert_eq!(there.read(BOB).unwrap(), Some(grant("one")));
        assert_eq!(there.read(EVE).unwrap(), None);
        assert!(there.replace(BOB, &grant("one"), b"two", Instant(8)).unwrap());
        assert!(!here.replace(BOB, &grant("one"), b"three", Instant(9)).unwrap(), "it was changed meanwhile");
        assert!(!here.remove(BOB, &grant("one")).unwrap());
        assert_eq!(here.read(BOB).unwrap(), Some(grant("two")));
        here.put(EVE, &grant("eve"), Instant(9)).unwrap();
        let listed = here.list().unwrap();
        assert_eq!(
            listed.iter().map(|listed| (listed.subject.as_str(), listed.connected_at)).collect::<Vec<_>>(),
            [("bob", Instant(7)), ("eve", Instant(9))]
        );
        assert_eq!(there.disconnect("bob", "crm").unwrap(), 1);
        assert_eq!(here.read(BOB).unwrap(), None);
        assert!(here.remove(EVE, &grant("eve")).unwrap());
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_what_is_removed_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let grants = Grants::open(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        grants.put(BOB, &grant("SEALED-HERE"), Instant(7)).unwrap();
        let held = || std::fs::read(&path).unwrap().windows(11).any(|window| window == b"SEALED-HERE");
        assert!(held(), "the control");
        grants.disconnect("bob", "crm").unwrap();
        assert!(!held());
    }

    #[test]
    fn another_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let other = Connection::open(folder.path().join(FILE)).unwrap();
        other.execute_batch("CREATE TABLE grants (x)").unwrap();
        assert!(Grants::open(folder.path()).is_err());
    }
}

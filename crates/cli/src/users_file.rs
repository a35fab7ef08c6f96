//! The users file while the gateway runs: who is taken out of it, or disabled in it, is nobody any more within a second.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringfence_identity::development::{Issuer, User};
use tokio_util::sync::CancellationToken;

use crate::project::{IssuerSource, Project, users_now};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Where the users of a project are.
pub(crate) struct UsersFile {
    folder: PathBuf,
    name: String,
    users: BTreeMap<String, User>,
}

impl UsersFile {
    pub(crate) fn of(project: &Project) -> Self {
        let (name, users) = match &project.identity.source {
            IssuerSource::Development(declared) => (declared.users_file.clone(), declared.users.clone()),
            IssuerSource::External { .. } => (String::new(), BTreeMap::new()),
        };
        Self { folder: project.folder.clone(), name, users }
    }

    /// Keeps the issuer's users what the file says, until `stop`. While it cannot be read, nobody is a user.
    pub(crate) async fn follow(mut self, issuer: Arc<Issuer>, stop: CancellationToken) {
        while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
            let (folder, name) = (self.folder.clone(), self.name.clone());
            let read = tokio::task::spawn_blocking(move || users_now(&folder, &name)).await;
            let read = read.unwrap_or_default();
            let is_readable = read.is_some();
            let users = read.unwrap_or_default();
            if users == self.users {
                continue;
            }
            if is_readable {
                tracing::info!(file = self.name, users = users.len(), "the users file has changed");
            } else {
                tracing::warn!(
                    file = self.name,
                    "the users file is not in order, so nobody can log in: run `ringfence check`"
                );
            }
            issuer.set_users(users.clone());
            self.users = users;
        }
    }
}

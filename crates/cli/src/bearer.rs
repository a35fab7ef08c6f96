//! The access token of a user's login: read anew for each message, and renewed by one at a time.

use std::sync::Arc;
use std::time::Duration;

use ringfence_core::Secret;
use ringfence_identity::native::{Login, NotRenewed};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use crate::failure::Failure;
use crate::logins::LoginFile;
use crate::wiring::now;

/// How long a renewal may go on once nobody needs it any more.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// The token of one login.
pub(crate) struct Bearer {
    login: Arc<Kept>,
    renewals: TaskTracker,
}

struct Kept {
    file: LoginFile,
    renewing: Mutex<()>,
    /// What the user runs to log in.
    command: String,
}

impl Bearer {
    /// The token of the login in this file, which the user makes with this command.
    pub(crate) fn new(file: LoginFile, command: String) -> Self {
        let login = Arc::new(Kept { file, renewing: Mutex::default(), command });
        Self { login, renewals: TaskTracker::new() }
    }

    /// What the user runs to log in.
    pub(crate) fn command(&self) -> &str {
        &self.login.command
    }

    /// A token that is good for a while. Fails with a sentence for the user.
    pub(crate) async fn token(&self) -> Result<Secret, String> {
        let login = self.login.read()?;
        if login.is_fresh(now()) {
            return Ok(login.access_token().clone());
        }
        self.renewed(None).await
    }

    /// A token in place of one that was refused.
    pub(crate) async fn another(&self, refused: Secret) -> Result<Secret, String> {
        self.renewed(Some(refused)).await
    }

    /// Waits for renewals that are under way.
    pub(crate) async fn settle(&self) {
        self.renewals.close();
        let _ended_in_time = tokio::time::timeout(SETTLE_MAX, self.renewals.wait()).await;
    }

    async fn renewed(&self, refused: Option<Secret>) -> Result<Secret, String> {
        let login = self.login.clone();
        // In a task of its own: a request that is given up must not lose what a spent refresh token brought.
        let renewing = self.renewals.spawn(async move { login.renew(refused).await });
        renewing.await.unwrap_or_else(|_| Err("the login could not be renewed".to_owned()))
    }
}

impl Kept {
    fn read(&self) -> Result<Login, String> {
        let nobody = || format!("nobody is logged in; run `{}`", self.command);
        self.file.read().map_err(Failure::into_sentence)?.ok_or_else(nobody)
    }

    async fn renew(&self, refused: Option<Secret>) -> Result<Secret, String> {
        let _one_of_this_program = self.renewing.lock().await;
        let _one_of_this_user = self.file.lock().await.map_err(Failure::into_sentence)?;
        // Whoever was here before may have done it, or the user has logged in again.
        let login = self.read()?;
        let is_good = match &refused {
            Some(refused) => refused.expose() != login.access_token().expose(),
            None => login.is_fresh(now()),
        };
        if is_good {
            return Ok(login.access_token().clone());
        }
        let renewed = login.renew(now()).await;
        let renewed = renewed.map_err(|error| match error {
            NotRenewed::Ended(_) => format!("{error}; run `{}`", self.command),
            NotRenewed::Unreachable(_) => error.to_string(),
        })?;
        // Kept before it is used: the next refresh token came with it.
        self.file.keep(&renewed).map_err(Failure::into_sentence)?;
        tracing::info!("the login was renewed");
        Ok(renewed.access_token().clone())
    }
}

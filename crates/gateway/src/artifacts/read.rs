//! A run reads what its own calls made: journalled like anything else that an agent is given.

use std::sync::Arc;

use ringfence_core::{CallId, Label, Refusal, RefusalClass, Retry, Wall};
use ringfence_store::ArtifactRead;
use serde_json::{Map, json};
use uuid::Uuid;

use super::{Kept, Link};
use crate::pipeline::{Refused, stopping};
use crate::{Asked, Caller, Gateway};

/// Why a file was not read.
pub(crate) enum ArtifactRefused {
    /// There is none for this run, whether it never was, is another run's, or is gone.
    Unknown,
    /// It could not be given just now.
    Failed(Refusal),
}

impl Gateway {
    /// The files that this caller's run can read.
    #[must_use]
    pub fn artifacts(&self, caller: &Caller) -> Vec<Link> {
        self.inner.artifacts.of(&caller.run, self.inner.clock.now())
    }

    /// Reads a file of this caller's run.
    pub(crate) async fn artifact(&self, caller: &Caller, uri: &str) -> Result<Arc<Kept>, ArtifactRefused> {
        let failed = ArtifactRefused::Failed;
        let _counted = self.shutdown.enter().ok_or_else(|| failed(stopping()))?;
        let inner = &self.inner;
        let (labels, now) = (inner.labels(&caller.run), inner.clock.now());
        // Only named in the journal; what is not known is never taken for nothing.
        let run = caller.run(labels.unwrap_or_else(|_| [Label::Untrusted, Label::Sensitive].into()));
        let _place = inner.under_way.enter(run.id()).map_err(failed)?;
        let Some(kept) = inner.artifacts.find(run.id(), uri, now) else {
            let uri: String = uri.chars().take(200).collect();
            let arguments = Map::from_iter([("uri".to_owned(), json!(uri))]);
            let asked = Asked { tool: "resources/read".to_owned(), arguments };
            let _said_alike =
                inner.refuse(&run, CallId(Uuid::now_v7()), &asked, Refused::of(unknown())).await;
            return Err(ArtifactRefused::Unknown);
        };
        let (name, bytes) = (kept.link.name.as_str(), kept.link.bytes);
        let entry = ArtifactRead { at: now, call: kept.call, run: &run, name, bytes };
        inner.journal.artifact_read(entry).await.map_err(|error| {
            tracing::error!(%error, "a read could not be recorded, so nothing was read");
            failed(Refusal::internal("not_recorded", Wall::Journal))
        })?;
        Ok(kept)
    }
}

fn unknown() -> Refusal {
    let message = "there is no such artifact in this run";
    Refusal::new("unknown_artifact", RefusalClass::UnknownTool, Wall::ActionSpace, Retry::Never, message)
}

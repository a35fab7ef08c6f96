//! The systems of a project, opened and checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ringfence_actions::{ActionSpace, SystemKind, Tool};
use ringfence_core::{Place, Problem, RunId, SystemName};

use crate::http::{Http, HttpSettings};
use crate::postgres::{Postgres, PostgresSettings};
use crate::program::{Sandbox, SandboxSettings};
use crate::sqlite::Sqlite;

/// One `[systems.NAME]` of a project.
pub enum SystemSettings {
    /// An SQLite database that exists.
    Sqlite {
        /// Its file.
        path: PathBuf,
        /// Where the project declares it.
        place: Place,
    },
    /// A PostgreSQL database.
    Postgres(Box<PostgresSettings>),
    /// An HTTP API.
    Http(HttpSettings),
    /// A sandbox.
    Sandbox(Box<SandboxSettings>),
}

impl SystemSettings {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> SystemKind {
        match self {
            Self::Sqlite { .. } => SystemKind::Sqlite,
            Self::Postgres(_) => SystemKind::Postgres,
            Self::Http(_) => SystemKind::Http,
            Self::Sandbox(_) => SystemKind::Sandbox,
        }
    }
}

pub(crate) enum System {
    Sqlite(Sqlite),
    Postgres(Postgres),
    Http(Http),
    Sandbox(Sandbox),
}

/// The systems of a project, each with what its tools need proved.
pub struct Systems {
    pub(crate) space: Arc<ActionSpace>,
    pub(crate) systems: BTreeMap<SystemName, System>,
}

impl Systems {
    /// Opens every system and proves every tool on it. Every problem is pushed; a project with any error must not be served.
    pub async fn open(
        settings: BTreeMap<SystemName, SystemSettings>,
        space: Arc<ActionSpace>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut systems = BTreeMap::new();
        for (name, settings) in settings {
            let tools = space.tools().filter(|tool| *tool.system() == name);
            let system = open(settings, tools, problems).await;
            systems.insert(name, system);
        }
        Self { space, systems }
    }
}

impl Systems {
    /// Destroys whatever a run that has ended keeps in any system: the sandbox of its session, its credentials.
    pub fn end_run(&self, run: &RunId) {
        for system in self.systems.values() {
            match system {
                System::Sandbox(sandbox) => sandbox.end_run(run),
                System::Http(http) => http.end_run(run),
                System::Sqlite(_) | System::Postgres(_) => {}
            }
        }
    }

    /// Lets every sandbox attack itself. Fails with the system and what it reached, or why it could not be built: a machine that
    /// cannot enforce what a profile names must not serve its tools.
    pub async fn attack_sandboxes(&self) -> Result<(), (SystemName, String)> {
        for (name, system) in &self.systems {
            let System::Sandbox(sandbox) = system else { continue };
            let probes =
                sandbox.self_attack().await.map_err(|refused| (name.clone(), refused.to_string()))?;
            let holes: Vec<String> = probes
                .into_iter()
                .filter(|probe| !probe.held)
                .map(|probe| format!("`{}`", probe.name))
                .collect();
            if !holes.is_empty() {
                return Err((name.clone(), format!("an attack from inside reached {}", holes.join(", "))));
            }
        }
        Ok(())
    }
}

async fn open<'a>(
    settings: SystemSettings,
    tools: impl Iterator<Item = &'a Tool>,
    problems: &mut Vec<Problem>,
) -> System {
    match settings {
        SystemSettings::Sqlite { path, place } => {
            System::Sqlite(Sqlite::open(&path, &place, tools, problems))
        }
        SystemSettings::Postgres(settings) => {
            System::Postgres(Postgres::open(*settings, tools, problems).await)
        }
        SystemSettings::Http(settings) => System::Http(Http::new(settings)),
        SystemSettings::Sandbox(settings) => System::Sandbox(Sandbox::new(*settings)),
    }
}

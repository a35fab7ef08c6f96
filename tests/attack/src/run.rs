//! Runs a probe in the sandbox and its control beside it, and judges both from the host's side.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ringfence_sandbox::{
    GvisorSettings, Isolation, Language, Layer, Outcome, Profile, Program, Refused, Resources, Sandbox,
    Start, Unwatched, strongest,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::canary::{Canary, Places};
use crate::probe::{Control, Probe, Verdict};
use crate::{Arguments, Backends, languages};

/// How long anything may take that is not a run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One way to isolate and to start.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// What is run, or, for another kernel's sandboxes, what controls are made of.
    pub(crate) profile: Profile,
    pub(crate) sandbox: Sandbox,
    /// What isolates `sandbox`.
    pub(crate) isolation: Isolation,
    pub(crate) judged_by: JudgedBy,
}

/// What a hole is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum JudgedBy {
    /// Whatever a program says that it reached, and what is seen from the host's side.
    Everything,
    /// What is seen from the host's side alone. Under a kernel of its own a program may mount, or change its root: that is the
    /// sentry's, and no wall of ours.
    Canaries,
}

/// The gateway's side of it all, and what is watched.
pub(crate) struct Stage {
    pub(crate) places: Places,
    pub(crate) canary: Canary,
    pub(crate) fast: bool,
    pub(crate) runs: usize,
    pub(crate) bless: bool,
}

impl Target {
    /// `profile` is what controls are made of; it is run as `isolation` says.
    fn new(name: &'static str, profile: Profile, isolation: Isolation) -> Self {
        let judged_by =
            if isolation == Isolation::Process { JudgedBy::Everything } else { JudgedBy::Canaries };
        let mut isolated = profile.clone();
        isolated.isolation = isolation.clone();
        Self { name, profile, sandbox: Sandbox::new(isolated), isolation, judged_by }
    }
}

/// Every backend that is asked for and that this machine has. gVisor takes too long for a fast list.
pub(crate) fn targets(arguments: &Arguments) -> Vec<Target> {
    let mut targets = Vec::new();
    if arguments.backend != Backends::Gvisor {
        let ways = [("process, forked", Start::Fork, 2), ("process, started", Start::Exec, 0)];
        for (name, start, ready) in ways {
            let mut profile = python();
            (profile.start, profile.ready) = (start, ready);
            targets.push(Target::new(name, profile, Isolation::Process));
        }
        for (name, profile) in [("process, Bash", other(Language::Bash)), ("process, Node", node())] {
            targets.extend(is_there(&profile).then(|| Target::new(name, profile, Isolation::Process)));
        }
    }
    let gvisor = GvisorSettings::default();
    let is_wanted =
        arguments.backend == Backends::Gvisor || (arguments.backend == Backends::All && !arguments.fast);
    if is_wanted && gvisor.runtime.exists() {
        targets.push(Target::new("gvisor", python(), Isolation::Gvisor(gvisor.clone())));
        for (name, profile) in [("gvisor, Bash", other(Language::Bash)), ("gvisor, Node", node())] {
            let isolation = Isolation::Gvisor(gvisor.clone());
            targets.extend(is_there(&profile).then(|| Target::new(name, profile, isolation)));
        }
    }
    targets
}

/// Whether this machine has what a profile's programs are run by.
pub(crate) fn is_there(profile: &Profile) -> bool {
    profile.language.interpreters().iter().any(|path| std::path::Path::new(path).exists())
}

fn other(language: Language) -> Profile {
    let mut profile = strongest(language).unwrap();
    profile.limits = python().limits;
    profile
}

/// It sets aside far more addresses than it uses, which limits of each process count as memory.
pub(crate) fn node() -> Profile {
    let mut profile = other(Language::Node);
    profile.limits.memory_bytes = if counts_together(&profile) { 512 << 20 } else { 64 << 30 };
    profile
}

/// The strongest profile for Python, small enough that what fills it fills it soon.
pub(crate) fn python() -> Profile {
    let mut profile = strongest(Language::Python).unwrap();
    profile.limits.wall = Duration::from_secs(20);
    profile.limits.memory_bytes = 256 << 20;
    profile.limits.processes = 64;
    profile
}

/// Whether resources are counted for all of a sandbox's processes together.
pub(crate) fn counts_together(profile: &Profile) -> bool {
    profile.resources == Resources::Cgroup
}

pub(crate) async fn run(sandbox: &Sandbox, source: impl Into<String>) -> Result<Outcome, Refused> {
    sandbox.run(Program::new(source), Arc::new(Unwatched), CancellationToken::new()).await
}

/// Runs a program in a sandbox of its own kind.
pub(crate) async fn run_once(profile: &Profile, source: impl Into<String>) -> Result<Outcome, Refused> {
    ringfence_sandbox::run(profile, Program::new(source), CancellationToken::new()).await
}

/// What one program could do.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) reached: BTreeSet<String>,
    pub(crate) refused: BTreeSet<String>,
    pub(crate) has_ended: bool,
    pub(crate) all: String,
}

impl Stage {
    /// A program in Python with what all of them begin with, and what it is told.
    pub(crate) fn program(&self, source: &str, more: &Value) -> String {
        languages::program(Language::Python, source, &self.given(more))
    }

    fn given(&self, more: &Value) -> Value {
        let mut given = self.canary.given();
        let own = json!({
            "prefix": self.places.prefix,
            "file": self.places.file,
            "root_file": self.places.root_file.clone().unwrap_or_else(|| "/nonexistent".into()),
            "gateway": std::process::id(),
            "fast": self.fast,
            "control": false,
            "rights": false,
            "outside": false,
        });
        for (name, value) in own.as_object().unwrap().iter().chain(more.as_object().unwrap()) {
            given[name] = value.clone();
        }
        given
    }

    /// What was touched on the host's side since the last time.
    pub(crate) fn contacts(&mut self) -> Result<Vec<String>, String> {
        self.canary.contacts()
    }

    pub(crate) async fn probe(&mut self, target: &Target, probe: &Probe) -> Verdict {
        if probe.needs_network && !self.places.network {
            return Verdict::NotApplicable("a network of traps needs root to make".to_owned());
        }
        let source = languages::program(probe.language, probe.program, &self.given(&json!({})));
        let inside = match run(&target.sandbox, source).await {
            Ok(outcome) => outcome,
            Err(refused) => return Verdict::ControlFailed(format!("nothing ran: {refused}")),
        };
        let contacts = match self.contacts() {
            Ok(contacts) => contacts,
            Err(why) => return Verdict::Hole(why),
        };
        let seen = read(&outcome_text(&inside));
        let by_canaries = target.judged_by == JudgedBy::Canaries;
        let judged =
            if by_canaries { Seen { reached: BTreeSet::new(), ..seen.clone() } } else { seen.clone() };
        if let Some(hole) = self.judge(&judged, &contacts) {
            return Verdict::Hole(hole);
        }
        if !inside.receipt.nothing_left {
            return Verdict::Hole("something is left of the run".to_owned());
        }
        if !seen.has_ended && by_canaries {
            return Verdict::NotApplicable(format!("the program does not run there ({:?})", inside.ended));
        }
        if !seen.has_ended {
            let said: String =
                seen.all.chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
            return Verdict::ControlFailed(format!("it did not run to its end ({:?}): {said}", inside.ended));
        }
        self.compare(target, probe, &seen).await
    }

    /// Why this is a hole.
    pub(crate) fn judge(&self, seen: &Seen, contacts: &[String]) -> Option<String> {
        if let Some(token) = self.token_in(&seen.all) {
            return Some(format!("a secret of the host's was seen: {token}"));
        }
        if !contacts.is_empty() {
            return Some(format!("the host was reached: {}", contacts.join(", ")));
        }
        let reached: Vec<&str> = seen.reached.iter().map(String::as_str).collect();
        (!reached.is_empty()).then(|| reached.join(", "))
    }

    /// A token that is seen in what came out. Programs know what tokens begin with, and no more of them.
    pub(crate) fn token_in(&self, text: &str) -> Option<String> {
        let start = text.find(&format!("{}-host", self.places.prefix))?;
        Some(text[start..].chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '-').collect())
    }

    async fn compare(&mut self, target: &Target, probe: &Probe, seen: &Seen) -> Verdict {
        let control = match self.control(target, probe).await {
            Ok(control) => control,
            Err(verdict) => return verdict,
        };
        let contacts = self.contacts().unwrap_or_default();
        let works = control.reached.len() + usize::from(!contacts.is_empty() && control.reached.is_empty());
        if works == 0 {
            let said: String = control.all.chars().take(200).collect();
            return Verdict::ControlFailed(format!("the control reached nothing: {said}"));
        }
        let tried = seen.refused.len() + seen.reached.len();
        let unshown: Vec<&str> =
            seen.refused.iter().filter(|what| !control.reached.contains(*what)).map(String::as_str).collect();
        let mut note = format!("{}/{tried} shown by the control", tried - unshown.len().min(tried));
        if !unshown.is_empty() {
            note = format!("{note}; the kernel itself refuses: {}", unshown.join(", "));
        }
        Verdict::Held(note)
    }

    async fn control(&self, target: &Target, probe: &Probe) -> Result<Seen, Verdict> {
        let program = |more| languages::program(probe.language, probe.program, &self.given(&more));
        let inside = program(json!({ "control": true }));
        let outside = program(json!({ "control": true, "outside": true }));
        let is_root = rustix::process::getuid().is_root();
        let with_rights = program(json!({ "control": true, "rights": true }));
        let language = probe.language;
        match probe.control {
            Control::Without(layers) | Control::WithRights(layers) => {
                let needs_rights = matches!(probe.control, Control::WithRights(_));
                let inside = if needs_rights { with_rights } else { inside };
                let profile = without(&target.profile, layers);
                let outcome = run_once(&profile, inside).await;
                let outcome = outcome.map_err(|refused| Verdict::ControlFailed(format!("{refused}")))?;
                Ok(read(&outcome_text(&outcome)))
            }
            Control::OutsideAsRoot if is_root => self.outside(language, &outside, &[]).await,
            Control::OutsideAsRoot => {
                Err(Verdict::Held("no control: an ordinary user can do this nowhere".to_owned()))
            }
            Control::OutsideAsUser if is_root => {
                let as_user = ["/usr/bin/setpriv", "--reuid", "61000", "--regid", "61000", "--clear-groups"];
                self.outside(language, &outside, &as_user).await
            }
            Control::Outside | Control::OutsideAsUser => self.outside(language, &outside, &[]).await,
            Control::None(why) => Err(Verdict::Held(format!("no control: {why}"))),
        }
    }

    pub(crate) async fn outside(
        &self,
        language: Language,
        source: &str,
        before: &[&str],
    ) -> Result<Seen, Verdict> {
        let words = [before, languages::command(language), &[source]].concat();
        let mut command = tokio::process::Command::new(words[0]);
        command.args(&words[1..]).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        match output {
            Ok(Ok(output)) => {
                let said = [output.stdout, output.stderr].concat();
                Ok(read(&String::from_utf8_lossy(&said)))
            }
            Ok(Err(error)) => Err(Verdict::ControlFailed(error.to_string())),
            Err(_) => Err(Verdict::ControlFailed("the control took too long".to_owned())),
        }
    }
}

/// A profile without some layers.
pub(crate) fn without(profile: &Profile, layers: &[Layer]) -> Profile {
    let mut profile = profile.clone().dangerously_without(layers);
    profile.ready = 0;
    profile
}

/// Everything that came out of a run, by whatever way.
pub(crate) fn outcome_text(outcome: &Outcome) -> String {
    let mut text = format!("{}\n{}\n", outcome.stdout.text, outcome.stderr.text);
    text.push_str(outcome.value.as_deref().unwrap_or_default());
    for artifact in &outcome.artifacts {
        text.push_str(&artifact.name);
        text.push_str(&String::from_utf8_lossy(&artifact.bytes));
    }
    for left_out in &outcome.left_out {
        text.push_str(&left_out.name);
    }
    text
}

pub(crate) fn read(text: &str) -> Seen {
    let words = |word: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
            .map(str::to_owned)
            .collect()
    };
    let refused: BTreeSet<String> = words("refused");
    let refused =
        refused.iter().map(|what| what.split(" - ").next().unwrap_or_default().to_owned()).collect();
    Seen {
        reached: words("reached"),
        refused,
        has_ended: text.lines().any(|line| line == "tried"),
        all: text.to_owned(),
    }
}

//! The life of a call, from who asks to the reply. Read [`Inner::carry`] first: it is the product on one page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use ringfence_actions::{ActionSpace, Tool, unknown_tool};
use ringfence_core::{
    Call, CallId, Decision, Effect, GroupName, Permit, Refusal, RefusalClass, Retry, Rule, Run, Secret,
    Ticket, ToolName, Verdict, Wall,
};
use ringfence_identity::{Door, Identified, Identity};
use ringfence_policy::Policies;
use ringfence_store::{Closing, ClosingWord, Journal, RefusedCall};
use ringfence_tools::{Ended, Outcome, Recorder, Systems, Watch};
use uuid::Uuid;

use crate::artifacts::Artifacts;
use crate::caller::{NotIdentified, presented};
use crate::gate::Gate;
use crate::labels::Labels;
use crate::limits::{Refusals, UnderWay};
use crate::shutdown::Shutdown;
use crate::{Asked, CallLimits, Caller, Clock, Reply};

/// What a gateway is made of.
pub struct Parts {
    /// The tools.
    pub space: Arc<ActionSpace>,
    /// Who may.
    pub policies: Policies,
    /// Who is who, at the agents' door.
    pub identity: Identity,
    /// What happened.
    pub journal: Journal,
    /// What the tools work on.
    pub systems: Systems,
    /// How much may be under way.
    pub limits: CallLimits,
    /// What time it is.
    pub clock: Clock,
}

/// How a gateway is doing.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Status {
    /// Whether calls can be carried.
    pub ready: bool,
    /// How many tools there are.
    pub tools: usize,
    /// How many calls are under way.
    pub calls_under_way: usize,
}

/// Carries calls. Cheap to clone; all clones are one gateway.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
    pub(crate) shutdown: Shutdown,
}

pub(crate) struct Inner {
    pub(crate) space: Arc<ActionSpace>,
    policies: Policies,
    pub(crate) identity: Identity,
    pub(crate) journal: Arc<Journal>,
    systems: Systems,
    labels: Labels,
    refusals: Refusals,
    pub(crate) under_way: Arc<UnderWay>,
    pub(crate) artifacts: Artifacts,
    pub(crate) clock: Clock,
    give_up: tokio_util::sync::CancellationToken,
}

impl Gateway {
    /// Puts a gateway together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let shutdown = Shutdown::default();
        let labels = Labels::remembered(parts.journal.labels());
        let inner = Inner {
            space: parts.space,
            policies: parts.policies,
            identity: parts.identity,
            journal: Arc::new(parts.journal),
            systems: parts.systems,
            labels,
            refusals: Refusals::default(),
            under_way: UnderWay::new(parts.limits),
            artifacts: Artifacts::default(),
            clock: parts.clock,
            give_up: shutdown.give_up.clone(),
        };
        Self { inner: Arc::new(inner), shutdown }
    }

    /// The tools that this caller may call, in the order of their names.
    #[must_use]
    pub fn tools(&self, caller: &Caller) -> Vec<&Tool> {
        let run = self.inner.run_of(caller);
        self.inner.space.tools().filter(|tool| self.inner.is_visible(tool, &run)).collect()
    }

    /// Carries one call. It runs in a task of its own: a client that hangs up cannot cut it in half. `watch` hears what a
    /// program writes, once the labels of its result are on the run, and cancels it; nothing else is cancelled.
    pub async fn call(&self, caller: Caller, asked: Asked, watch: Watch) -> Reply {
        let Some(place) = self.shutdown.enter() else { return Reply::Refused(stopping()) };
        let inner = self.inner.clone();
        let carried = self.shutdown.calls.spawn(async move {
            let reply = inner.answer(&caller, asked, &watch).await;
            drop(place);
            reply
        });
        carried.await.unwrap_or_else(|_| Reply::Refused(panicked()))
    }

    /// Records that a request was turned away before it was a call.
    pub async fn rejected(&self, code: &str) {
        self.inner.journal.rejected(self.inner.clock.now(), code).await;
    }

    /// Who sent this request to the agents' door.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, NotIdentified> {
        self.inner
            .identify(Door::Agents, headers)
            .await
            .map(|(identified, token)| Caller::new(identified, token))
    }

    /// Who sent this request to the people's door.
    pub async fn person(&self, headers: &HeaderMap) -> Result<Identified, NotIdentified> {
        self.inner.identify(Door::People, headers).await.map(|(identified, _)| identified)
    }

    /// How the gateway is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            ready: self.is_ready(),
            tools: self.inner.space.tools().count(),
            calls_under_way: self.shutdown.calls.len(),
        }
    }

    /// Whether calls can be recorded, and so carried.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.journal.healthy() && !self.shutdown.calls.is_closed()
    }

    /// Lets calls under way finish, at most `grace`, and closes the rest as *unknown*.
    pub async fn finish(&self, grace: Duration) {
        self.shutdown.finish(grace).await;
        self.inner.journal.close(self.inner.clock.now()).await;
    }
}

impl Inner {
    /// Who sent a request with these headers, and the token that says so. A token that is refused is journalled.
    pub(crate) async fn identify(
        &self,
        door: Door,
        headers: &HeaderMap,
    ) -> Result<(Identified, Secret), NotIdentified> {
        let token = match presented(headers) {
            Ok(token) => token,
            Err(refused) => {
                // A request without a token is how a client learns where to get one.
                if refused != NotIdentified::NoToken {
                    self.journal.rejected(self.clock.now(), "token_malformed").await;
                }
                return Err(refused);
            }
        };
        match self.identity.identify(door, &token, self.clock.now()).await {
            Ok(identified) => Ok((identified, token)),
            Err(refused) => {
                tracing::debug!(code = refused.code(), "a token was refused");
                self.journal.rejected(self.clock.now(), refused.code()).await;
                Err(NotIdentified::Refused(refused))
            }
        }
    }

    /// Carries a call and journals a refusal; a refusal that cannot be journalled becomes an internal one.
    async fn answer(&self, caller: &Caller, asked: Asked, watch: &Watch) -> Reply {
        let run = self.run_of(caller);
        let id = CallId(Uuid::now_v7());
        let place = self.under_way.enter(run.id());
        let carried = match &place {
            Ok(_) => self.carry(caller, &run, id, &asked, watch).await,
            Err(full) => Err(Refused::of(full.clone())),
        };
        match carried {
            Ok(reply) => reply,
            Err(refused) => self.refuse(&run, id, &asked, refused).await,
        }
    }

    /// The life of a call.
    async fn carry(
        &self,
        caller: &Caller,
        run: &Run,
        id: CallId,
        asked: &Asked,
        watch: &Watch,
    ) -> Result<Reply, Refused> {
        let tool = self.tool(run, &asked.tool)?;
        check_scope(tool, caller)?;
        let call = self.checked(tool, run, id, asked)?;
        let permit = self.decide(tool, call)?;
        let ticket = self.record(permit, tool).await?;
        let outcome = self.run(ticket, tool, caller, watch).await;
        self.close(tool, run, id, outcome).await
    }

    /// The tool, if this run can see it. A name that does not exist is judged as one that does, so that the two take one path
    /// and the same time.
    fn tool(&self, run: &Run, asked: &str) -> Result<&Tool, Refused> {
        let named = self.space.tool(asked).or_else(|| self.space.tools().next());
        let visible = named.filter(|tool| self.is_visible(tool, run));
        visible.filter(|tool| tool.name().as_str() == asked).ok_or_else(|| self.unknown(run, asked))
    }

    fn checked(&self, tool: &Tool, run: &Run, id: CallId, asked: &Asked) -> Result<Call, Refused> {
        let arguments = tool.check(&asked.arguments, run.principal()).map_err(|refusal| {
            if let Some(bound) = asked.arguments.keys().find(|name| tool.binds(name)) {
                tracing::warn!(tool = %tool.name(), param = %bound, "an agent tried to set what comes from the identity");
            }
            Refused::of(refusal)
        })?;
        let (name, system) = (tool.name().clone(), tool.system().clone());
        Ok(Call::new(id, self.clock.now(), run.clone(), name, system, arguments))
    }

    fn decide(&self, tool: &Tool, call: Call) -> Result<Permit, Refused> {
        // Read before the decision takes the call, so that an expired run is refused whatever its policies say.
        if call.run().expires() <= call.at() {
            return Err(Refused::of(expired()));
        }
        match self.policies.decide(tool, call, &BTreeSet::new()) {
            Decision::Allow(permit) => Ok(permit),
            Decision::Ask { approvers, rules, .. } => {
                Err(Refused::by(Verdict::Ask, needs_approval(&approvers, rules)))
            }
            Decision::Deny { rules, .. } => Err(Refused::by(Verdict::Deny, forbidden(rules))),
        }
    }

    async fn record(&self, permit: Permit, tool: &Tool) -> Result<Ticket, Refused> {
        self.journal.record(permit, tool.effect()).await.map_err(|error| {
            tracing::error!(%error, "a call could not be recorded, so it did not run");
            Refused::of(Refusal::internal("not_recorded", Wall::Journal))
        })
    }

    /// Runs the call; a gateway that has to stop gives it up, and then no one knows what came of it.
    async fn run(&self, ticket: Ticket, tool: &Tool, caller: &Caller, watch: &Watch) -> (Outcome, Duration) {
        let began = std::time::Instant::now();
        let (id, run) = (ticket.call().id(), ticket.call().run().id().clone());
        let gate = Gate::new(watch, tool.yields());
        let watch = gate.watch().recorded_by(self.recorder(id));
        let label = async || {
            self.labels.add(&run, tool.yields());
            self.journal.labelled(id, &run, tool.yields(), self.clock.now()).await
        };
        let outcome = tokio::select! {
            outcome = ringfence_tools::run(ticket, &self.systems, &caller.token, &watch) => outcome,
            () = self.give_up.cancelled() => stopped(tool),
            never = gate.open_once(label) => match never {},
        };
        (outcome, began.elapsed())
    }

    /// Records what a call's program wants to connect to, before it may.
    fn recorder(&self, call: CallId) -> Recorder {
        let (journal, clock) = (self.journal.clone(), self.clock.clone());
        Arc::new(move |decision| {
            let (journal, now) = (journal.clone(), clock.now());
            Box::pin(async move {
                let recorded = journal.egress(call, &decision, now).await;
                recorded.inspect_err(|error| tracing::error!(%error, "egress could not be recorded")).is_ok()
            })
        })
    }

    /// Puts the labels on the run before the agent sees a byte of the result, then closes the entry.
    async fn close(
        &self,
        tool: &Tool,
        run: &Run,
        id: CallId,
        (outcome, elapsed): (Outcome, Duration),
    ) -> Result<Reply, Refused> {
        let mut yields = None;
        let (ended, reply) = match outcome.ended {
            Ended::Done(output) => {
                self.labels.add(run.id(), tool.yields());
                yields = (!tool.yields().is_empty()).then(|| (run.id().clone(), tool.yields().to_vec()));
                (ClosingWord::Done, self.hand_over(run.id(), id, output))
            }
            Ended::Failed(refusal) => (ClosingWord::Failed, Reply::Refused(refusal)),
            Ended::Unknown(refusal) => (ClosingWord::Unknown, Reply::Refused(refusal)),
        };
        let closing = Closing {
            ended,
            code: if let Reply::Refused(refusal) = &reply { Some(refusal.code.to_owned()) } else { None },
            duration_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            rows: outcome.used.rows,
            bytes: outcome.used.bytes,
            yields,
        };
        let now = self.clock.now();
        let closed = if tool.effect() == Effect::Read && closing.yields.is_none() {
            self.journal.outcome_of_read(id, closing, now).await
        } else {
            self.journal.outcome(id, closing, now).await
        };
        if let Err(error) = closed {
            // The effect stands and its intent is durable; the open entry will be closed as unknown at the next start.
            tracing::error!(%error, call = %id, "the outcome of a call could not be recorded");
        }
        Ok(reply)
    }

    pub(crate) async fn refuse(&self, run: &Run, id: CallId, asked: &Asked, refused: Refused) -> Reply {
        let Some(unrecorded) = self.refusals.count(run.id(), self.clock.now()) else {
            return Reply::of(refused);
        };
        let entry = RefusedCall {
            unrecorded,
            at: self.clock.now(),
            call: id,
            run,
            tool: &asked.tool,
            arguments: &asked.arguments,
            verdict: refused.verdict,
            refusal: &refused.refusal,
        };
        match self.journal.refused(entry).await {
            Ok(()) => Reply::of(refused),
            Err(error) => {
                tracing::error!(%error, "a refusal could not be recorded");
                Reply::Refused(Refusal::internal("not_recorded", Wall::Journal))
            }
        }
    }

    /// The implicit run of this principal and agent, with all that it has touched so far.
    pub(crate) fn run_of(&self, caller: &Caller) -> Run {
        let identified = &caller.identified;
        let id = ringfence_core::RunId::implicit(&identified.principal, &identified.agent);
        let labels = self.labels.of(&id);
        Run::implicit(identified.principal.clone(), identified.agent.clone(), identified.expires, labels)
    }

    fn is_visible(&self, tool: &Tool, run: &Run) -> bool {
        self.policies.visible(tool, run, self.clock.now())
    }

    /// What is said of a tool that does not exist, and of one that this run cannot see: the same.
    fn unknown(&self, run: &Run, asked: &str) -> Refused {
        let permitted: Vec<ToolName> = self
            .space
            .tools()
            .filter(|tool| self.is_visible(tool, run))
            .map(|tool| tool.name().clone())
            .collect();
        Refused::of(unknown_tool(asked, permitted.iter()))
    }
}

/// A refusal on its way to the journal and the agent.
pub(crate) struct Refused {
    verdict: Verdict,
    refusal: Refusal,
    /// The scope that would help.
    scope: Option<String>,
}

impl Reply {
    fn of(refused: Refused) -> Self {
        match refused.scope {
            Some(scope) => Self::NeedsScope { scope, refusal: refused.refusal },
            None => Self::Refused(refused.refusal),
        }
    }
}

/// A tool may need a scope of its own; whoever can see the tool is told which.
fn check_scope(tool: &Tool, caller: &Caller) -> Result<(), Refused> {
    let Some(scope) = tool.scope().filter(|scope| !caller.identified.scopes.contains(*scope)) else {
        return Ok(());
    };
    let message = format!("this tool needs a token with the scope `{scope}`");
    let refusal =
        Refusal::new("insufficient_scope", RefusalClass::Policy, Wall::Identity, Retry::WithChange, message);
    Err(Refused { scope: Some(scope.to_owned()), ..Refused::of(refusal) })
}

impl Refused {
    pub(crate) fn of(refusal: Refusal) -> Self {
        Self { verdict: Verdict::Deny, refusal, scope: None }
    }

    fn by(verdict: Verdict, refusal: Refusal) -> Self {
        Self { verdict, ..Self::of(refusal) }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::of(refusal)
    }
}

pub(crate) fn stopping() -> Refusal {
    let message = "the gateway is stopping; nothing was done";
    Refusal::new("gateway_stopping", RefusalClass::Internal, Wall::Limits, Retry::Later, message)
}

/// The task of a call ended without a reply: how far it came, nobody knows.
fn panicked() -> Refusal {
    let message = "the gateway failed while it carried this call; whether it took effect is not known";
    Refusal::new("outcome_unknown", RefusalClass::Internal, Wall::Limits, Retry::Never, message)
}

fn expired() -> Refusal {
    let message = "the run has expired; a new one needs a fresh token";
    Refusal::new("run_expired", RefusalClass::Budget, Wall::Limits, Retry::Never, message)
}

fn forbidden(rules: Vec<Rule>) -> Refusal {
    let message = "policy does not allow this call with these arguments under this user's name";
    let refusal = Refusal::new("forbidden", RefusalClass::Policy, Wall::Policy, Retry::WithChange, message);
    Refusal { rules, ..refusal }
}

fn needs_approval(approvers: &BTreeSet<GroupName>, rules: Vec<Rule>) -> Refusal {
    let groups = approvers.iter().map(|group| format!("`{group}`")).collect::<Vec<_>>().join(" and ");
    let message = format!("approval needed from {groups}; nothing was done");
    let refusal =
        Refusal::new("approval_needed", RefusalClass::Approval, Wall::Approval, Retry::WithApproval, message);
    Refusal { rules, allowed: Some(format!("the same call once {groups} approved it")), ..refusal }
}

fn stopped(tool: &Tool) -> Outcome {
    let message =
        "the gateway had to stop while this call was under way; whether it took effect is not known";
    let refusal =
        Refusal::new("outcome_unknown", RefusalClass::Internal, Wall::Limits, Retry::Never, message);
    tracing::warn!(tool = %tool.name(), "a call was given up");
    Outcome { ended: Ended::Unknown(refusal), used: ringfence_tools::Used::default() }
}

//! The life of a call, from who asks to the reply. Read [`Inner::carry`] first: it is the product on one page.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ringfence_actions::{ActionSpace, Tool, nearest_tools, unknown_tool};
use ringfence_core::{
    Call, CallId, Decision, Effect, GroupName, Label, Permit, Refusal, RefusalClass, Retry, Rule, Run, RunId,
    Ticket, ToolName, Verdict, Wall,
};
use ringfence_identity::{Application, Door, Identified, Identity, TokenRefused};
use ringfence_policy::Policies;
use ringfence_store::{Closing, ClosingWord, Journal, NoRun, RefusedCall, Runs};
use ringfence_tools::{EgressLog, Ended, Outcome, Systems, Watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::artifacts::Artifacts;
use crate::caller::{NotIdentified, Request, Sent};
use crate::gate::Gate;
use crate::limits::UnderWay;
use crate::runs::{ApplicationRule, RunBook, RunLimits, is_run_token};
use crate::shutdown::Shutdown;
use crate::visible::Visible;
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
    /// Who may still act.
    pub runs: Runs,
    /// How long they may.
    pub run_limits: RunLimits,
    /// Who may start runs for users.
    pub applications: Vec<ApplicationRule>,
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
    policies: Arc<Policies>,
    pub(crate) identity: Identity,
    pub(crate) journal: Arc<Journal>,
    pub(crate) runs: RunBook,
    pub(crate) systems: Systems,
    visible: Visible,
    pub(crate) under_way: Arc<UnderWay>,
    pub(crate) artifacts: Artifacts,
    pub(crate) clock: Clock,
    give_up: CancellationToken,
}

impl Gateway {
    /// Puts a gateway together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let shutdown = Shutdown::default();
        let inner = Inner {
            space: parts.space,
            policies: Arc::new(parts.policies),
            identity: parts.identity,
            journal: Arc::new(parts.journal),
            runs: RunBook::new(parts.runs, parts.run_limits, parts.applications),
            systems: parts.systems,
            visible: Visible::new(),
            under_way: UnderWay::new(parts.limits),
            artifacts: Artifacts::default(),
            clock: parts.clock,
            give_up: shutdown.give_up.clone(),
        };
        Self { inner: Arc::new(inner), shutdown }
    }

    /// The tools that this caller may call, in the order of their names. A list takes a place among the calls under way.
    pub async fn tools(&self, caller: &Caller) -> Result<Vec<&Tool>, Refusal> {
        let _place = self.inner.under_way.enter(&caller.run)?;
        let run = caller.run(self.inner.labels(&caller.run)?);
        self.inner.visible(&run).await.ok_or_else(busy)
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
    pub async fn rejected(&self, code: &'static str) {
        self.inner.journal.rejected(self.inner.clock.now(), code).await;
    }

    /// Who sent this request to the agents' door.
    pub async fn caller(&self, request: impl Into<Request<'_>>) -> Result<Caller, NotIdentified> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let sent = inner.sent(request.into()).await?;
        if is_run_token(&sent.token) {
            return inner.caller_of_run(&sent, now).await;
        }
        let identified = inner.identity.identify(Door::Agents, sent.presented(), now).await;
        let identified = inner.judged(identified).await?;
        inner.caller_of_client(identified, sent.token, now).await
    }

    /// Who sent this request to the people's door.
    pub async fn person(&self, request: impl Into<Request<'_>>) -> Result<Identified, NotIdentified> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let sent = inner.sent(request.into()).await?;
        inner.judged(inner.identity.identify(Door::People, sent.presented(), now).await).await
    }

    /// Which application sent this request to the people's door, in its own name.
    pub async fn application(&self, request: impl Into<Request<'_>>) -> Result<Application, NotIdentified> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let sent = inner.sent(request.into()).await?;
        inner.judged(inner.identity.application(Door::People, sent.presented(), now).await).await
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
    /// The token of a request. One that is malformed is journalled.
    async fn sent<'a>(&self, request: Request<'a>) -> Result<Sent<'a>, NotIdentified> {
        let sent = Sent::by(request);
        // A request without a token is how a client learns where to get one.
        if sent.as_ref().is_err_and(|refused| *refused != NotIdentified::NoToken) {
            self.journal.rejected(self.clock.now(), "token_malformed").await;
        }
        sent
    }

    /// A token that was refused is journalled.
    pub(crate) async fn judged<T>(&self, judged: Result<T, TokenRefused>) -> Result<T, NotIdentified> {
        if let Err(refused) = &judged {
            tracing::debug!(code = refused.code(), "a token was refused");
            self.journal.rejected(self.clock.now(), refused.code()).await;
        }
        judged.map_err(NotIdentified::Refused)
    }

    /// Carries a call and journals a refusal; a refusal that cannot be journalled becomes an internal one.
    async fn answer(&self, caller: &Caller, asked: Asked, watch: &Watch) -> Reply {
        let id = CallId(Uuid::now_v7());
        let place = self.under_way.enter(&caller.run);
        let labels = self.labels(&caller.run);
        // What is not known is never taken for nothing, also where the run is only named in the journal.
        let run = caller.run(labels.clone().unwrap_or_else(|_| [Label::Untrusted, Label::Sensitive].into()));
        let carried = match (&place, labels) {
            (Ok(place), Ok(_)) => {
                let wanted = watch.cancellation().child_token();
                let watch = watch.clone().cancelled_by(wanted.clone());
                tokio::select! {
                    carried = self.carry(caller, &run, id, &asked, &watch) => carried,
                    never = cancel_with(place.ended(), &wanted) => match never {},
                }
            }
            (Err(full), _) => Err(Refused::of(full.clone())),
            (_, Err(unknown)) => Err(Refused::of(unknown)),
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
        let tool = self.tool(run, &asked.tool).await?;
        check_scope(tool, caller)?;
        let call = self.checked(tool, run, id, asked)?;
        let permit = self.decide(tool, run, call).await?;
        self.admit(run)?;
        let ticket = self.record(permit, tool).await?;
        let outcome = self.run(ticket, tool, caller, watch).await;
        self.close(tool, run, id, outcome).await
    }

    /// The tool, if this run can see it. A name that does not exist is judged as one that does, so that the two take one path
    /// and the same time.
    async fn tool(&self, run: &Run, asked: &str) -> Result<&Tool, Refused> {
        let named = self.space.tool(asked).or_else(|| self.space.tools().next());
        let visible = named.filter(|tool| self.policies.visible(tool, run, self.clock.now()));
        match visible.filter(|tool| tool.name().as_str() == asked && run.asked_for(tool.name())) {
            Some(tool) => Ok(tool),
            None => Err(Refused::of(unknown_tool(asked, &self.visible_names(run).await))),
        }
    }

    fn checked(&self, tool: &Tool, run: &Run, id: CallId, asked: &Asked) -> Result<Call, Refused> {
        let arguments = tool.check(&asked.arguments, run.principal()).map_err(|refusal| {
            let bound = asked.arguments.keys().find(|name| tool.binds(name));
            if let Some(bound) = bound {
                tracing::warn!(tool = %tool.name(), param = %bound, "an agent tried to set what comes from the identity");
            }
            Refused { noted: bound.map(|_| "bound_parameter"), ..Refused::of(refusal) }
        })?;
        let (name, system) = (tool.name().clone(), tool.system().clone());
        Ok(Call::new(id, self.clock.now(), run.clone(), name, system, arguments))
    }

    async fn decide(&self, tool: &Tool, run: &Run, call: Call) -> Result<Permit, Refused> {
        // Read before the decision takes the call, so that an expired run is refused whatever its policies say.
        if call.run().expires() <= call.at() {
            return Err(Refused::of(expired()));
        }
        match self.policies.decide(tool, call, &BTreeSet::new()) {
            Decision::Allow(permit) => Ok(permit),
            Decision::Ask { approvers, rules, .. } => {
                Err(Refused::by(Verdict::Ask, needs_approval(&approvers, rules)))
            }
            Decision::Deny { rules, .. } => {
                let others = self.visible_names(run).await;
                Err(Refused::by(Verdict::Deny, forbidden(rules, tool.name(), &others)))
            }
        }
    }

    /// The last look before a call is recorded: the run goes on, and its budget lets it.
    fn admit(&self, run: &Run) -> Result<(), Refused> {
        self.runs.stored.admit(run.id(), self.clock.now()).map_err(|refused| {
            Refused::of(match refused {
                NoRun::Spent(max) => spent(max),
                NoRun::Unusable(error) => {
                    tracing::error!(error, "a run could not be looked up, so its call did not run");
                    Refusal::internal("runs_unreadable", Wall::Identity)
                }
                NoRun::Unknown | NoRun::LoginNeeded | NoRun::TooMany(_) | NoRun::Ended(_) => ended(),
            })
        })
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
            self.journal
                .labelled(id, &run, tool.yields(), self.clock.now())
                .await
                .map_err(|error| error.to_string())?;
            if self.takes_labels(&run) { Ok(()) } else { Err("its run has ended".to_owned()) }
        };
        let outcome = tokio::select! {
            outcome = ringfence_tools::run(ticket, &self.systems, caller.subject_token.as_ref(), &watch) => outcome,
            () = self.give_up.cancelled() => stopped(tool),
            never = gate.open_once(label) => match never {},
        };
        (outcome, began.elapsed())
    }

    /// Records what a call's program wants to connect to, before it may.
    fn recorder(&self, call: CallId) -> EgressLog {
        let (journal, clock) = (self.journal.clone(), self.clock.clone());
        Arc::new(move |decision| {
            let (journal, now) = (journal.clone(), clock.now());
            Box::pin(async move {
                let recorded = journal.egress(call, &decision, now).await;
                recorded.inspect_err(|error| tracing::error!(%error, "egress could not be recorded")).is_ok()
            })
        })
    }

    /// Closes the entry, and with it puts the labels on the run, before the agent sees a byte of the result.
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
                yields = (!tool.yields().is_empty()).then(|| (run.id().clone(), tool.yields().to_vec()));
                (ClosingWord::Done, self.hand_over(run.id(), id, output))
            }
            Ended::Failed(refusal) => (ClosingWord::Failed, Reply::Refused(refusal)),
            Ended::NeedsScopes(scopes, refusal) => {
                (ClosingWord::Failed, Reply::NeedsScope { scopes, refusal })
            }
            Ended::NeedsAccount(url, refusal) => (ClosingWord::Failed, Reply::NeedsAccount { url, refusal }),
            Ended::Unknown(refusal) => (ClosingWord::Unknown, Reply::Refused(refusal)),
        };
        let closing = Closing {
            ended,
            code: match &reply {
                Reply::Done { .. } => None,
                Reply::Refused(refusal)
                | Reply::NeedsScope { refusal, .. }
                | Reply::NeedsAccount { refusal, .. } => Some(refusal.code.to_owned()),
            },
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
            let is_told = tool.effect() != Effect::Read && tool.yields().is_empty();
            if matches!(reply, Reply::Done { .. }) && !is_told {
                return Ok(Reply::Refused(withheld(tool.effect())));
            }
        }
        let is_labelled = matches!(reply, Reply::Done { .. }) && !tool.yields().is_empty();
        if is_labelled && !self.takes_labels(run.id()) {
            return Ok(Reply::Refused(outlived(tool.effect())));
        }
        Ok(reply)
    }

    /// Whether the labels that a run was given just now count for what its agent does next: once it has ended, the run after it
    /// may have taken over what there was before.
    fn takes_labels(&self, run: &RunId) -> bool {
        self.runs.stored.has_ended(run).is_ok_and(|ended| !ended)
    }

    pub(crate) async fn refuse(&self, run: &Run, id: CallId, asked: &Asked, refused: Refused) -> Reply {
        let entry = RefusedCall {
            code: refused.noted.unwrap_or(refused.refusal.code),
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

    /// What a run has touched so far, by whichever process.
    pub(crate) fn labels(&self, run: &RunId) -> Result<BTreeSet<Label>, Refusal> {
        self.journal.labels(run).map_err(|error| {
            tracing::error!(%error, "a call could not be judged, so it did not run");
            Refusal::internal("labels_unknown", Wall::Journal)
        })
    }

    /// The tools that this run can see; `None` where too many others are looking.
    async fn visible(&self, run: &Run) -> Option<Vec<&Tool>> {
        let now = self.clock.now();
        let (space, policies, viewer) = (self.space.clone(), self.policies.clone(), run.clone());
        let look = move || space.tools().map(|tool| policies.visible(tool, &viewer, now)).collect();
        let view = self.visible.view(run, now, look).await?;
        let tools = self.space.tools().zip(view.iter());
        let tools = tools.filter(|(tool, visible)| **visible && run.asked_for(tool.name()));
        Some(tools.map(|(tool, _)| tool).collect())
    }

    async fn visible_names(&self, run: &Run) -> Vec<&ToolName> {
        self.visible(run).await.unwrap_or_default().into_iter().map(Tool::name).collect()
    }
}

/// A refusal on its way to the journal and the agent.
pub(crate) struct Refused {
    verdict: Verdict,
    refusal: Refusal,
    /// The scope that would help.
    scope: Option<String>,
    /// What the journal calls it, where the agent must not learn as much.
    noted: Option<&'static str>,
}

impl Reply {
    fn of(refused: Refused) -> Self {
        match refused.scope {
            Some(scope) => Self::NeedsScope { scopes: vec![scope], refusal: refused.refusal },
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
        Self { verdict: Verdict::Deny, refusal, scope: None, noted: None }
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

/// Cancels what a run has under way, once the run has ended.
async fn cancel_with(ended: &CancellationToken, wanted: &CancellationToken) -> Infallible {
    ended.cancelled().await;
    wanted.cancel();
    std::future::pending().await
}

fn ended() -> Refusal {
    let message = "the run has ended or was revoked; nothing was done";
    Refusal::new("run_ended", RefusalClass::Policy, Wall::Identity, Retry::Never, message)
}

fn spent(max: u64) -> Refusal {
    let message = format!("this run may make {max} calls and has made them; nothing was done");
    Refusal::new("budget_spent", RefusalClass::Budget, Wall::Limits, Retry::Never, message)
}

fn expired() -> Refusal {
    let message = "the run has expired; a new one needs a fresh token";
    Refusal::new("run_expired", RefusalClass::Budget, Wall::Limits, Retry::Never, message)
}

/// `others` are tools that this run can see, in the order of their names.
fn forbidden(rules: Vec<Rule>, tool: &ToolName, others: &[&ToolName]) -> Refusal {
    let message = "policy does not allow this call with these arguments under this user's name";
    let refusal = Refusal::new("forbidden", RefusalClass::Policy, Wall::Policy, Retry::WithChange, message);
    let allowed = if rules.is_empty() {
        "a call that some rule permits: none permits this one; try other arguments, or another tool"
    } else {
        "a call that the rules named do not forbid: try other arguments, or another tool"
    };
    let others: Vec<&ToolName> = others.iter().copied().filter(|other| *other != tool).collect();
    let nearest = nearest_tools(tool.as_str(), &others);
    Refusal { rules, allowed: Some(allowed.to_owned()), nearest, ..refusal }
}

/// What is said instead of a result whose closing entry, and so whose labels, could not be recorded.
fn withheld(effect: Effect) -> Refusal {
    let refusal = Refusal::internal("not_recorded", Wall::Journal);
    if effect == Effect::Read {
        return refusal;
    }
    let message = "it was done, but that could not be recorded, so its result is withheld; do not repeat it";
    Refusal { message: message.to_owned(), retry: Retry::Never, ..refusal }
}

/// What is said instead of a result that came after its run had ended: no run has its labels.
fn outlived(effect: Effect) -> Refusal {
    if effect == Effect::Read {
        return ended();
    }
    let message = "it was done, but its run has ended meanwhile, so its result is withheld; do not repeat it";
    Refusal { message: message.to_owned(), ..ended() }
}

fn busy() -> Refusal {
    let message = "too many lists are being made; try again in a moment";
    Refusal::new("too_many_calls", RefusalClass::Budget, Wall::Limits, Retry::Later, message)
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

//! One connection's way through the rules: decided, recorded, dialled, ended. There is no other way to a socket outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::decision::{Decision, Quoted, Reason, Unrecorded, Verdict, Via, Watch};
use super::host::Host;
use super::meter::{Counts, Meter};
use super::names::Names;
use super::resolve::{Resolver, checked_address};
use super::rules::{No, Rule, Rules};
use super::trust::Trust;

/// What the egress needs of the world outside.
#[derive(Clone)]
pub struct Outside {
    /// Finds addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Vouches for servers whose connections are inspected.
    pub trust: Trust,
    /// Records decisions.
    pub watch: Arc<dyn Watch>,
}

/// What all connections of one sandbox share.
pub(crate) struct Gate {
    pub(crate) rules: Arc<Rules>,
    pub(crate) outside: Outside,
    pub(crate) counts: Arc<Counts>,
    pub(crate) names: Names,
    /// There where some rule inspects.
    pub(crate) authority: Option<Authority>,
    pub(crate) stop: CancellationToken,
}

/// One connection from inside.
pub(crate) struct Passage {
    pub(crate) gate: Arc<Gate>,
    pub(crate) meter: Meter,
    decision: Decision,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Undecided,
    Left,
    /// On record to its end.
    Over,
}

impl Passage {
    pub(crate) fn new(gate: &Arc<Gate>, via: Via, connection: u64) -> Self {
        let decision = Decision {
            connection,
            via,
            verdict: Verdict::Deny,
            reason: Reason::NoRule,
            host: None,
            asked: None,
            port: None,
            rule: None,
            address: None,
            method: None,
            path: None,
            credential: None,
            bytes_up: 0,
            bytes_down: 0,
        };
        let meter = Meter::new(&gate.counts, gate.rules.limits);
        Self { gate: Arc::clone(gate), meter, decision, state: State::Undecided }
    }

    /// Notes where it wants to go.
    pub(crate) fn toward(&mut self, host: &Host, port: u16) {
        self.decision.host = Some(host.clone());
        self.decision.port = Some(port);
    }

    /// Notes what was asked for and could not be read.
    pub(crate) fn asked(&mut self, text: &[u8]) {
        self.decision.asked = Some(Quoted::new(text));
    }

    /// Notes the request.
    pub(crate) fn requests(&mut self, method: &str, path: &str) {
        self.decision.method = Some(Quoted::new(method.as_bytes()));
        self.decision.path = Some(Quoted::new(path.as_bytes()));
    }

    /// Notes the rule that allows it.
    pub(crate) fn allowed_by(&mut self, rule: &Rule) {
        self.decision.rule = Some(rule.text.clone());
        self.decision.credential = rule.credential.as_ref().map(|credential| credential.name.clone());
    }

    /// Records that it is denied, once. What has left is ended by [`Passage::close`] instead.
    pub(crate) async fn deny(&mut self, no: No) -> Reason {
        if self.state == State::Undecided {
            self.state = State::Over;
            self.gate.counts.denied.fetch_add(1, Ordering::Relaxed);
            if no.rule.is_some() {
                self.decision.rule = no.rule;
            }
            if self.record(Verdict::Deny, no.reason).await.is_err() {
                tracing::error!("a denied egress connection could not be recorded");
            }
        }
        no.reason
    }

    /// Finds the address, records that it is allowed, and dials. The rules must have said yes: [`Passage::allowed_by`].
    pub(crate) async fn leave(&mut self) -> Result<TcpStream, Reason> {
        let (Some(host), Some(port), Some(_)) =
            (&self.decision.host, self.decision.port, &self.decision.rule)
        else {
            return Err(Reason::NoRule);
        };
        self.meter.check()?;
        let gate = Arc::clone(&self.gate);
        let dial = gate.rules.limits.dial();
        let address = checked_address(gate.outside.resolver.as_ref(), host, port, &gate.rules.private);
        let address = in_time(dial, address).await??;
        self.decision.address = Some(address.ip());
        self.record(Verdict::Allow, Reason::Rule).await.map_err(|Unrecorded| Reason::Unrecorded)?;
        self.state = State::Left;
        let stream = in_time(dial, TcpStream::connect(address)).await?.map_err(|_| Reason::Unreachable)?;
        stream.set_nodelay(true).map_err(|_| Reason::Unreachable)?;
        Ok(stream)
    }

    /// Records how it ended, once. Where that cannot be recorded, nothing more leaves this sandbox.
    pub(crate) async fn close(&mut self, reason: Reason) {
        match self.state {
            State::Over => {}
            State::Undecided => {
                self.deny(reason.into()).await;
            }
            State::Left => {
                self.state = State::Over;
                if self.record(Verdict::End, reason).await.is_err() {
                    tracing::error!(
                        "the end of an egress connection could not be recorded; the egress is stopped"
                    );
                    self.gate.stop.cancel();
                }
            }
        }
    }

    async fn record(&mut self, verdict: Verdict, reason: Reason) -> Result<(), Unrecorded> {
        self.decision.verdict = verdict;
        self.decision.reason = reason;
        (self.decision.bytes_up, self.decision.bytes_down) = self.meter.own();
        let recorded = self.gate.outside.watch.decided(&self.decision);
        in_time(self.gate.rules.limits.dial(), recorded).await.unwrap_or(Err(Unrecorded))
    }
}

/// Waits no longer than that.
pub(crate) async fn in_time<T>(most: Duration, work: impl Future<Output = T>) -> Result<T, Reason> {
    tokio::time::timeout(most, work).await.map_err(|_| Reason::TimeLimit)
}

//! Counts what passes, and says when it is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::decision::Reason;
use super::declared::Limits;

/// What one sandbox used of its way out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Bytes that went out.
    pub bytes_up: u64,
    /// Bytes that came back.
    pub bytes_down: u64,
    /// Connections that the program made, refused ones included.
    pub connections: u64,
    /// Connections that were refused.
    pub denied: u64,
}

/// The counts of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) denied: AtomicU64,
}

impl Counts {
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            bytes_up: self.up.load(Ordering::Relaxed),
            bytes_down: self.down.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            denied: self.denied.load(Ordering::Relaxed),
        }
    }
}

/// The counts of one connection, which are part of the sandbox's.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    all: Arc<Counts>,
    own: Arc<[AtomicU64; 2]>,
    limits: Limits,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Meter {
    pub(crate) fn new(all: &Arc<Counts>, limits: Limits) -> Self {
        Self { all: Arc::clone(all), own: Arc::default(), limits }
    }

    /// Takes as many of `count` bytes as may still pass.
    pub(crate) fn take(&self, way: Way, count: usize) -> usize {
        let [own_up, own_down] = &*self.own;
        let (all, own, most) = match way {
            Way::Up => (&self.all.up, own_up, self.limits.bytes_up_max),
            Way::Down => (&self.all.down, own_down, self.limits.bytes_down_max),
        };
        let granted = |used: u64| (count as u64).min(most.saturating_sub(used));
        let used = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used + granted(used)));
        let granted = granted(used.unwrap_or(most));
        own.fetch_add(granted, Ordering::Relaxed);
        usize::try_from(granted).unwrap_or(count)
    }

    /// Whether anything may pass at all.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        let totals = self.all.totals();
        if totals.bytes_up >= self.limits.bytes_up_max {
            return Err(Way::Up.exhausted());
        }
        if totals.bytes_down >= self.limits.bytes_down_max { Err(Way::Down.exhausted()) } else { Ok(()) }
    }

    /// Bytes of this connection, up and down.
    pub(crate) fn own(&self) -> (u64, u64) {
        let [up, down] = &*self.own;
        (up.load(Ordering::Relaxed), down.load(Ordering::Relaxed))
    }
}

impl Way {
    pub(crate) fn exhausted(self) -> Reason {
        match self {
            Self::Up => Reason::BudgetUp,
            Self::Down => Reason::BudgetDown,
        }
    }
}

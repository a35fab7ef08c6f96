//! Sandboxes that wait for a program, and the nursery that they come from. Each is taken once and never comes back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::nursery::{Nursery, Stamp};
use super::slot::Slot;
use crate::{Profile, Refused};

/// How long a sandbox may wait for its program before it is thrown away.
const AGE_MAX: Duration = Duration::from_mins(10);
/// A nursery is replaced after so many sandboxes, and after so long: what runs in it is then loaded anew.
const NURSERY_SANDBOXES_MAX: u64 = 50_000;
const NURSERY_AGE_MAX: Duration = Duration::from_hours(1);
/// Sandboxes that are built at the same time, beside those that somebody waits for.
const REFILLS: usize = 2;

pub(super) struct Pool {
    profile: Arc<Profile>,
    ready: Mutex<VecDeque<Slot>>,
    nursery: tokio::sync::Mutex<Option<Arc<Nursery>>>,
    refills: Semaphore,
}

impl Pool {
    pub(super) fn new(profile: Arc<Profile>) -> Self {
        Self {
            profile,
            ready: Mutex::default(),
            nursery: tokio::sync::Mutex::default(),
            refills: Semaphore::new(REFILLS),
        }
    }

    /// A sandbox for one program: one that waits, or one that is built now.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Slot, Refused> {
        match self.take_ready() {
            Some(slot) => Ok(slot),
            None => self.build().await,
        }
    }

    /// Builds another in place of one that was taken. A little later and not now: moving a process into a cgroup may keep every
    /// other change of cgroups waiting, and whoever took one wants its own removed soon.
    pub(super) fn replace(self: &Arc<Self>) {
        if self.profile.ready > 0 {
            let pool = self.clone();
            tokio::spawn(async move { pool.refill().await });
        }
    }

    /// Builds as many as are to wait; the first that cannot be built says why.
    pub(super) async fn fill(self: &Arc<Self>) -> Result<(), Refused> {
        // The nursery in any case, so that a profile that cannot be had is found now.
        self.nursery().await?;
        while self.lacks() {
            let slot = self.build().await?;
            self.put(slot);
        }
        Ok(())
    }

    /// Throws away what waits, and ends the nursery.
    pub(super) async fn close(&self) {
        if let Ok(mut ready) = self.ready.lock() {
            ready.clear();
        }
        if let Some(nursery) = self.nursery.lock().await.take().and_then(Arc::into_inner) {
            nursery.end().await;
        }
    }

    async fn refill(self: Arc<Self>) {
        let Ok(_turn) = self.refills.acquire().await else { return };
        if !self.lacks() {
            return;
        }
        match self.build().await {
            Ok(slot) => self.put(slot),
            // Whoever wants one next builds it, and is told why that fails.
            Err(refused) => tracing::warn!(%refused, "a sandbox could not be built ahead"),
        }
    }

    /// The nursery that sandboxes come from now.
    async fn nursery(&self) -> Result<Arc<Nursery>, Refused> {
        let mut current = self.nursery.lock().await;
        if let Some(nursery) = &*current
            && !nursery.is_down()
            && nursery.begun() < NURSERY_SANDBOXES_MAX
            && nursery.age() < NURSERY_AGE_MAX
            && *nursery.stamp() == Stamp::of(&self.profile)
        {
            return Ok(nursery.clone());
        }
        // The old one lives until the last of its sandboxes is gone.
        let started = Arc::new(Nursery::start(&self.profile).await?);
        *current = Some(started.clone());
        Ok(started)
    }

    async fn build(&self) -> Result<Slot, Refused> {
        Slot::build(self.profile.clone(), self.nursery().await?).await
    }

    /// The one that waits longest and is still good; what is not is thrown away.
    fn take_ready(&self) -> Option<Slot> {
        let stamp = Stamp::of(&self.profile);
        let mut ready = self.ready.lock().ok()?;
        while let Some(slot) = ready.pop_front() {
            let nursery = slot.nursery();
            if !nursery.is_down() && *nursery.stamp() == stamp && slot.age() < AGE_MAX {
                return Some(slot);
            }
        }
        None
    }

    fn put(&self, slot: Slot) {
        if let Ok(mut ready) = self.ready.lock()
            && ready.len() < self.profile.ready
        {
            ready.push_back(slot);
        }
    }

    fn lacks(&self) -> bool {
        self.ready.lock().is_ok_and(|ready| ready.len() < self.profile.ready)
    }
}

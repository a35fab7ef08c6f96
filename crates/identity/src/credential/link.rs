//! The links under which users connect their accounts. A link names no one and opens nothing by itself: whoever follows it
//! has to log in as the user that it was made for.

use std::collections::HashMap;
use std::sync::Mutex;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use ringfence_core::{Instant, Secret};

use super::Owner;
use crate::login::random_text;

/// How long a link can be followed, in seconds.
pub const LINK_SECONDS: u64 = 600;
/// Links that can be followed at the same time.
const LINKS_MAX: usize = 10_000;

/// A link for the user.
#[derive(Clone, Eq, PartialEq)]
pub struct Link {
    /// Where it leads.
    pub url: String,
}

/// The links that can be followed, one for each owner.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<Owner, Ticket>>);

struct Ticket {
    text: Secret,
    until: Instant,
}

impl Links {
    /// The ticket of an owner's link: the same one as long as half of its life is left. `None` where there are too many.
    pub(crate) fn issue(&self, owner: &Owner, now: Instant) -> Option<Secret> {
        let mut links = self.0.lock().ok()?;
        let half = Instant(now.0.saturating_add(LINK_SECONDS * 500));
        if let Some(ticket) = links.get(owner).filter(|ticket| half < ticket.until) {
            return Some(ticket.text.clone());
        }
        if links.len() >= LINKS_MAX {
            links.retain(|_, ticket| now < ticket.until);
        }
        if links.len() >= LINKS_MAX && !links.contains_key(owner) {
            return None;
        }
        let text = random_text()?;
        let until = Instant(now.0.saturating_add(LINK_SECONDS * 1000));
        links.insert(owner.clone(), Ticket { text: text.clone(), until });
        Some(text)
    }

    /// For whom a ticket was issued.
    pub(crate) fn owner(&self, text: &str, now: Instant) -> Option<Owner> {
        let links = self.0.lock().ok()?;
        let mut found = links.iter().filter(|(_, ticket)| now < ticket.until && ticket.is(text));
        found.next().map(|(owner, _)| owner.clone())
    }

    /// Uses a ticket up; says whether it was good.
    pub(crate) fn take(&self, owner: &Owner, text: &str, now: Instant) -> bool {
        let Ok(mut links) = self.0.lock() else { return false };
        let is_good = links.get(owner).is_some_and(|ticket| now < ticket.until && ticket.is(text));
        is_good && links.remove(owner).is_some()
    }
}

impl Ticket {
    fn is(&self, text: &str) -> bool {
        verify_slices_are_equal(self.text.expose().as_bytes(), text.as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use ringfence_core::SystemName;

    use super::*;

    #[test]
    fn a_link_is_one_owners_lives_for_minutes_and_is_used_once() {
        let owner = |subject: &str| Owner {
            issuer: "i".into(),
            subject: subject.into(),
            system: SystemName::new("crm".to_owned()).unwrap(),
        };
        let links = Links::default();
        let bob = links.issue(&owner("bob"), Instant(0)).unwrap();
        let eve = links.issue(&owner("eve"), Instant(0)).unwrap();
        assert!(bob.expose() != eve.expose() && bob.expose().len() >= 43);
        assert_eq!(links.issue(&owner("bob"), Instant(299_999)).unwrap().expose(), bob.expose());
        assert_eq!(links.owner(bob.expose(), Instant(599_999)), Some(owner("bob")));
        assert_eq!(links.owner(bob.expose(), Instant(600_000)), None);
        assert!(!links.take(&owner("bob"), eve.expose(), Instant(1)));
        assert!(links.take(&owner("bob"), bob.expose(), Instant(1)));
        assert!(!links.take(&owner("bob"), bob.expose(), Instant(1)), "once");
        assert_ne!(links.issue(&owner("bob"), Instant(1)).unwrap().expose(), bob.expose());
    }
}

//! The journal turns a permit into a ticket.
use ringfence_core::{EntryNumber, Permit, Recorder, Ticket};

fn record(recorder: &Recorder, permit: Permit) -> Ticket {
    Ticket::issue(recorder, permit, EntryNumber(1))
}

pub(crate) fn main() {
    let _: fn(&Recorder, Permit) -> Ticket = record;
}

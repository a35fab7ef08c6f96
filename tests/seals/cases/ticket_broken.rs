//! A permit is used up by its ticket: one decision, one effect.
use ringfence_core::{EntryNumber, Permit, Recorder, Ticket};

fn record(recorder: &Recorder, permit: Permit) -> [Ticket; 2] {
    [Ticket::issue(recorder, permit, EntryNumber(1)), Ticket::issue(recorder, permit, EntryNumber(2))]
}

fn main() {
    let _: fn(&Recorder, Permit) -> [Ticket; 2] = record;
}

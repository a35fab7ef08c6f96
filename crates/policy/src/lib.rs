//! What may happen: Cedar policies over a schema generated from the action-space.

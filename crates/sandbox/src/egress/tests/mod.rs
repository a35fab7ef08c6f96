//! Attacks on the egress proxy, each beside a request that works. Everything is on loopback.

mod harness;
mod inspected;
mod proxied;
mod transparent;

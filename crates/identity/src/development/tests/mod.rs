//! The development issuer as clients, browsers and thieves meet it: over HTTP, at a time that the tests set.

mod clients;
mod house;
mod login;
mod tokens;

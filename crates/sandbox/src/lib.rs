//! Runs a program that can touch only what it was given.

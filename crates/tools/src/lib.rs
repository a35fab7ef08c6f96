//! Runs one recorded call: SQL, HTTP, sandbox.

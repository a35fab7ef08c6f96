//! The action-space: tool files become checked tools, and arguments become checked arguments.

//! Why a command could not do what it was asked for, and what helps. Exit code 2.

use std::fmt::Display;

use owo_colors::OwoColorize as _;

/// A command could not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    /// Empty where the message says it all.
    help: String,
}

impl Failure {
    pub(crate) fn new(message: impl Display, help: impl Display) -> Self {
        Self { message: message.to_string(), help: help.to_string() }
    }

    /// A message that says already what helps: `what is wrong; what to do`.
    pub(crate) fn of(error: impl Display) -> Self {
        let text = error.to_string();
        match text.split_once("; ") {
            Some((message, help)) => Self::new(message, help),
            None => Self::new(text, ""),
        }
    }

    /// What is wrong, and what helps.
    pub(crate) fn into_parts(self, otherwise: &str) -> (String, String) {
        let help = if self.help.is_empty() { otherwise.to_owned() } else { self.help };
        (self.message, help)
    }

    /// What is wrong, and what helps, in one line.
    pub(crate) fn into_sentence(self) -> String {
        if self.help.is_empty() { self.message } else { format!("{}; {}", self.message, self.help) }
    }

    /// The same, with something else that may help.
    pub(crate) fn or(mut self, other: &str) -> Self {
        self.help = if self.help.is_empty() { other.to_owned() } else { format!("{}; {other}", self.help) };
        self
    }

    pub(crate) fn print(&self) {
        anstream::eprintln!("{} {}", "error:".red().bold(), self.message);
        if !self.help.is_empty() {
            anstream::eprintln!("{} {}", " help:".cyan().bold(), self.help);
        }
    }
}

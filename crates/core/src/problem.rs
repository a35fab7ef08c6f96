//! What is wrong with a project file, where, and what to write instead.

use std::fmt;

use serde::Serialize;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As the project says, and worth knowing.
    Note,
    /// The project works; this is worth a look.
    Warn,
    /// The project does not load.
    Error,
}

/// A place in a project file; line and column count from 1, columns in characters.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Place {
    /// The file, relative to the project.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

impl Place {
    /// The place of a byte offset in a file's text; past the end means the end.
    #[must_use]
    pub fn of(file: &str, text: &str, offset: usize) -> Self {
        let before = text.get(..offset.min(text.len())).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }

    /// The beginning of a file.
    #[must_use]
    pub fn start(file: &str) -> Self {
        Self { file: file.to_owned(), line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One finding of `ringfence check`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// How bad.
    pub level: Level,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub instead: String,
}

impl Problem {
    /// A problem that keeps the project from loading.
    #[must_use]
    pub fn error(place: Place, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { place, level: Level::Error, what: what.into(), instead: instead.into() }
    }

    /// What somebody who reviews the project wants to know.
    #[must_use]
    pub fn note(place: Place, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { place, level: Level::Note, what: what.into(), instead: instead.into() }
    }

    /// A problem that deserves a look.
    #[must_use]
    pub fn warn(place: Place, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { place, level: Level::Warn, what: what.into(), instead: instead.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.instead)
    }
}

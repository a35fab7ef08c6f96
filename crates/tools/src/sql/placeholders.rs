//! The parameters that a statement uses: every placeholder is `:name` of a declared one, and every declared one is used.

use std::fmt::Write as _;

use ringfence_actions::Tool;
use ringfence_core::{ParamName, Place, Problem};

use super::words::{Dialect, Piece, pieces};

/// A statement whose `:name` became `$1`, `$2`, …: PostgreSQL's protocol knows no names.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Numbered {
    /// The statement for the database.
    pub(crate) text: String,
    /// The name behind each number; `None` for what had none.
    pub(crate) names: Vec<Option<String>>,
}

/// Puts numbers in the place of names. The same name has the same number.
pub(crate) fn numbered(sql: &str) -> Numbered {
    let mut numbered = Numbered { text: String::with_capacity(sql.len()), names: Vec::new() };
    let mut is_after_colon = false;
    let mut pieces = pieces(sql, Dialect::Postgres).peekable();
    while let Some((piece, _)) = pieces.next() {
        let named = match (piece, pieces.peek()) {
            // Of `::type` neither colon begins a placeholder.
            (Piece::Mark(':'), Some((Piece::Word(name), _))) if !is_after_colon => {
                Some(*name).filter(|name| !name.starts_with(|char: char| char.is_ascii_digit()))
            }
            _ => None,
        };
        is_after_colon = named.is_none() && piece == Piece::Mark(':') && !is_after_colon;
        if let Some(name) = named {
            pieces.next();
            let number = numbered.number(Some(name.to_owned()));
            let _infallible = write!(numbered.text, "${number}");
            continue;
        }
        match piece {
            Piece::Word(text) if text.starts_with('$') => {
                numbered.names.push(None);
                numbered.text.push_str(text);
            }
            Piece::Passed(text) | Piece::Word(text) => numbered.text.push_str(text),
            Piece::Mark(char) => numbered.text.push(char),
        }
    }
    numbered
}

impl Numbered {
    fn number(&mut self, name: Option<String>) -> usize {
        let known = self.names.iter().position(|known| *known == name);
        known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        }) + 1
    }
}

/// The declared parameter behind each placeholder; `names` are as the statement has them, without their colon.
pub(crate) fn declared(
    tool: &Tool,
    names: &[Option<String>],
    place: &Place,
    problems: &mut Vec<Problem>,
) -> Option<Vec<ParamName>> {
    let before = problems.len();
    let mut used = Vec::new();
    for name in names {
        let known = name.as_deref().and_then(|name| tool.param_names().find(|known| known.as_str() == name));
        let Some(known) = known else {
            let shown = name.as_ref().map_or_else(|| "?".to_owned(), |name| format!(":{name}"));
            let what = format!("placeholder `{shown}` is no parameter of `{}`", tool.name());
            let instead = "write `:name` and declare `name` under `params`";
            problems.push(Problem::error(place.clone(), what, instead));
            continue;
        };
        used.push(known.clone());
    }
    for param in tool.params().iter().filter(|param| !used.contains(param.name())) {
        let what = format!("parameter `{}` is declared but the statement does not use it", param.name());
        let instead = format!("use `:{}` or delete it", param.name());
        problems.push(Problem::error(param.place().clone(), what, instead));
    }
    (problems.len() == before).then_some(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_nothing_else_changes() {
        for (sql, text, names) in [
            ("SELECT :a, :b, :a", "SELECT $1, $2, $1", vec!["a", "b"]),
            ("SELECT x::text, :a::int", "SELECT x::text, $1::int", vec!["a"]),
            ("SELECT ':a' -- :b\n, \":c\", $$ :d $$", "SELECT ':a' -- :b\n, \":c\", $$ :d $$", vec![]),
            ("SELECT E'\\':a', :b", "SELECT E'\\':a', $1", vec!["b"]),
            ("SELECT :a::int::text, :b", "SELECT $1::int::text, $2", vec!["a", "b"]),
            ("SELECT a[1:2], a[:x]", "SELECT a[1:2], a[$1]", vec!["x"]),
            ("/* /* */ :a */ :b", "/* /* */ :a */ $1", vec!["b"]),
        ] {
            let names = names.into_iter().map(|name| Some(name.to_owned())).collect();
            assert_eq!(numbered(sql), Numbered { text: text.to_owned(), names }, "{sql}");
        }
        assert_eq!(numbered("SELECT $1").names, [None]);
    }
}

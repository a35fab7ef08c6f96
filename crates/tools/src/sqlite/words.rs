//! The bare words of a statement, past strings, quoted names and comments (<https://www.sqlite.org/lang.html>).
//!
//! The authorizer judges what a statement touches; this sees the two things that it is never asked about: `VACUUM`, and
//! rows that a `REPLACE` deletes to make room.

/// A bare word, and whether an opening bracket follows it.
struct Word<'a> {
    text: &'a str,
    calls: bool,
}

/// The first word, in capitals.
pub(super) fn first(sql: &str) -> String {
    words(sql).next().map(|word| word.text.to_ascii_uppercase()).unwrap_or_default()
}

/// Whether a `REPLACE` stands there that is not the function of that name.
pub(super) fn replaces(sql: &str) -> bool {
    words(sql).any(|word| !word.calls && word.text.eq_ignore_ascii_case("replace"))
        || words(sql).next().is_some_and(|word| word.text.eq_ignore_ascii_case("replace"))
}

fn words(sql: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            let first = rest.chars().next()?;
            if let Some(end) = beyond(rest) {
                rest = rest.get(end..).unwrap_or_default();
                continue;
            }
            let is_part =
                |char: char| char.is_alphanumeric() || char == '_' || char == '$' || !char.is_ascii();
            if !is_part(first) {
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
                continue;
            }
            let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
            let (text, after) = rest.split_at(end);
            rest = after;
            return Some(Word { text, calls: after.trim_start().starts_with('(') });
        }
    })
}

/// Where what begins here ends, if it is a string, a quoted name or a comment.
fn beyond(text: &str) -> Option<usize> {
    let until = |open: usize, close: &str| {
        let inside = text.get(open..).unwrap_or_default();
        Some(inside.find(close).map_or(text.len(), |at| open + at + close.len()))
    };
    match text.as_bytes() {
        [b'-', b'-', ..] => until(2, "\n"),
        [b'/', b'*', ..] => until(2, "*/"),
        // A doubled quote inside ends one text here and begins the next, which comes to the same.
        [b'\'', ..] => until(1, "'"),
        [b'"', ..] => until(1, "\""),
        [b'`', ..] => until(1, "`"),
        [b'[', ..] => until(1, "]"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_names_and_comments_hold_no_words() {
        assert_eq!(first("-- VACUUM\n /* x */ select 1"), "SELECT");
        assert_eq!(first("/* open"), "");
        for there in [
            "REPLACE INTO t VALUES (1)",
            "replace(x) into",
            "insert or/**/replace into t",
            "UPDATE OR REPLACE t",
        ] {
            assert!(replaces(there), "{there}");
        }
        for none in [
            "SELECT replace(a, 'b', 'c')",
            "SELECT 'or replace '",
            "SELECT \"replace\"",
            "SELECT 'it''s replace'",
            "SELECT [replace] -- replace",
        ] {
            assert!(!replaces(none), "{none}");
        }
    }
}

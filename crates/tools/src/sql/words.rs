//! The bare words of a statement, past strings, quoted names and comments.
//!
//! No wall: the database itself judges what a statement does. This sees what a database is never asked about, such as how a
//! statement begins, and puts numbers in the place of names where a database knows only numbers.

/// How a database reads what is quoted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Dialect {
    /// <https://www.sqlite.org/lang_keywords.html>: names also in backquotes and brackets.
    Sqlite,
    /// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>: dollar quotes, `E'…'`, comments within comments.
    Postgres,
}

/// A piece of a statement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Piece<'a> {
    /// White space, a string, a quoted name or a comment.
    Passed(&'a str),
    /// A bare word or number.
    Word(&'a str),
    /// Any other character.
    Mark(char),
}

/// The first word, in capitals.
pub(crate) fn first(sql: &str, dialect: Dialect) -> String {
    words(sql, dialect).next().map(|(word, _)| word.to_ascii_uppercase()).unwrap_or_default()
}

/// Whether this word stands there, in any case.
pub(crate) fn has(sql: &str, word: &str, dialect: Dialect) -> bool {
    words(sql, dialect).any(|(found, _)| found.eq_ignore_ascii_case(word))
}

/// Whether a `REPLACE` stands there that is not the function of that name.
pub(crate) fn replaces(sql: &str, dialect: Dialect) -> bool {
    words(sql, dialect).enumerate().any(|(at, (word, rest))| {
        let is_called = rest.trim_start().starts_with('(');
        word.eq_ignore_ascii_case("replace") && (at == 0 || !is_called)
    })
}

/// Each word with what follows it.
fn words(sql: &str, dialect: Dialect) -> impl Iterator<Item = (&str, &str)> {
    pieces(sql, dialect).filter_map(|(piece, rest)| match piece {
        Piece::Word(word) => Some((word, rest)),
        Piece::Passed(_) | Piece::Mark(_) => None,
    })
}

/// Each piece with what follows it. The pieces put together are the statement.
pub(super) fn pieces(sql: &str, dialect: Dialect) -> impl Iterator<Item = (Piece<'_>, &str)> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        if let Some(end) = beyond(rest, dialect) {
            let passed;
            (passed, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
            return Some((Piece::Passed(passed), rest));
        }
        if is_part(first) {
            let word;
            (word, rest) = rest.split_at(rest.find(|char| !is_part(char)).unwrap_or(rest.len()));
            return Some((Piece::Word(word), rest));
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
        Some((Piece::Mark(first), rest))
    })
}

fn is_part(char: char) -> bool {
    char.is_alphanumeric() || char == '_' || char == '$' || !char.is_ascii()
}

/// Where what begins here ends, in bytes, if it is white space, a string, a quoted name or a comment.
fn beyond(text: &str, dialect: Dialect) -> Option<usize> {
    let until = |open: usize, close: &str| {
        let inside = text.get(open..).unwrap_or_default();
        Some(inside.find(close).map_or(text.len(), |at| open + at + close.len()))
    };
    let is_sqlite = dialect == Dialect::Sqlite;
    match text.as_bytes() {
        [first, ..] if first.is_ascii_whitespace() => Some(1),
        [b'-', b'-', ..] => until(2, "\n"),
        [b'/', b'*', ..] if is_sqlite => until(2, "*/"),
        [b'/', b'*', ..] => Some(nested_comment(text)),
        // A doubled quote inside ends one text here and begins the next, which comes to the same.
        [b'\'', ..] => until(1, "'"),
        [b'"', ..] => until(1, "\""),
        [b'`', ..] if is_sqlite => until(1, "`"),
        [b'[', ..] if is_sqlite => until(1, "]"),
        [b'E' | b'e', b'\'', ..] if !is_sqlite => Some(escaped_string(text)),
        [b'$', ..] if !is_sqlite => {
            let tag = text.get(..=text.get(1..)?.find('$')? + 1)?;
            let name = tag.trim_matches('$');
            let is_tag = !name.starts_with(|char: char| char.is_ascii_digit())
                && name.chars().all(|char| is_part(char) && char != '$');
            is_tag.then(|| until(tag.len(), tag)).flatten()
        }
        _ => None,
    }
}

fn nested_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        let length = match rest {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += length;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn escaped_string(text: &str) -> usize {
    let mut bytes = text.bytes().enumerate().skip(2);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_names_and_comments_hold_no_words() {
        assert_eq!(first("-- VACUUM\n /* x */ select 1", Dialect::Sqlite), "SELECT");
        assert_eq!(first("/* open", Dialect::Sqlite), "");
        for there in [
            "REPLACE INTO t VALUES (1)",
            "replace(x) into",
            "insert or/**/replace into t",
            "UPDATE OR REPLACE t",
        ] {
            assert!(replaces(there, Dialect::Sqlite), "{there}");
        }
        for none in [
            "SELECT replace(a, 'b', 'c')",
            "SELECT 'or replace '",
            "SELECT \"replace\"",
            "SELECT 'it''s replace'",
            "SELECT [replace] -- replace",
        ] {
            assert!(!replaces(none, Dialect::Sqlite), "{none}");
        }
    }

    #[test]
    fn each_database_reads_quotes_in_its_own_way() {
        let seen = |sql, dialect| words(sql, dialect).map(|(word, _)| word).collect::<Vec<_>>().join(" ");
        for (sql, sqlite, postgres) in [
            ("a /* b /* c */ d */ e", "a d e", "a e"),
            ("a[b]", "a", "a b"),
            ("E'it\\'s' x", "E s", "x"),
            ("$t$ a ' $t$ x", "$t$ a", "x"),
            ("$$ a $$ $1 b$c$d", "$$ a $$ $1 b$c$d", "$1 b$c$d"),
        ] {
            let found = (seen(sql, Dialect::Sqlite), seen(sql, Dialect::Postgres));
            assert_eq!(found, (sqlite.to_owned(), postgres.to_owned()), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_statement(sql in "[a$'\"/*\\-E\\\\:\\[\\] é1\n]{0,40}") {
            for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                let mut whole = String::new();
                for (piece, _) in pieces(&sql, dialect) {
                    match piece {
                        Piece::Passed(text) | Piece::Word(text) => whole.push_str(text),
                        Piece::Mark(char) => whole.push(char),
                    }
                }
                prop_assert_eq!(&whole, &sql);
            }
        }
    }
}

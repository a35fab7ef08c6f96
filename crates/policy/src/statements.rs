//! Splits a policy file into its statements, so that each can be named by the line where it begins.

/// One statement of a file: where it begins, and its text up to and with its semicolon.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Statement<'a> {
    /// The byte offset of its first character.
    pub(crate) offset: usize,
    /// Its text.
    pub(crate) text: &'a str,
}

/// The statements of a file, in order. Comments and strings are seen as Cedar sees them; a split at a wrong place gives
/// texts that Cedar refuses, so it can make a file unreadable but never change what it means.
pub(crate) fn split(source: &str) -> Vec<Statement<'_>> {
    let mut statements = Vec::new();
    let mut start = None;
    let mut chars = source.char_indices().peekable();
    while let Some((at, character)) = chars.next() {
        match character {
            '/' if chars.peek().is_some_and(|(_, next)| *next == '/') => {
                while chars.next_if(|(_, next)| *next != '\n').is_some() {}
            }
            '"' => {
                start.get_or_insert(at);
                while let Some((_, inside)) = chars.next() {
                    match inside {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            ';' => {
                let offset = start.take().unwrap_or(at);
                statements.extend(source.get(offset..=at).map(|text| Statement { offset, text }));
            }
            space if space.is_whitespace() => {}
            _ => drop(start.get_or_insert(at)),
        }
    }
    let rest = start.and_then(|offset| source.get(offset..).map(|text| Statement { offset, text }));
    statements.extend(rest);
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_strings_and_comments_split_nothing() {
        let source = "// a; b\npermit (principal, action, resource) when { \"x;\\\";\" == \"y\" }; // c;\n@a(\"b;\") forbid (x);\nrest";
        let texts: Vec<&str> = split(source).iter().map(|statement| statement.text).collect();
        assert_eq!(
            texts,
            [
                "permit (principal, action, resource) when { \"x;\\\";\" == \"y\" };",
                "@a(\"b;\") forbid (x);",
                "rest"
            ]
        );
    }
}

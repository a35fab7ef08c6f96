//! Reads JSON that nobody can read in two ways: no duplicate keys, none that differ in case alone, bounded depth and size.
//!
//! Parsers disagree on duplicate keys (RFC 8259 §4) and some match keys without regard to case, so a text with either can
//! mean one thing to the judge and another to the one who acts. Numbers keep their digits.

use std::collections::HashSet;

use serde_json::Value;

/// How much a text may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all.
    pub bytes_max: usize,
    /// Objects and arrays within each other.
    pub depth_max: usize,
    /// Values in all, those within others included.
    pub items_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 1 << 20, depth_max: 32, items_max: 50_000 }
    }
}

/// Why a text was not read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// Longer than the limit.
    #[error("the JSON is longer than {0} bytes")]
    TooLong(usize),
    /// Nested more deeply than the limit.
    #[error("the JSON is nested more than {0} levels deep")]
    TooDeep(usize),
    /// More values than the limit.
    #[error("the JSON holds more than {0} values")]
    TooMany(usize),
    /// A key that an earlier key of its object equals, but perhaps for case.
    #[error("key `{0}` stands twice in one object; keys that differ in case alone count as the same")]
    RepeatedKey(String),
    /// A key that this reader's parser gives a meaning of its own.
    #[error("key `{0}` is reserved")]
    ReservedKey(String),
    /// Not JSON.
    #[error("this is not JSON: {0}")]
    Syntax(String),
}

/// Reads one JSON value that fills the whole text.
///
/// ```
/// use ringfence_mcp::json::{Limits, Rejected, read};
///
/// let limits = Limits::default();
/// assert_eq!(read(b"[12345678901234567890]", &limits).unwrap().to_string(), "[12345678901234567890]");
/// assert_eq!(read(br#"{"id": 1, "ID": 2}"#, &limits), Err(Rejected::RepeatedKey("ID".into())));
/// ```
pub fn read(text: &[u8], limits: &Limits) -> Result<Value, Rejected> {
    if text.len() > limits.bytes_max {
        return Err(Rejected::TooLong(limits.bytes_max));
    }
    Scan { text, at: 0, items: 0, open: Vec::new() }.run(limits)?;
    serde_json::from_slice(text).map_err(|error| Rejected::Syntax(error.to_string()))
}

/// Walks the text once to see its keys and its shape. It judges nothing else: what is not JSON is left to the parser.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    items: usize,
    open: Vec<Open>,
}

/// An object or array that has begun.
enum Open {
    Array,
    Object { keys: HashSet<String>, expects_key: bool },
}

impl Scan<'_> {
    fn run(mut self, limits: &Limits) -> Result<(), Rejected> {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => self.string()?,
                b'{' => self.open(Open::Object { keys: HashSet::new(), expects_key: true }, limits)?,
                b'[' => self.open(Open::Array, limits)?,
                b'}' | b']' => drop(self.open.pop()),
                b',' => self.comma(),
                _ => {}
            }
            if byte == b',' || byte == b'{' || byte == b'[' {
                self.items += 1;
            }
            if self.items > limits.items_max {
                return Err(Rejected::TooMany(limits.items_max));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn open(&mut self, open: Open, limits: &Limits) -> Result<(), Rejected> {
        if self.open.len() >= limits.depth_max {
            return Err(Rejected::TooDeep(limits.depth_max));
        }
        self.open.push(open);
        Ok(())
    }

    fn comma(&mut self) {
        if let Some(Open::Object { expects_key, .. }) = self.open.last_mut() {
            *expects_key = true;
        }
    }

    /// A string begins here: a key where one is expected. Leaves `at` on its closing quote.
    fn string(&mut self) -> Result<(), Rejected> {
        let start = self.at;
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let Some(Open::Object { keys, expects_key }) = self.open.last_mut() else { return Ok(()) };
        if !std::mem::take(expects_key) {
            return Ok(());
        }
        let Some(raw) = self.text.get(start..=self.at) else { return Ok(()) };
        let Ok(key) = serde_json::from_slice::<String>(raw) else { return Ok(()) };
        // `serde_json` turns an object with such a key into a number or into raw text.
        if key.starts_with("$serde_json::private::") {
            return Err(Rejected::ReservedKey(key));
        }
        if keys.insert(fold(&key)) { Ok(()) } else { Err(Rejected::RepeatedKey(key)) }
    }
}

/// One spelling for all that differ in case alone, as the most lenient parsers compare them (`ſ` with `s`, `K` with `k`).
fn fold(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rejected(text: &str) -> String {
        read(text.as_bytes(), &Limits::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"A":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"s":1,"ſ":2}"#,
            r#"{"k":1,"K":2}"#,
            r#"[{"x":{"q":1,"p":{"q":2},"Q":3}}]"#,
        ] {
            assert!(rejected(text).contains("stands twice"), "{text}: {}", rejected(text));
        }
        assert!(rejected(r#"{"$serde_json::private::Number":"1"}"#).contains("reserved"));
        for text in
            ["", "{", "{}x", "\u{feff}{}", "nan", "01", "[1,]", r#""\ud800""#, "{'a':1}", "[1] [2]", "//\n{}"]
        {
            assert!(rejected(text).contains("not JSON"), "{text}");
        }
        assert!(read(b"\"\xff\"", &Limits::default()).is_err());
    }

    #[test]
    fn limits_hold_before_the_parser_runs() {
        let limits = Limits { bytes_max: 100, depth_max: 3, items_max: 10 };
        let judge = |text: &str| read(text.as_bytes(), &limits).map(|value| value.to_string());
        assert_eq!(judge("[[[1]]]"), Ok("[[[1]]]".into()));
        assert_eq!(judge("[[[[1]]]]"), Err(Rejected::TooDeep(3)));
        assert_eq!(judge("[1,2,3,4,5,6,7,8,9,10,11]"), Err(Rejected::TooMany(10)));
        assert_eq!(judge(&format!("\"{}\"", "x".repeat(100))), Err(Rejected::TooLong(100)));
        // Brackets within a string are text.
        assert!(judge(r#"["[[[[", "\"]]]]{{{"]"#).is_ok());
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = "[9007199254740993,123456789012345678901234567890,0.1000,1e+400,-0]";
        assert_eq!(read(text.as_bytes(), &Limits::default()).unwrap().to_string(), text);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_sound_is_read_as_it_is(value in json()) {
            prop_assert_eq!(read(value.to_string().as_bytes(), &Limits::default()), Ok(value));
        }

        #[test]
        fn a_repeated_key_is_found_wherever_it_stands(value in json(), key in "[a-z]{1,4}") {
            let twice = format!(r#"{{"x":[{value},{{"{key}":{value},"{}":1}}]}}"#, key.to_uppercase());
            prop_assert_eq!(
                read(twice.as_bytes(), &Limits::default()),
                Err(Rejected::RepeatedKey(key.to_uppercase()))
            );
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _either = read(&bytes, &Limits::default());
        }
    }
}

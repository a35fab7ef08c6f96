//! Finds secrets and placeholders in what passes, in the spellings that servers and clients give them, across reads.
//!
//! It guards against echoes and mistakes. Against a server that holds the secret and wants to tell it there is no search.

use std::fmt;
use std::sync::Arc;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of a line break that may stand between two characters of base64 (RFC 2045).
const BREAK_BYTES_MAX: usize = 2;

/// What is searched for: each value plain, in hexadecimal, and in base64 at each alignment.
pub(crate) struct Needles {
    needles: Vec<Needle>,
    /// Whether a byte can begin a match.
    begins: [bool; 256],
}

struct Needle {
    bytes: Zeroizing<Vec<u8>>,
    spelling: Spelling,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Spelling {
    /// In either case.
    Folded,
    /// As it is, with line breaks.
    Base64,
}

enum Match {
    No,
    /// It could become one with more bytes.
    Perhaps,
    Yes(usize),
}

impl Needles {
    pub(crate) fn of<'v>(values: impl Iterator<Item = &'v str>) -> Self {
        let mut needles = Vec::new();
        for value in values {
            needles.push(Needle::new(value.as_bytes().to_vec(), Spelling::Folded));
            needles.push(Needle::new(hex::encode(value).into_bytes(), Spelling::Folded));
            for before in 0..3 {
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    needles.push(Needle::new(base64_within(value, before, &engine), Spelling::Base64));
                }
            }
        }
        let begins = std::array::from_fn(|byte| {
            let byte = u8::try_from(byte).unwrap_or_default();
            let is_first =
                |needle: &Needle| needle.bytes.first().is_some_and(|first| needle.is(*first, byte));
            needles.iter().any(|needle| is_first(needle) || byte == b'%' || byte == b'\\')
        });
        Self { needles, begins }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// Whether any of them is in this text.
    pub(crate) fn are_in(self: &Arc<Self>, text: &[u8]) -> bool {
        let mut search = Search::new(self);
        search.pass(text, Last::Yes, &mut Vec::new())
    }

    fn at(&self, text: &[u8], last: Last) -> Match {
        let mut best = Match::No;
        for needle in &self.needles {
            match needle.at(text, last) {
                Match::Yes(length) => return Match::Yes(length),
                Match::Perhaps => best = Match::Perhaps,
                Match::No => {}
            }
        }
        best
    }
}

impl fmt::Debug for Needles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Needles({})", self.needles.len())
    }
}

/// The characters of base64 that `value` alone decides, where `before` bytes of something else stand in front of it.
fn base64_within(value: &str, before: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let whole = Zeroizing::new([vec![0; before].as_slice(), value.as_bytes()].concat());
    let encoded = Zeroizing::new(engine.encode(&whole).into_bytes());
    let (from, to) = ((before * 8).div_ceil(6), whole.len() * 8 / 6);
    encoded.get(from..to).unwrap_or_default().to_vec()
}

impl Needle {
    fn new(bytes: Vec<u8>, spelling: Spelling) -> Self {
        Self { bytes: Zeroizing::new(bytes), spelling }
    }

    fn is(&self, wanted: u8, found: u8) -> bool {
        wanted == found || self.spelling == Spelling::Folded && wanted.eq_ignore_ascii_case(&found)
    }

    fn at(&self, text: &[u8], last: Last) -> Match {
        let mut rest = text;
        for (place, wanted) in self.bytes.iter().enumerate() {
            if place > 0 && self.spelling == Spelling::Base64 {
                for _ in 0..BREAK_BYTES_MAX {
                    rest = rest.strip_prefix(b"\r").or_else(|| rest.strip_prefix(b"\n")).unwrap_or(rest);
                }
            }
            match self.one(*wanted, rest, last) {
                Match::Yes(length) => rest = rest.get(length..).unwrap_or_default(),
                other => return other,
            }
        }
        Match::Yes(text.len() - rest.len())
    }

    /// One byte: itself, `%41`, `\u0041`, `\x41`, `\/`, or `+` for a space.
    fn one(&self, wanted: u8, text: &[u8], last: Last) -> Match {
        let Some(first) = text.first() else {
            return if last == Last::Yes { Match::No } else { Match::Perhaps };
        };
        let escaped = match (first, text.get(1)) {
            (b'%', _) => self.escaped(wanted, text, 1, 2),
            (b'\\', Some(b'u')) => self.escaped(wanted, text, 2, 4),
            (b'\\', Some(b'x')) => self.escaped(wanted, text, 2, 2),
            (b'\\', Some(next)) if *next == wanted => Match::Yes(2),
            (b'\\', None) => Match::Perhaps,
            _ => Match::No,
        };
        match escaped {
            Match::Yes(length) => Match::Yes(length),
            Match::Perhaps if last == Last::No => Match::Perhaps,
            _ if self.is(wanted, *first) => Match::Yes(1),
            _ => Match::No,
        }
    }

    /// `digits` digits of hexadecimal after `from` bytes.
    fn escaped(&self, wanted: u8, text: &[u8], from: usize, digits: usize) -> Match {
        let found = text.get(from..).unwrap_or_default();
        let found = found.get(..digits).unwrap_or(found);
        if !found.iter().all(u8::is_ascii_hexdigit) {
            return Match::No;
        }
        if found.len() < digits {
            return Match::Perhaps;
        }
        let number = std::str::from_utf8(found).ok().and_then(|found| u32::from_str_radix(found, 16).ok());
        match number.and_then(|number| u8::try_from(number).ok()) {
            Some(byte) if self.is(wanted, byte) => Match::Yes(from + digits),
            _ => Match::No,
        }
    }
}

/// Finds secrets in texts that are whole: plain, in hexadecimal, percent-encoded, escaped, and in base64 at each alignment.
#[derive(Clone, Debug)]
pub struct Finder(Arc<Needles>);

impl Finder {
    /// Finds these.
    #[must_use]
    pub fn of<'v>(secrets: impl Iterator<Item = &'v str>) -> Self {
        Self(Arc::new(Needles::of(secrets)))
    }

    /// Whether any of them is in this text.
    #[must_use]
    pub fn finds(&self, text: &[u8]) -> bool {
        self.0.are_in(text)
    }

    /// The text with asterisks in place of each; `None` where there is none.
    #[must_use]
    pub fn blotted(&self, text: &str) -> Option<String> {
        let (mut search, mut out) = (Search::new(&self.0), Vec::with_capacity(text.len()));
        let found = search.pass(text.as_bytes(), Last::Yes, &mut out);
        found.then(|| String::from_utf8_lossy(&out).into_owned())
    }
}

/// Whether more can follow.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Last {
    Yes,
    No,
}

/// A search through one stream. What could be the beginning of a match is held until more has come.
pub(crate) struct Search {
    needles: Arc<Needles>,
    held: Vec<u8>,
}

impl Search {
    pub(crate) fn new(needles: &Arc<Needles>) -> Self {
        Self { needles: Arc::clone(needles), held: Vec::new() }
    }

    /// Takes bytes in and gives on to `out` what is known to be clean, with asterisks in place of what was found, so that
    /// lengths stay. Says whether something was found.
    pub(crate) fn pass(&mut self, bytes: &[u8], last: Last, out: &mut Vec<u8>) -> bool {
        if self.needles.is_empty() {
            out.extend_from_slice(bytes);
            return false;
        }
        self.held.extend_from_slice(bytes);
        let (mut rest, mut is_found) = (self.held.as_slice(), false);
        while let Some((first, after)) = rest.split_first() {
            let begins = self.needles.begins.get(usize::from(*first)).copied().unwrap_or(true);
            match if begins { self.needles.at(rest, last) } else { Match::No } {
                Match::No => {
                    out.push(*first);
                    rest = after;
                }
                Match::Perhaps => break,
                Match::Yes(length) => {
                    is_found = true;
                    out.resize(out.len() + length, b'*');
                    rest = rest.get(length..).unwrap_or_default();
                }
            }
        }
        let done = self.held.len() - rest.len();
        self.held.rotate_left(done);
        self.held.truncate(self.held.len() - done);
        is_found
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "sk-Live/7f>3?a~9\"x";

    fn spellings() -> Vec<String> {
        let percent = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
        let mixed: String = SECRET
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
        let unicode = SECRET.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<Vec<_>>().concat();
        let wrapped = STANDARD.encode(format!("user:{SECRET}:tail"));
        let wrapped: Vec<_> = wrapped.as_bytes().chunks(10).map(String::from_utf8_lossy).collect();
        let mut all = vec![
            SECRET.to_owned(),
            SECRET.to_uppercase(),
            hex::encode(SECRET),
            hex::encode_upper(SECRET),
            percent,
            mixed,
            unicode,
            serde_json::to_string(SECRET).unwrap(),
            wrapped.join("\r\n"),
        ];
        for before in ["", "u", "us", "use", "user"] {
            for after in ["", "x", "xy"] {
                all.push(STANDARD.encode(format!("{before}{SECRET}{after}")));
                all.push(URL_SAFE.encode(format!("{before}{SECRET}{after}")));
            }
        }
        all
    }

    fn passed(text: &[u8], step: usize) -> (bool, Vec<u8>) {
        let needles = Arc::new(Needles::of(std::iter::once(SECRET)));
        let (mut search, mut out, mut is_found) = (Search::new(&needles), Vec::new(), false);
        for bytes in text.chunks(step) {
            is_found |= search.pass(bytes, Last::No, &mut out);
        }
        is_found |= search.pass(b"", Last::Yes, &mut out);
        (is_found, out)
    }

    #[test]
    fn a_secret_is_found_in_every_spelling_and_at_every_cut() {
        for spelling in spellings() {
            let text = format!("{{\"echo\": {spelling}}}");
            for step in 1..=text.len() {
                let (is_found, out) = passed(text.as_bytes(), step);
                assert!(is_found, "{spelling} in steps of {step}");
                assert_eq!(out.len(), text.len());
            }
        }
    }

    #[test]
    fn a_whole_text_is_blotted_or_left_alone() {
        let finder = Finder::of(std::iter::once(SECRET));
        for spelling in spellings() {
            let blotted = finder.blotted(&format!("Zoë said {spelling}.")).unwrap();
            assert!(blotted.starts_with("Zoë said ") && blotted.contains("********"), "{blotted}");
            assert!(!finder.finds(blotted.as_bytes()), "{blotted}");
        }
        assert_eq!(finder.blotted("Zoë said nothing."), None);
    }

    #[test]
    fn what_is_no_secret_passes_unchanged() {
        for text in ["sk-Live/7f>3?a~9\"", "sk-Live/7f>3?a~9%2", "%", "\\", "s", "\\u00", "%73%6b plain"] {
            for step in 1..=text.len() {
                assert_eq!(passed(text.as_bytes(), step), (false, text.as_bytes().to_vec()), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_added(text: Vec<u8>, step in 1_usize..9) {
            let (is_found, out) = passed(&text, step);
            prop_assert!(is_found || out == text);
            prop_assert_eq!(out.len(), text.len());
        }
    }
}

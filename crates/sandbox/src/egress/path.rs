//! The one spelling of a path. What two servers could read in two ways is no path.

/// A path in its one spelling: absolute, no empty, `.` or `..` segment within, no escaped byte that need not be, and none
/// that some server takes for a separator (`%2F`, `%5C`, `%3B`, `%25`, controls).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Path(String);

/// It could be read in two ways.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a path begins with `/` and holds no `//`, `.`, `..`, `;`, `\\`, `%2F`, `%5C`, `%25` or `?`")]
pub(crate) struct Ambiguous;

impl Path {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Ambiguous> {
        let (mut text, mut decoded, mut rest) = (String::new(), Vec::new(), bytes);
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte != b'%' {
                if !is_path_byte(*byte) {
                    return Err(Ambiguous);
                }
                text.push(char::from(*byte));
                decoded.push(*byte);
                continue;
            }
            let (digits, after) = rest.split_at_checked(2).ok_or(Ambiguous)?;
            rest = after;
            let escaped = *hex::decode(digits).map_err(|_| Ambiguous)?.first().ok_or(Ambiguous)?;
            if escaped.is_ascii_control() || b"/\\;%".contains(&escaped) {
                return Err(Ambiguous);
            }
            decoded.push(escaped);
            if is_unreserved(escaped) {
                text.push(char::from(escaped));
            } else {
                text.push('%');
                text.push_str(&hex::encode_upper([escaped]));
            }
        }
        // An overlong `%C0%AE` is a dot to some.
        std::str::from_utf8(&decoded).map_err(|_| Ambiguous)?;
        let mut segments = text.strip_prefix('/').ok_or(Ambiguous)?.split('/').rev();
        let last = segments.next().unwrap_or_default();
        let is_dots = |segment: &str| segment == "." || segment == "..";
        if is_dots(last) || segments.any(|segment| segment.is_empty() || is_dots(segment)) {
            return Err(Ambiguous);
        }
        Ok(Self(text))
    }

    /// Whether `other` is this path or below it, by whole segments.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match other.0.strip_prefix(&self.0) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/'),
            None => false,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, Ambiguous> {
        Path::parse(text.as_bytes()).map(|path| path.0)
    }

    #[test]
    fn what_two_servers_could_read_in_two_ways_is_no_path() {
        for text in [
            "",
            "admin",
            "//admin",
            "/a//b",
            "/./a",
            "/../a",
            "/a/..",
            "/%2e%2e/a",
            "/a/.%2E",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a;x",
            "/a%3bx",
            "/%252e",
            "/a%00",
            "/a%0d%0a",
            "/a b",
            "/a#b",
            "/a?b",
            "/%c0%ae",
            "/%zz",
            "/%2",
            "/\u{e9}",
        ] {
            assert_eq!(parse(text), Err(Ambiguous), "{text:?}");
        }
        assert_eq!(parse("/v1/%61%7e/b%c3%a9/"), Ok("/v1/a~/b%C3%A9/".to_owned()));
        assert_eq!(parse("/"), Ok("/".to_owned()));
    }

    #[test]
    fn a_path_covers_itself_and_what_is_below() {
        let covers = |one: &str, other: &str| {
            Path::parse(one.as_bytes()).unwrap().covers(&Path::parse(other.as_bytes()).unwrap())
        };
        assert!(
            covers("/v1", "/v1")
                && covers("/v1", "/v1/users")
                && covers("/v1/", "/v1/users")
                && covers("/", "/a")
        );
        assert!(!covers("/v1", "/v1x") && !covers("/v1/", "/v1") && !covers("/v1", "/"));
    }

    proptest! {
        #[test]
        fn a_path_reads_as_itself(text in "/[a-z0-9/%.;~]{0,24}") {
            if let Ok(path) = parse(&text) {
                prop_assert_eq!(parse(&path), Ok(path));
            }
        }
    }
}

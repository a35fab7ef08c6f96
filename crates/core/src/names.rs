//! Names that need no escaping anywhere: in policies, in the journal, on the wire, in a path.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that breaks its rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{given}` is not a {kind}: write {rule}")]
pub struct BadName {
    kind: &'static str,
    given: String,
    rule: &'static str,
}

const IDENTIFIER: &str = "1 to 64 of `a-z`, `0-9` and `_`, beginning with a letter";
const HYPHENATED: &str = "1 to 64 of `a-z`, `0-9`, `_` and `-`, beginning with a letter";
const OPAQUE: &str = "1 to 255 visible ASCII characters without quotes or backslashes";

fn is_identifier(text: &str) -> bool {
    is_lower_name(text, |byte| byte == b'_')
}

fn is_hyphenated(text: &str) -> bool {
    is_lower_name(text, |byte| byte == b'_' || byte == b'-')
}

fn is_lower_name(text: &str, joiner: impl Fn(u8) -> bool) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || joiner(byte))
}

fn is_opaque(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:ident, $holds:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Takes a text that keeps the rule of this name; the error says what the rule is.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                if $holds(&text) {
                    return Ok(Self(text));
                }
                Err(BadName { kind: $kind, given: text.chars().take(64).collect(), rule: $rule })
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a tool: spelled the same in policies, in the journal and on the wire.
    ToolName, "tool name", IDENTIFIER, is_identifier
);
name!(
    /// The name of a tool's parameter: the same in the tool file, in the schema shown to the model and in policies.
    ParamName, "parameter name", IDENTIFIER, is_identifier
);
name!(
    /// The name of a system, as in `[systems.NAME]` of `ringfence.toml`.
    SystemName, "system name", HYPHENATED, is_hyphenated
);
name!(
    /// The OAuth client that acts for the principal (`client_id` or `azp` of its token).
    AgentId, "agent", OPAQUE, is_opaque
);
name!(
    /// A group that the identity provider says the principal belongs to.
    GroupName, "group", OPAQUE, is_opaque
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_rule_or_does_not_exist() {
        for good in ["a", "get_user_1", &"x".repeat(64)] {
            assert_eq!(ToolName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "1a", "_a", "Get", "a-b", "a b", "a\0", "ä", &"x".repeat(65)] {
            assert!(ToolName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            ToolName::new("Get User").unwrap_err().to_string(),
            "`Get User` is not a tool name: write 1 to 64 of `a-z`, `0-9` and `_`, beginning with a letter"
        );
    }
}

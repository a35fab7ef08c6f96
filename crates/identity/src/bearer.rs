//! The `Authorization` header (RFC 6750 §2.1): the only place where a token is taken from.

use ringfence_core::Secret;

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8192;

/// The header holds no bearer token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("send `Authorization: Bearer TOKEN`")]
pub struct BadHeader;

/// The token of an `Authorization` header's value.
pub fn bearer(header: &str) -> Result<Secret, BadHeader> {
    let (scheme, token) = header.split_once(' ').ok_or(BadHeader)?;
    let is_token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let is_token = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(is_token68);
    if scheme.eq_ignore_ascii_case("bearer") && is_token {
        Ok(Secret::new(token.to_owned()))
    } else {
        Err(BadHeader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_form_is_a_bearer_token() {
        assert_eq!(
            bearer("Bearer a.b-c").ok().map(|token| token.expose().to_owned()).as_deref(),
            Some("a.b-c")
        );
        assert!(bearer("bearer x").is_ok(), "schemes know no case (RFC 9110 §11.1)");
        let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
        for bad in ["", "Bearer", "Bearer ", "Bearer a b", "Basic x", "Bearer  x", "Bearer x\n", "x", &long] {
            assert!(bearer(bad).is_err(), "{bad:?}");
        }
    }
}

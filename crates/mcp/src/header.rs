//! Header values that mirror the body (2026-07-28, transports, *value encoding*): plain ASCII, or `=?base64?…?=`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A value as it stands in a header.
#[cfg(feature = "client")]
pub(crate) fn encode(value: &str) -> String {
    let is_plain = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && value.trim() == value;
    if is_plain && payload(value).is_none() {
        value.to_owned()
    } else {
        format!("=?base64?{}?=", STANDARD.encode(value))
    }
}

/// The value that a header stands for; `None` where its wrapping is malformed.
pub(crate) fn decode(header: &str) -> Option<String> {
    match payload(header) {
        None => Some(header.to_owned()),
        Some(wrapped) => String::from_utf8(STANDARD.decode(wrapped).ok()?).ok(),
    }
}

fn payload(header: &str) -> Option<&str> {
    header.strip_prefix("=?base64?")?.strip_suffix("?=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for value in ["run_python", "", " edge ", "ä\r\nx: y", "=?base64?QQ==?="] {
            let header = encode(value);
            assert!(header.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{header}");
            assert_eq!(decode(&header).as_deref(), Some(value));
        }
        assert_eq!(decode("=?base64?***?="), None);
        assert_eq!(decode("=?base64?QR==?="), None, "bits that no encoder sets");
    }
}

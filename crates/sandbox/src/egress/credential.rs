//! A credential that is put into requests outside, so that it is never inside.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::declared::DeclaredCredential;
use super::secret::Secret;

/// Headers that say how a message is read or where it goes, and so carry no credential.
const NOT_CARRIERS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
];

/// A credential with its value.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) name: String,
    /// In lower case.
    pub(crate) header: String,
    pub(crate) placeholder: String,
    pub(crate) secret: Secret,
    format: String,
}

impl Credential {
    pub(crate) fn check(
        declared: &DeclaredCredential,
        secrets: &BTreeMap<String, Secret>,
    ) -> Result<Self, String> {
        let name = declared.secret.clone();
        let secret =
            secrets.get(&name).ok_or_else(|| format!("there is no secret `{}`", name.escape_debug()))?;
        let header = declared.header.to_ascii_lowercase();
        let is_token = header.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if header.is_empty() || !is_token || NOT_CARRIERS.contains(&header.as_str()) {
            return Err(format!("`{}` is no header for a credential", declared.header.escape_debug()));
        }
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let format = declared.format.clone();
        if format.matches("{}").count() != 1 || !is_visible(&format) || format.trim() != format {
            return Err("`format` is visible ASCII with one `{}` in it, such as `Bearer {}`".to_owned());
        }
        let placeholder = declared.placeholder.clone();
        if !(8..=256).contains(&placeholder.len()) || !placeholder.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err("a placeholder is 8 to 256 bytes of visible ASCII".to_owned());
        }
        Ok(Self { name, header, placeholder, secret: secret.clone(), format })
    }

    /// The header's value.
    pub(crate) fn value(&self) -> Zeroizing<String> {
        Zeroizing::new(self.format.replacen("{}", self.secret.reveal(), 1))
    }

    /// Whether some server could read `name` as this header: CGI reads `_` as `-`.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        name.replace('_', "-").eq_ignore_ascii_case(&self.header)
    }
}

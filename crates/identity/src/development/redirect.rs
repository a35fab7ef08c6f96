//! Where a browser may be sent back to: https, or plain http on this machine (RFC 8252 §7.3).

use url::{Host, Url};

/// The longest one, in bytes.
const BYTES_MAX: usize = 2048;

/// An address that a client named beforehand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedirectUri {
    text: String,
    url: Url,
}

/// It is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` cannot be redirected to: write `https://…`, or `http://` with `127.0.0.1`, `[::1]` or `localhost`, without user or fragment"
)]
pub struct BadRedirect(String);

impl RedirectUri {
    /// Takes an address of https, or of http on loopback.
    pub fn new(text: &str) -> Result<Self, BadRedirect> {
        let bad = || BadRedirect(text.chars().take(200).collect());
        let url = Url::parse(text).map_err(|_| bad())?;
        let is_secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        // A parser would forgive these and make of them what nobody wrote.
        let is_clean =
            text.len() <= BYTES_MAX && text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'\\');
        if is_secure && is_plain && is_clean { Ok(Self { text: text.to_owned(), url }) } else { Err(bad()) }
    }

    /// As the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Whether this is what the client named: letter for letter, but for the port on loopback, which is whatever was free.
    pub(super) fn fits(&self, named: &Self) -> bool {
        if self.url.scheme() != "http" {
            return self.text == named.text;
        }
        let without_port = |url: &Url| {
            let mut url = url.clone();
            url.set_port(None).map(|()| url)
        };
        without_port(&self.url).is_ok_and(|ours| without_port(&named.url) == Ok(ours))
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_port_on_loopback_may_differ() {
        let named = |text| RedirectUri::new(text).unwrap();
        let fits = |asked: &str, registered| {
            RedirectUri::new(asked).is_ok_and(|asked| asked.fits(&named(registered)))
        };
        for (asked, registered) in [
            ("https://app.example.com/cb", "https://app.example.com/cb"),
            ("http://127.0.0.1:4711/cb", "http://127.0.0.1/cb"),
            ("http://[::1]:4711/cb?a=b", "http://[::1]:80/cb?a=b"),
            ("http://localhost:1", "http://localhost/"),
        ] {
            assert!(fits(asked, registered), "{asked}");
        }
        for (asked, registered) in [
            ("https://app.example.com/cb/", "https://app.example.com/cb"),
            ("https://app.example.com:444/cb", "https://app.example.com/cb"),
            ("https://app.example.com:443/cb", "https://app.example.com/cb"),
            ("https://app.example.com/cb?x", "https://app.example.com/cb"),
            ("https://app.example.com/a/../cb", "https://app.example.com/cb"),
            ("https://app.example.com.evil.test/cb", "https://app.example.com/cb"),
            ("http://127.0.0.1:1@evil.test/cb", "http://127.0.0.1/cb"),
            ("http://127.0.0.1.evil.test/cb", "http://127.0.0.1/cb"),
            ("http://127.0.0.1:1/other", "http://127.0.0.1/cb"),
            ("http://localhost:1/cb", "http://127.0.0.1/cb"),
            ("https://127.0.0.1/cb", "http://127.0.0.1/cb"),
        ] {
            assert!(!fits(asked, registered), "{asked}");
        }
    }

    #[test]
    fn only_https_and_this_machine_can_be_named() {
        for bad in [
            "http://app.example.com/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "app://callback",
            "https://u@app.example.com/",
            "https://app.example.com/#f",
            "https:\\\\app.example.com/cb",
            "https://app.example.com/\n",
            "/cb",
            "*",
        ] {
            assert!(RedirectUri::new(bad).is_err(), "{bad}");
        }
    }
}

//! The pages that a person sees: made here, without a script, in no frame, and never stored.

use std::sync::LazyLock;

use askama::Template;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_core::Digest;
use url::{Host, Url};

use super::answer::Refused;

const STYLE: &str = include_str!("../../templates/style.css");
/// The style is let in by its hash, so that no other is.
static STYLE_HASH: LazyLock<String> =
    LazyLock::new(|| STANDARD.encode(Digest::of(&[STYLE.as_bytes()]).as_bytes()));

/// Which client asks for what, and who can say yes.
#[derive(Template)]
#[template(path = "login.html")]
pub(super) struct Login<'a> {
    pub(super) client: &'a str,
    pub(super) client_id: &'a str,
    pub(super) resource: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) redirect: &'a str,
    pub(super) users: &'a [String],
    /// The user that the client guesses at.
    pub(super) hint: &'a str,
    pub(super) request: &'a str,
    pub(super) seal: &'a str,
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct Refusal<'a> {
    code: &'a str,
    why: &'a str,
}

/// The login page. `back` is where its answer leads: a browser asks whether a form may go there.
pub(super) fn login(login: &Login<'_>, back: &Url) -> Response {
    page(StatusCode::OK, login.render(), &format!("'self' {}", source(back)))
}

/// An error that must not be sent anywhere.
pub(super) fn refusal(status: StatusCode, refused: &Refused) -> Response {
    page(status, Refusal { code: refused.code, why: &refused.why }.render(), "'none'")
}

fn page(status: StatusCode, made: askama::Result<String>, forms: &str) -> Response {
    let Ok(text) = made else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action {forms}; frame-ancestors 'none'; base-uri 'none'",
        *STYLE_HASH
    );
    let Ok(policy) = HeaderValue::try_from(policy) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let fixed = |text| HeaderValue::from_static(text);
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_FRAME_OPTIONS, fixed("DENY")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        // With `no-referrer` a browser would not say where the form comes from either.
        (header::REFERRER_POLICY, fixed("same-origin")),
        (header::CACHE_CONTROL, fixed("no-store")),
    ];
    (status, headers, Html(text)).into_response()
}

/// The origin as a source of a policy, which cannot name an IPv6 address (CSP 3 §2.3.1).
fn source(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(_)) | None => format!("{}:", url.scheme()),
        Some(_) => url.origin().ascii_serialization(),
    }
}

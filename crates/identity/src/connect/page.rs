//! The pages: few words, no script, nothing from elsewhere, never kept or framed.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use ringfence_core::SystemName;

/// What a user is asked.
pub(super) struct Offer<'a> {
    pub(super) system: &'a SystemName,
    /// Where the account is.
    pub(super) host: &'a str,
    pub(super) scopes: &'a [String],
    /// Who has logged in.
    pub(super) subject: &'a str,
    /// Where the button leads.
    pub(super) url: &'a str,
}

pub(super) fn offer(offer: &Offer<'_>) -> Response {
    let scopes = offer.scopes.iter().map(|scope| format!("<li><code>{}</code></li>", escaped(scope)));
    let scopes = scopes.collect::<Vec<_>>().concat();
    let body = format!(
        "<h1>Connect an account?</h1>\
         <p>Agents that act for you, <b>{}</b>, want to use your account at <b>{}</b> (<code>{}</code>) in your name. \
         They never see its token, and you can end this at any time.</p><ul>{scopes}</ul>\
         <p><a href=\"{}\">Connect my account</a></p>\
         <p>If you did not ask an agent for this, close this page.</p>",
        escaped(offer.subject),
        escaped(offer.host),
        escaped(offer.system.as_str()),
        escaped(offer.url),
    );
    page(StatusCode::OK, &body)
}

pub(super) fn connected(system: &SystemName) -> Response {
    let body = format!(
        "<h1>Connected</h1><p>Your account for <code>{}</code> is connected. Go back to your agent and let it try again.</p>",
        escaped(system.as_str())
    );
    page(StatusCode::OK, &body)
}

pub(super) fn not_connected(system: &SystemName) -> Response {
    let body = format!(
        "<h1>Not connected</h1><p>The account for <code>{}</code> was not connected. Let your agent try again for a new link.</p>",
        escaped(system.as_str())
    );
    page(StatusCode::BAD_GATEWAY, &body)
}

pub(super) fn no_such_link() -> Response {
    say(
        StatusCode::NOT_FOUND,
        "This link has been used or has ended",
        "Let your agent try again for a new one.",
    )
}

pub(super) fn another_user() -> Response {
    say(
        StatusCode::FORBIDDEN,
        "This link is another user's",
        "Nothing was connected. Nobody but the user that it was made for can use it.",
    )
}

pub(super) fn not_logged_in() -> Response {
    say(StatusCode::FORBIDDEN, "You are not logged in", "Nothing was connected. Follow the link once more.")
}

pub(super) fn not_this_browser() -> Response {
    say(
        StatusCode::BAD_REQUEST,
        "This does not belong to this browser",
        "Nothing was connected. Follow the link once more, in one browser.",
    )
}

pub(super) fn wrong_host() -> Response {
    say(StatusCode::FORBIDDEN, "This host is not served here", "")
}

pub(super) fn busy() -> Response {
    say(
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many people are connecting accounts",
        "Try again in some minutes.",
    )
}

pub(super) fn failed() -> Response {
    say(StatusCode::INTERNAL_SERVER_ERROR, "This cannot be done now", "The operator's log says why.")
}

fn say(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, &format!("<h1>{}</h1><p>{}</p>", escaped(title), escaped(text)))
}

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Ringfence</title><body>{body}</body></html>"
    );
    let mut response = (status, Html(html)).into_response();
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The address of a page holds a code.
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

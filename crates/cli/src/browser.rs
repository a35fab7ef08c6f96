//! The user's browser: sent to an issuer, and waited for on loopback (RFC 8252 §7.3).

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use ringfence_identity::login::{Pending, Returned};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::http_server;

/// How long the user may take.
const ANSWER_MAX: Duration = Duration::from_mins(5);
/// How long the browser has to read the page.
const PAGE_MAX: Duration = Duration::from_secs(5);
const PATH: &str = "/callback";

/// Opens the user's browser, where there is one. It is no trouble where there is none: the address is printed too.
pub(crate) fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = tokio::process::Command::new(program);
    let opened = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if opened.is_err() {
        tracing::debug!(program, "no browser was opened");
    }
}

/// A place on loopback that a browser is sent back to.
pub(crate) struct Callback {
    listener: TcpListener,
    uri: String,
}

#[derive(Clone)]
struct Waiting {
    pending: Arc<Pending>,
    answer: mpsc::Sender<Returned>,
}

impl Callback {
    /// On a port that is free.
    pub(crate) async fn bind() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(
                format!("nothing can be listened on at 127.0.0.1: {error}"),
                "the browser comes back there",
            )
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let uri = format!("http://{}{PATH}", listener.local_addr().map_err(failed)?);
        Ok(Self { listener, uri })
    }

    /// Where the browser is to be sent back to.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for the one answer to this question. Others get a page that says so, and it is waited on.
    pub(crate) async fn answer(self, pending: Arc<Pending>) -> Result<Returned, Failure> {
        let (answer, mut answers) = mpsc::channel(1);
        let router = Router::new().route(PATH, get(back)).with_state(Waiting { pending, answer });
        let stop = CancellationToken::new();
        let serving = tokio::spawn(http_server::serve(self.listener, router, stop.clone()));
        let came = tokio::time::timeout(ANSWER_MAX, answers.recv()).await;
        stop.cancel();
        let _page_is_read = tokio::time::timeout(PAGE_MAX, serving).await;
        let late = format!("nobody logged in within {} minutes", ANSWER_MAX.as_secs() / 60);
        came.ok().flatten().ok_or_else(|| Failure::new(late, "begin again"))
    }
}

async fn back(State(waiting): State<Waiting>, Query(returned): Query<Returned>) -> Response {
    if !waiting.pending.is_answered_by(&returned) {
        return page(StatusCode::BAD_REQUEST, "This is no answer to the login that Ringfence waits for.\n");
    }
    match waiting.answer.try_send(returned) {
        Ok(()) => page(
            StatusCode::OK,
            "Ringfence has the answer. You can close this page and go back to the terminal.\n",
        ),
        Err(_) => page(StatusCode::BAD_REQUEST, "Ringfence has had its answer already.\n"),
    }
}

fn page(status: StatusCode, text: &'static str) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, text).into_response()
}

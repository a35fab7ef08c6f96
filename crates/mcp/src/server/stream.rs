//! The answer to a call as a stream of events: its progress, then its result, then the end (transports, *receiving messages*).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::time::Sleep;
use tokio_util::sync::DropGuard;

use super::calls::Calling;
use super::door::{Answer, Reply};
use crate::message::RpcError;
use crate::sse::event;
use crate::watch::{Progress, Said};

/// Between two messages of progress; what is said meanwhile is joined. The result does not wait for it.
const PAUSE: Duration = Duration::from_millis(50);
/// Tells a proxy to pass each event on at once (2026-07-28, transports, *receiving messages*).
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The events of one call. Dropping them is hanging up, and cancels it.
pub(super) struct Events {
    calling: Option<Calling>,
    progress: Arc<Progress>,
    token: Value,
    reply: Reply,
    pause: Option<Pin<Box<Sleep>>>,
    last: Option<String>,
    _hang_up: DropGuard,
}

impl Events {
    pub(super) fn new(
        calling: Calling,
        progress: Arc<Progress>,
        token: Value,
        reply: Reply,
        hang_up: DropGuard,
    ) -> Self {
        Self { calling: Some(calling), progress, token, reply, pause: None, last: None, _hang_up: hang_up }
    }

    fn said(&self, said: &Said) -> String {
        let params = json!({ "progressToken": self.token, "progress": said.progress, "message": said.text });
        event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }))
    }

    fn ended(&self, ended: Answer) -> String {
        match ended {
            Answer::Result(result) => event(&self.reply.message(result)),
            Answer::Error(error) => event(&error.to_json(&self.reply.id)),
            // The status has been sent. No service challenges a call that it has begun.
            Answer::Challenge(refused) => event(&RpcError::internal(refused.message).to_json(&self.reply.id)),
        }
    }

    fn is_pausing(&mut self, reading: &mut Context<'_>) -> bool {
        self.pause.as_mut().is_some_and(|pause| pause.as_mut().poll(reading).is_pending())
    }
}

impl Stream for Events {
    type Item = Result<String, Infallible>;

    fn poll_next(self: Pin<&mut Self>, reading: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(calling) = &mut this.calling
            && let Poll::Ready(ended) = calling.as_mut().poll(reading)
        {
            this.calling = None;
            this.progress.close();
            this.last = Some(this.ended(ended));
        }
        if this.last.is_none() && this.calling.is_some() {
            if this.is_pausing(reading) || this.progress.poll_said(reading).is_pending() {
                return Poll::Pending;
            }
            this.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        }
        let next = match this.progress.take() {
            Some(said) => Some(this.said(&said)),
            None => this.last.take(),
        };
        Poll::Ready(next.map(Ok))
    }
}

pub(super) fn respond(events: Events) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store"), (BUFFERING, "no")];
    (headers, Body::from_stream(events)).into_response()
}

//! Serves a router on a listener: bounded connections, bounded time for a request's head, a stop that lets answers finish.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_core::Stream;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that are open at the same time at one door; more wait to be accepted.
const CONNECTIONS_MAX: usize = 2048;
/// File descriptors that are left for the journal, the systems and sandboxes, whoever knocks.
const DESCRIPTORS_KEPT: u64 = 256;
/// Doors that share the rest: the agents', the people's, the development issuer's.
const DOORS: u64 = 3;
/// How long the head of a request may take to arrive: what comes byte by byte does not hold a connection for long.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// The longest head, with what a client sends on before it has its answer.
const BUFFER_MAX: usize = 64 << 10;
/// After this time a connection takes no further request.
const CONNECTION_MAX: Duration = Duration::from_mins(10);
/// And this is how long its last answer may take from then on: nobody holds a place by not reading.
const LAST_ANSWER_MAX: Duration = Duration::from_mins(15);

/// How much is read on of a request that was answered already, in bytes, and for how long.
const REST_MAX: usize = 128 << 10;
const REST_WAIT: Duration = Duration::from_secs(1);

/// Serves until `stop`, then until every answer under way is sent.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let router = router.layer(middleware::from_fn(read_on));
    let places = Arc::new(Semaphore::new(connections_max()));
    let connections = TaskTracker::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: waiting helps, spinning does not.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, router, stop).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let _slower_without = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        _ended = connection.as_mut() => {}
        () = until_last_request(&stop) => {
            connection.as_mut().graceful_shutdown();
            let _ended_in_time = tokio::time::timeout(LAST_ANSWER_MAX, connection).await;
        }
    }
}

async fn until_last_request(stop: &CancellationToken) {
    let _stopped_before = tokio::time::timeout(CONNECTION_MAX, stop.cancelled()).await;
}

/// Reads on what an answer did not wait for: a request that was refused by its head alone. A connection that is closed on what
/// its client still sends is reset, and the client may lose the answer (RFC 9112 §9.6).
async fn read_on(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let rest = Rest(Arc::new(Mutex::new(body.into_data_stream())));
    let response = next.run(Request::from_parts(parts, Body::from_stream(rest.clone()))).await;
    let _too_long_or_slow =
        tokio::time::timeout(REST_WAIT, to_bytes(Body::from_stream(rest), REST_MAX)).await;
    response
}

/// What has not been read of a body, by whoever reads on.
#[derive(Clone)]
struct Rest(Arc<Mutex<BodyDataStream>>);

impl Stream for Rest {
    type Item = <BodyDataStream as Stream>::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_next(context)
    }
}

/// As many as the limit on file descriptors bears, which is raised as far as this process may.
fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors = if raised.is_ok() { limit.maximum } else { limit.current };
    let Some(descriptors) = descriptors else { return CONNECTIONS_MAX };
    let share = descriptors.saturating_sub(DESCRIPTORS_KEPT) / DOORS;
    usize::try_from(share).unwrap_or(CONNECTIONS_MAX).clamp(16, CONNECTIONS_MAX)
}

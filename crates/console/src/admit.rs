//! Who is let in: requests to a known host, not from a browser's page, with a token for this door.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ringfence_gateway::{NotIdentified, Request as Asking};
use url::Url;

use crate::Door;
use crate::answer::refuse;

/// A page of another site could make a browser on the operator's machine send requests here (DNS rebinding).
pub(crate) async fn known_host(State(door): State<Door>, request: Request, next: Next) -> Response {
    if is_for_us(request.headers(), &door.settings.hosts) {
        return next.run(request).await;
    }
    refuse(StatusCode::FORBIDDEN, "unknown_host", "this `Host` or `Origin` is not served here")
}

/// Lets in someone in the operators' group.
pub(crate) async fn operator(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let operators = door.settings.operators.as_ref();
    let url = url(&door, &request);
    match door.gateway.person(asking(&request, url.as_ref())).await {
        Ok(person) if !operators.is_some_and(|group| person.principal.groups().contains(group)) => {
            door.gateway.rejected("not_an_operator").await;
            refuse(StatusCode::FORBIDDEN, "not_an_operator", "this is for operators")
        }
        // An agent is an OAuth client too: what an operator logs in to with it is not the operator who acts.
        Ok(person) if !door.settings.operator_clients.contains(&person.agent) => {
            door.gateway.rejected("not_an_operators_client").await;
            let why = "operators come by the clients that `[identity] operator-clients` names";
            refuse(StatusCode::FORBIDDEN, "not_an_operators_client", why)
        }
        Ok(person) => {
            request.extensions_mut().insert(person.principal);
            next.run(request).await
        }
        Err(refused) => unidentified(refused),
    }
}

/// Lets in an application that the project names.
pub(crate) async fn application(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let url = url(&door, &request);
    match door.gateway.application(asking(&request, url.as_ref())).await {
        Ok(application) if door.gateway.knows(&application) => {
            request.extensions_mut().insert(application);
            next.run(request).await
        }
        Ok(_) => {
            door.gateway.rejected("unknown_application").await;
            let why = "this application is not known here; name its client in `[applications]`";
            refuse(StatusCode::FORBIDDEN, "unknown_application", why)
        }
        Err(refused) => unidentified(refused),
    }
}

fn unidentified(refused: NotIdentified) -> Response {
    if let Some(seconds) = refused.retry_after_seconds() {
        let unavailable = refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &refused.to_string());
        return ([(header::RETRY_AFTER, seconds.to_string())], unavailable).into_response();
    }
    if refused.is_forbidden() {
        return refuse(StatusCode::FORBIDDEN, "forbidden", &refused.to_string());
    }
    let refusal = refuse(StatusCode::UNAUTHORIZED, "unauthorized", &refused.to_string());
    let scheme = if refused.wants_proof() { "DPoP algs=\"ES256 EdDSA\"" } else { "Bearer" };
    ([(header::WWW_AUTHENTICATE, scheme)], refusal).into_response()
}

/// The URL of a request as its client spelled it.
fn url(door: &Door, request: &Request) -> Option<Url> {
    Url::parse(&format!("{}{}", door.settings.resource, request.uri().path())).ok()
}

fn asking<'a>(request: &'a Request, url: Option<&'a Url>) -> Asking<'a> {
    Asking { headers: request.headers(), method: request.method().as_str(), url }
}

fn is_for_us(headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut given = headers.get_all(header::HOST).iter();
    // Two of them are none: two readers could each take another one.
    let (Some(only), None) = (given.next(), given.next()) else { return false };
    let is_known =
        only.to_str().ok().is_some_and(|host| hosts.iter().any(|known| known.eq_ignore_ascii_case(host)));
    is_known && !headers.contains_key(header::ORIGIN)
}

//! `[server]`: the two doors, where they listen and how they are called from outside.

use std::net::SocketAddr;

use ringfence_actions::file::Table;
use ringfence_core::{Place, Problem};
use toml::Spanned;
use url::Url;

use super::{PROJECT_FILE, section};

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    pub(crate) control: SocketAddr,
    /// The agents' door as clients reach it, where that is not its address.
    pub(crate) public_url: Option<String>,
    /// The people's door as browsers reach it, where that is not its address.
    pub(crate) control_url: Option<String>,
    pub(crate) allowed_origins: Vec<String>,
}

pub(super) fn server(root: Option<&mut Table<'_>>, problems: &mut Vec<Problem>) -> Server {
    let mut table = section(root, "server", problems);
    let listen = address(table.as_mut(), "listen", ([127, 0, 0, 1], 8787).into(), problems);
    let control = address(table.as_mut(), "control", ([127, 0, 0, 1], 8788).into(), problems);
    let public_url = base_url(table.as_mut(), "public-url", problems);
    let control_url = base_url(table.as_mut(), "control-url", problems);
    let origins = table.as_mut().and_then(|table| table.take::<Vec<String>>("allowed-origins", problems));
    if let Some(table) = table {
        if listen == control && listen.port() != 0 {
            let what = "`listen` and `control` are the same address";
            problems.push(Problem::error(
                table.place(),
                what,
                "give each door its own: agents must not reach the people's door",
            ));
        }
        table.finish(problems);
    }
    for (door, url, key) in [(listen, &public_url, "public-url"), (control, &control_url, "control-url")] {
        if !door.ip().is_loopback() && url.is_none() {
            let what = format!("{door} is reached from other machines, and this door speaks plain HTTP");
            let instead =
                format!("put TLS in front of it and write `{key} = \"https://…\"`, or listen on loopback");
            problems.push(Problem::error(Place::start(PROJECT_FILE), what, instead));
        }
    }
    let allowed_origins = origins.map(Spanned::into_inner).unwrap_or_default();
    Server { listen, control, public_url, control_url, allowed_origins }
}

pub(super) fn address(
    table: Option<&mut Table<'_>>,
    key: &'static str,
    otherwise: SocketAddr,
    problems: &mut Vec<Problem>,
) -> SocketAddr {
    let Some(table) = table else { return otherwise };
    let Some(text) = table.take::<String>(key, problems) else { return otherwise };
    text.get_ref().parse().unwrap_or_else(|_| {
        let what = format!("`{}` is not an address", text.get_ref());
        problems.push(Problem::error(
            table.place_of(&text),
            what,
            format!("write an IP address and a port, such as `{otherwise}`"),
        ));
        otherwise
    })
}

/// A base URL without a slash at its end.
fn base_url(table: Option<&mut Table<'_>>, key: &'static str, problems: &mut Vec<Problem>) -> Option<String> {
    let table = table?;
    let text = table.take::<String>(key, problems)?;
    let parsed =
        Url::parse(text.get_ref()).ok().filter(|url| url.query().is_none() && url.fragment().is_none());
    let secure = |url: &Url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url));
    if parsed.as_ref().is_some_and(secure) {
        return Some(text.get_ref().trim_end_matches('/').to_owned());
    }
    let what = format!("`{}` is not a base URL", text.get_ref());
    let instead = "write `https://HOST`, without query or fragment; `http` is for loopback alone";
    problems.push(Problem::error(table.place_of(&text), what, instead));
    None
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

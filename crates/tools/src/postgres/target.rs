//! Which server, and how it is spoken to: encrypted with a checked certificate, unless it is on this machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ringfence_core::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use super::wire::{Allowance, Wire};

type RustlsOf = <MakeRustlsConnect as MakeTlsConnect<Wire>>::TlsConnect;

/// How long a connection may take to come up.
const CONNECT_SECONDS: u64 = 5;
/// What every session begins with, and what `DISCARD ALL` brings it back to.
const SESSION: &str = "-c search_path=pg_catalog,pg_temp -c default_transaction_read_only=on \
    -c standard_conforming_strings=on -c TimeZone=UTC -c DateStyle=ISO -c client_min_messages=error";

/// How much the server may say while a connection comes up, and while nothing but our own is asked on it.
const OWN_BYTES: u64 = 4 << 20;

/// A server and a database on it.
pub(super) struct Target {
    config: Config,
    host: Host,
    port: u16,
    tls: MakeRustlsConnect,
}

/// A connection, and the task that reads from it; both end when it is dropped.
pub(super) struct Link {
    pub(super) client: Client,
    /// How much more may come.
    pub(super) allowance: Allowance,
    _reading: AbortOnDropHandle<()>,
}

/// A connection did not come up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconnected {
    #[error("{0}")]
    Unreachable(#[source] std::io::Error),
    #[error("{}", reason(.0))]
    Refused(#[source] Error),
    #[error("it did not answer within {CONNECT_SECONDS} s")]
    Silent,
}

/// The server's own words, for whoever runs `check`.
pub(super) fn reason(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let hint = said.hint().map(|hint| format!(" ({hint})"));
        return format!("{}{}", said.message(), hint.unwrap_or_default());
    }
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

impl Target {
    /// What is wrong with the URL or the authority, and what to write instead; neither repeats anything of the URL.
    pub(super) fn new(url: &Secret, ca: Option<&str>) -> Result<Self, (String, String)> {
        // Certificates are always checked, so these two ask for nothing more than `require`; the driver knows only that.
        let url = url.expose().replace("sslmode=verify-full", "sslmode=require");
        let url = url.replace("sslmode=verify-ca", "sslmode=require");
        let unreadable = || {
            let instead = "write `postgres://USER:PASSWORD@HOST/DATABASE`; name an authority by `ca`";
            ("the URL of the database cannot be read".to_owned(), instead.to_owned())
        };
        let mut config: Config = url.trim().parse().map_err(|_| unreadable())?;
        let (Some(host), 1) = (config.get_hosts().first().cloned(), config.get_hosts().len()) else {
            return Err(unreadable());
        };
        if config.get_options().is_some() || !config.get_hostaddrs().is_empty() {
            return Err(unreadable());
        }
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let mode = mode(&config, &host)?;
        config.ssl_mode(mode).options(SESSION).application_name("ringfence");
        let roots = if mode == SslMode::Disable { RootCertStore::empty() } else { roots(ca)? };
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| (error.to_string(), "report this".to_owned()))?;
        let tls = MakeRustlsConnect::new(builder.with_root_certificates(roots).with_no_client_auth());
        Ok(Self { config, host, port, tls })
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Link, Unconnected> {
        let limit = Duration::from_secs(CONNECT_SECONDS);
        tokio::time::timeout(limit, self.connected()).await.unwrap_or(Err(Unconnected::Silent))
    }

    async fn connected(&self) -> Result<Link, Unconnected> {
        let allowance = Allowance::default();
        allowance.set(OWN_BYTES);
        let (wire, tls) = self.dial(allowance.clone()).await.map_err(Unconnected::Unreachable)?;
        let (client, connection) = self.config.connect_raw(wire, tls).await.map_err(Unconnected::Refused)?;
        // What it ends with, the next request on it is told too.
        let reading = tokio::spawn(async move { drop(connection.await) });
        Ok(Link { client, allowance, _reading: AbortOnDropHandle::new(reading) })
    }

    async fn dial(&self, allowance: Allowance) -> std::io::Result<(Wire, RustlsOf)> {
        let wire = Wire::dial(&self.host, self.port, allowance).await?;
        let name = match &self.host {
            Host::Tcp(name) => name.trim_matches(['[', ']']),
            Host::Unix(_) => "localhost",
        };
        let tls = MakeTlsConnect::<Wire>::make_tls_connect(&mut self.tls.clone(), name);
        Ok((wire, tls.map_err(std::io::Error::other)?))
    }

    /// Asks the server to stop what a connection does; best effort, in a task of its own.
    pub(super) fn cancel(self: &Arc<Self>, token: CancelToken) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let target = self.clone();
        let asking = async move {
            let allowance = Allowance::default();
            allowance.set(OWN_BYTES);
            let Ok((wire, tls)) = target.dial(allowance).await else { return };
            let _best_effort = token.cancel_query_raw(wire, tls).await;
        };
        let limit = Duration::from_secs(CONNECT_SECONDS);
        drop(runtime.spawn(tokio::time::timeout(limit, asking)));
    }
}

impl Link {
    /// What may come from now on: the answer of a call, or what only we ask.
    pub(super) fn allow(&self, answer_bytes: u64) {
        self.allowance.set(OWN_BYTES + 2 * answer_bytes);
    }
}

/// Plain text is for this machine alone.
fn mode(config: &Config, host: &Host) -> Result<SslMode, (String, String)> {
    let is_local = match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    };
    match (config.get_ssl_mode(), is_local) {
        (SslMode::Require, _) | (SslMode::Prefer, false) => Ok(SslMode::Require),
        (_, true) => Ok(SslMode::Disable),
        (_, false) => Err((
            "the database is elsewhere, and its URL turns encryption off".to_owned(),
            "write `sslmode=verify-full`; plain text is for loopback and Unix sockets".to_owned(),
        )),
    }
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, (String, String)> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = ca else {
        let (added, _ignored) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let nobody = || {
            let what = "this machine trusts no certificate authority";
            (
                what.to_owned(),
                "install the system's CA certificates, or name the database's by `ca`".to_owned(),
            )
        };
        return if added == 0 { Err(nobody()) } else { Ok(roots) };
    };
    let instead = || "name a PEM file with the authority's certificate".to_owned();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
        added.ok_or_else(|| ("`ca` holds what is no certificate".to_owned(), instead()))?;
    }
    if roots.is_empty() { Err(("`ca` holds no certificate".to_owned(), instead())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(url: &str) -> Result<SslMode, String> {
        let target = Target::new(&Secret::new(url.to_owned()), None);
        target.map(|target| target.config.get_ssl_mode()).map_err(|(what, _)| what)
    }

    #[test]
    fn plain_text_is_for_this_machine_alone() {
        for here in [
            "postgres://u:p@localhost/d",
            "postgres://u:p@127.0.0.1:5433/d?sslmode=disable",
            "postgres://u:p@%2Frun%2Fpostgresql/d",
            "postgres://u:p@[::1]/d",
        ] {
            assert_eq!(mode_of(here), Ok(SslMode::Disable), "{here}");
        }
        for elsewhere in [
            "postgres://u:p@db.example.com/d",
            "postgres://u:p@db.example.com/d?sslmode=verify-full",
            "postgres://u:p@localhost/d?sslmode=require",
        ] {
            assert_eq!(mode_of(elsewhere), Ok(SslMode::Require), "{elsewhere}");
        }
        let refused = mode_of("postgres://u:p@db.example.com/d?sslmode=disable").unwrap_err();
        assert!(refused.contains("turns encryption off"), "{refused}");
        for bad in
            ["", "nonsense", "postgres://u:p@h/d?options=-c%20x%3Dy", "postgres:///d", "postgres://h/d?x=y"]
        {
            assert_eq!(mode_of(bad), Err("the URL of the database cannot be read".to_owned()), "{bad}");
        }
    }
}

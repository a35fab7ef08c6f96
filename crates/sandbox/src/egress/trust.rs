//! Whom we trust outside.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::host::Host;

/// The name of HTTP/1.1 in TLS (RFC 7301).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// The authorities that vouch for servers. Cheap to clone; make it once.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

/// There is nobody to trust.
#[derive(Debug, thiserror::Error)]
#[error("no certificate authority was found; install the system's CA certificates")]
pub struct NoAuthority;

impl Trust {
    /// The authorities that this machine trusts.
    pub fn native() -> Result<Self, NoAuthority> {
        let mut roots = RootCertStore::empty();
        let (added, _ignored) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 { Err(NoAuthority) } else { Self::of(roots) }
    }

    /// The authorities of a PEM text, and no others.
    pub fn of_pem(pem: &str) -> Result<Self, NoAuthority> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let mut roots = RootCertStore::empty();
        for certificate in certificates.map_err(|_| NoAuthority)? {
            roots.add(certificate).map_err(|_| NoAuthority)?;
        }
        if roots.is_empty() { Err(NoAuthority) } else { Self::of(roots) }
    }

    fn of(roots: RootCertStore) -> Result<Self, NoAuthority> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut config =
            builder.map_err(|_| NoAuthority)?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        // A session is no secret's way from one sandbox to another.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The host as a certificate must name it.
pub(crate) fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host.address() {
        Some(address) => Some(ServerName::IpAddress(address.into())),
        None => ServerName::try_from(host.to_string()).ok(),
    }
}

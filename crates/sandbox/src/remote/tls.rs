//! Who is who: TLS 1.3 alone, a certificate on each side, both signed by the one authority that the operator names. Nothing is
//! resumed, so that each connection proves both anew.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::PROTOCOL;

/// The texts of the three files that make one side of a connection, in PEM.
#[derive(Clone, Copy)]
pub struct TlsTexts<'a> {
    /// The authority that has signed both sides' certificates. A list of its own: none of the system's is believed.
    pub ca: &'a str,
    /// This side's certificate, and those between it and the authority.
    pub certificate: &'a str,
    /// Its private key.
    pub key: &'a str,
}

/// Which of the files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsPart {
    /// The authority.
    Ca,
    /// This side's certificate.
    Certificate,
    /// Its key.
    Key,
    /// The name that a certificate is checked against.
    Name,
}

/// A file, or a name, is not what TLS needs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what}; {instead}")]
pub struct TlsFault {
    /// Which of them.
    pub part: TlsPart,
    /// What is wrong.
    pub what: String,
    /// What helps.
    pub instead: &'static str,
}

impl TlsFault {
    fn new(part: TlsPart, what: impl Into<String>, instead: &'static str) -> Self {
        Self { part, what: what.into(), instead }
    }
}

/// A gateway's side.
pub(super) fn client(texts: TlsTexts<'_>) -> Result<Arc<ClientConfig>, TlsFault> {
    let parts = Parts::read(texts)?;
    let config = ClientConfig::builder_with_provider(parts.provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsFault::new(TlsPart::Key, error.to_string(), "see the log"))?
        .with_root_certificates(parts.roots)
        .with_client_auth_cert(parts.chain, parts.key);
    let mut config = config.map_err(|error| no_pair(&error))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A host's side.
pub(super) fn server(texts: TlsTexts<'_>) -> Result<Arc<ServerConfig>, TlsFault> {
    let parts = Parts::read(texts)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(parts.roots.into(), parts.provider.clone())
        .build()
        .map_err(|error| TlsFault::new(TlsPart::Ca, error.to_string(), "name the authority's certificate"))?;
    let config = ServerConfig::builder_with_provider(parts.provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsFault::new(TlsPart::Key, error.to_string(), "see the log"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(parts.chain, parts.key);
    let mut config = config.map_err(|error| no_pair(&error))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A name that a certificate can be for.
pub(super) fn name(text: &str) -> Result<ServerName<'static>, TlsFault> {
    ServerName::try_from(text.to_owned()).map_err(|_| {
        let what = format!("`{}` is no name that a certificate can be for", text.escape_debug());
        TlsFault::new(TlsPart::Name, what, "write a DNS name or an IP address, as the certificate has it")
    })
}

/// Whether a certificate is for one of these names.
pub(super) fn is_for(certificate: &CertificateDer<'_>, names: &[ServerName<'static>]) -> bool {
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| {
        names.iter().any(|name| rustls::client::verify_server_name(&parsed, name).is_ok())
    })
}

struct Parts {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Parts {
    fn read(texts: TlsTexts<'_>) -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(texts.ca, TlsPart::Ca)? {
            roots.add(certificate).map_err(|error| {
                let instead = "name the certificate of the authority that has signed both sides'";
                TlsFault::new(TlsPart::Ca, error.to_string(), instead)
            })?;
        }
        let chain = certificates(texts.certificate, TlsPart::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(texts.key.as_bytes()).map_err(|_| {
            let what = "it holds no private key in PEM";
            TlsFault::new(TlsPart::Key, what, "write an unencrypted key in PKCS #8 there")
        })?;
        Ok(Self { provider: Arc::new(aws_lc_rs::default_provider()), roots, chain, key })
    }
}

fn certificates(text: &str, part: TlsPart) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let read = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    read.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(|| {
        TlsFault::new(part, "it holds no certificate in PEM", "begin it with `-----BEGIN CERTIFICATE-----`")
    })
}

fn no_pair(error: &rustls::Error) -> TlsFault {
    let what = match error {
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
        other => other.to_string(),
    };
    TlsFault::new(TlsPart::Key, what, "name the key that belongs to the certificate")
}

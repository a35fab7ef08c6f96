//! The certificate authority of one sandbox. Its key is in our memory alone, and gone when the sandbox is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::host::Host;
use super::trust::{HTTP_1_1, provider};

/// The most hosts whose certificates are kept.
const HOSTS_MAX: usize = 256;

/// Signs certificates for the hosts whose connections are inspected.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// One key for all hosts: making it is the slow part, and all of them are us.
    host_key: KeyPair,
    hosts: Mutex<HashMap<Host, Arc<ServerConfig>>>,
}

/// No authority, or no certificate by it, could be made.
#[derive(Debug, thiserror::Error)]
#[error("no certificate could be made for inspecting connections")]
pub(crate) enum NoCertificate {
    Made(#[from] rcgen::Error),
    Used(#[from] rustls::Error),
}

impl Authority {
    pub(crate) fn generate() -> Result<Self, NoCertificate> {
        let mut params = named("Authority of one sandbox");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let (issuer, host_key) = (Issuer::new(params, key), KeyPair::generate()?);
        Ok(Self { pem, issuer, host_key, hosts: Mutex::default() })
    }

    /// The certificate, without the key.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// How we speak TLS in a host's place: HTTP/1.1 alone, since that is what can be judged.
    pub(crate) fn server(&self, host: &Host) -> Result<Arc<ServerConfig>, NoCertificate> {
        let known = |hosts: &HashMap<Host, Arc<ServerConfig>>| hosts.get(host).cloned();
        if let Some(config) = known(&self.hosts.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(config);
        }
        let config = Arc::new(self.make(host)?);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() < HOSTS_MAX {
            hosts.insert(host.clone(), Arc::clone(&config));
        }
        Ok(config)
    }

    fn make(&self, host: &Host) -> Result<ServerConfig, NoCertificate> {
        let mut params = named("A host behind the egress proxy");
        params.subject_alt_names = vec![match host.address() {
            Some(address) => SanType::IpAddress(address),
            None => SanType::DnsName(host.to_string().try_into()?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.host_key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.host_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(config)
    }
}

/// The dates stay `rcgen`'s, which are wide: what ends the certificate is the end of its key.
fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

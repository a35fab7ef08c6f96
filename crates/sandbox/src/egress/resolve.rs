//! From a name to the one address that is dialled: asked once for each connection, and only after the rules said yes.

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::address::may_be_dialled;
use super::decision::Reason;
use super::host::Host;

/// Finds a name's addresses.
#[async_trait::async_trait]
pub trait Resolver: Send + Sync {
    /// Where `host` answers at `port`. Never asked about an address, nor about a host that no rule allows.
    async fn resolve(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's own resolver (`getaddrinfo(3)`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait::async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        let Some(name) = host.name() else { return Ok(Vec::new()) };
        // The root's dot keeps search domains of `resolv.conf` away.
        Ok(tokio::net::lookup_host((format!("{name}."), port)).await?.collect())
    }
}

/// The address to dial: the first that may be dialled at all.
pub(crate) async fn checked_address(
    resolver: &dyn Resolver,
    host: &Host,
    port: u16,
    private: &[IpNet],
) -> Result<SocketAddr, Reason> {
    let found = match host.address() {
        Some(address) => vec![SocketAddr::new(address, port)],
        None => resolver.resolve(host, port).await.map_err(|_| Reason::Unresolved)?,
    };
    if found.is_empty() {
        return Err(Reason::Unresolved);
    }
    found.into_iter().find(|found| may_be_dialled(found.ip(), private)).ok_or(Reason::NoPublicAddress)
}

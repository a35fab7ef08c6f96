//! Which addresses are of the public internet. A table, and no more: it asks nothing and dials nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::IpNet;

/// What is not the public internet (IANA's registries of special-purpose addresses, RFC 6890), and metadata services that
/// live at public addresses.
const NOT_PUBLIC: &[&str] = &[
    "0.0.0.0/8",        // this network
    "10.0.0.0/8",       // private
    "100.64.0.0/10",    // carrier-grade NAT; 100.100.100.200 is metadata
    "127.0.0.0/8",      // loopback
    "168.63.129.16/32", // metadata
    "169.254.0.0/16",   // link-local; 169.254.169.254 is metadata
    "172.16.0.0/12",    // private
    "192.0.0.0/24",     // protocol assignments; 192.0.0.192 is metadata
    "192.0.2.0/24",     // documentation
    "192.31.196.0/24",  // AS112
    "192.52.193.0/24",  // AMT
    "192.88.99.0/24",   // 6to4 relays
    "192.168.0.0/16",   // private
    "192.175.48.0/24",  // AS112
    "198.18.0.0/15",    // benchmarks
    "198.51.100.0/24",  // documentation
    "203.0.113.0/24",   // documentation
    "224.0.0.0/4",      // multicast
    "240.0.0.0/4",      // reserved, and broadcast
];

/// The one block of IPv6 that is public, and what is not within it.
const PUBLIC_V6: &str = "2000::/3";
const NOT_PUBLIC_V6: &[&str] = &[
    "2001::/23",     // protocol assignments, Teredo among them
    "2001:db8::/32", // documentation
    "2002::/16",     // 6to4
    "3fff::/20",     // documentation
    "3ffe::/16",     // 6bone
    "5f00::/16",     // segment routing
];

static BLOCKS: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| NOT_PUBLIC.iter().chain(NOT_PUBLIC_V6).filter_map(|block| block.parse().ok()).collect());

/// Whether it is an address of the public internet. IPv4 within IPv6 (mapped, NAT64, 6to4, Teredo) is not.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    let in_public_block = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => is_global_unicast(address),
    };
    in_public_block && !BLOCKS.iter().any(|block| block.contains(&address))
}

fn is_global_unicast(address: Ipv6Addr) -> bool {
    let block: Result<IpNet, _> = PUBLIC_V6.parse();
    block.is_ok_and(|block| block.contains(&IpAddr::V6(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_written_well() {
        assert_eq!(BLOCKS.len(), NOT_PUBLIC.len() + NOT_PUBLIC_V6.len());
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for hidden in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.1.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(hidden.parse().unwrap()), "{hidden}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}

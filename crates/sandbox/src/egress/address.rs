//! Which addresses may be dialled: public ones, and those that the operator names.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
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

/// Whether this address may be dialled. `private` is what the operator named though it is not public.
pub(crate) fn may_be_dialled(address: IpAddr, private: &[IpNet]) -> bool {
    if private.iter().any(|block| block.contains(&address)) {
        return true;
    }
    is_public(address) && !is_own(address)
}

/// Whether it is an address of the public internet. IPv4 within IPv6 (mapped, NAT64, 6to4, Teredo) is not.
pub(crate) fn is_public(address: IpAddr) -> bool {
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

/// Whether it is this machine's own: only such an address can be bound. Whatever cannot be told counts as own.
fn is_own(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        // `EAFNOSUPPORT`: a machine without IPv6 has no such address.
        Err(error) => {
            error.kind() != std::io::ErrorKind::AddrNotAvailable && error.raw_os_error() != Some(EAFNOSUPPORT)
        }
    }
}

const EAFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_written_well() {
        assert_eq!(BLOCKS.len(), NOT_PUBLIC.len() + NOT_PUBLIC_V6.len());
    }

    #[test]
    fn only_public_addresses_are_dialled() {
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
            assert!(!may_be_dialled(hidden.parse().unwrap(), &[]), "{hidden}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700:4700::1111"] {
            assert!(may_be_dialled(public.parse().unwrap(), &[]), "{public}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_its_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn the_operator_may_name_what_is_not_public() {
        let named = ["127.0.0.0/8".parse().unwrap()];
        assert!(may_be_dialled("127.0.0.1".parse().unwrap(), &named));
        assert!(!may_be_dialled("10.0.0.1".parse().unwrap(), &named));
    }
}

//! Which addresses may be dialled: public ones, and those that the operator names.

use std::net::{IpAddr, UdpSocket};

use ipnet::IpNet;
use ringfence_addresses::is_public;

/// Whether this address may be dialled. `private` is what the operator named though it is not public.
pub(crate) fn may_be_dialled(address: IpAddr, private: &[IpNet]) -> bool {
    if private.iter().any(|block| block.contains(&address)) {
        return true;
    }
    is_public(address) && !is_own(address)
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
    fn an_address_that_is_not_public_is_not_dialled() {
        for hidden in ["10.1.2.3", "127.0.0.1", "169.254.169.254", "::1", "::ffff:8.8.8.8", "fe80::1"] {
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

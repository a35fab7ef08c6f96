//! Addresses that stand for names inside the sandbox. They lead to our listeners and mean nothing elsewhere.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use super::host::Host;

/// The most names of one sandbox; no address is given twice.
const NAMES_MAX: usize = 4096;

/// The names that were asked for, in order: the first stands at 127.1.0.1.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    places: HashMap<Host, usize>,
    hosts: Vec<Host>,
}

impl Names {
    /// The address that stands for `host`; `None` when there are no more.
    pub(crate) fn address(&self, host: &Host) -> Option<Ipv4Addr> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match table.places.get(host) {
            Some(place) => *place,
            None if table.hosts.len() >= NAMES_MAX => return None,
            None => {
                let place = table.hosts.len();
                table.hosts.push(host.clone());
                table.places.insert(host.clone(), place);
                place
            }
        };
        let [high, low] = u16::try_from(place + 1).ok()?.to_be_bytes();
        Some(Ipv4Addr::new(127, 1, high, low))
    }

    /// The name that an address stands for.
    pub(crate) fn host(&self, address: Ipv4Addr) -> Option<Host> {
        let [127, 1, high, low] = address.octets() else { return None };
        let place = usize::from(u16::from_be_bytes([high, low])).checked_sub(1)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hosts.get(place).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_address_and_an_address_one_name() {
        let names = Names::default();
        let host = |number: usize| Host::parse(&format!("n{number}.test")).unwrap();
        let addresses: Vec<_> = (0..NAMES_MAX).map(|number| names.address(&host(number)).unwrap()).collect();
        for (number, address) in addresses.iter().enumerate() {
            assert_eq!(names.host(*address), Some(host(number)));
            assert_eq!(names.address(&host(number)), Some(*address));
        }
        assert_eq!(names.address(&host(NAMES_MAX)), None);
        assert_eq!(names.host(Ipv4Addr::new(127, 1, 0, 0)), None);
        assert_eq!(names.host(Ipv4Addr::new(127, 1, 255, 255)), None);
        assert_eq!(names.host(Ipv4Addr::LOCALHOST), None);
    }
}

//! Chooses the two addresses of an instance's network from what the host does not use.

use anyhow::{Context as _, Result};
use std::net::Ipv4Addr;

/// Length of the prefix of an instance's subnet: two hosts in it, besides its own and its broadcast address.
const PREFIX_LENGTH: u8 = 30;

/// Where subnets are taken from: a piece of the private addresses that is rarely used, and, where a route covers that, the
/// addresses set aside for measuring networks (RFC 2544).
const POOLS: [Prefix; 2] =
    [Prefix::new(Ipv4Addr::new(10, 213, 0, 0), 16), Prefix::new(Ipv4Addr::new(198, 18, 0, 0), 15)];

/// Routes this wide lead everywhere (a default route, or the two halves of one): they occupy nothing.
const WIDE: u8 = 1;

/// Addresses whose first `length` bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bits: u32,
    length: u8,
}

impl Prefix {
    /// The addresses that share the first `length` bits (at most 32) with this one.
    pub const fn new(address: Ipv4Addr, length: u8) -> Self {
        Self { bits: address.to_bits(), length }
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let common = u32::from(self.length.min(other.length));
        (self.bits ^ other.bits).leading_zeros() >= common
    }
}

/// Whether some of the prefixes, those that lead everywhere aside, have an address in common with this one.
pub fn overlaps(prefixes: &[Prefix], with: Prefix) -> bool {
    prefixes.iter().any(|prefix| prefix.length > WIDE && prefix.overlaps(with))
}

/// Addresses of the two ends of an instance's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Addresses {
    /// Of the host: the sandbox's default gateway.
    #[serde(rename = "gateway")]
    pub host: Ipv4Addr,
    /// Of the sandbox.
    #[serde(rename = "address")]
    pub sandbox: Ipv4Addr,
    /// Length of the prefix that both share.
    pub prefix_length: u8,
}

impl Addresses {
    /// The prefix length as a mask.
    pub fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix_length.min(32))).unwrap_or(0))
    }
}

/// The subnet of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
}

impl Subnet {
    /// A subnet that overlaps with nothing occupied. The search begins at a place that `start`, any number, decides.
    ///
    /// # Errors
    /// When there is none.
    pub fn choose(occupied: &[Prefix], start: u32) -> Result<Self> {
        let candidates = POOLS.iter().flat_map(|pool| {
            let count = 1 << (PREFIX_LENGTH - pool.length);
            (0..count).map(move |offset| pool.bits + ((start.wrapping_add(offset) % count) << (32 - PREFIX_LENGTH)))
        });
        let mut free = candidates.map(|base| Self { base }).filter(|subnet| !overlaps(occupied, subnet.prefix()));
        free.next().context(
            "no two addresses in 10.213.0.0/16 or 198.18.0.0/15 are free: `ip route show table all` shows what covers them; \
             remove that, or use the host's network",
        )
    }

    /// Its two addresses.
    pub fn addresses(self) -> Addresses {
        Addresses { host: self.host(), sandbox: self.sandbox(), prefix_length: PREFIX_LENGTH }
    }

    fn prefix(self) -> Prefix {
        Prefix { bits: self.base, length: PREFIX_LENGTH }
    }

    fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    fn sandbox(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: [u8; 4], length: u8) -> Prefix {
        Prefix::new(address.into(), length)
    }

    #[test]
    fn an_empty_host_gives_the_first_pool() {
        let subnet = Subnet::choose(&[], 1).unwrap();
        assert_eq!(subnet.host(), Ipv4Addr::new(10, 213, 0, 5));
        assert_eq!(subnet.sandbox(), Ipv4Addr::new(10, 213, 0, 6));
        assert_eq!(Subnet::choose(&[], 16384 + 1).unwrap(), subnet);
    }

    #[test]
    fn occupied_subnets_are_passed_over_and_the_search_wraps() {
        let occupied = [prefix([10, 213, 255, 253], 32), prefix([10, 213, 0, 0], 29)];
        assert_eq!(Subnet::choose(&occupied, 16383).unwrap().host(), Ipv4Addr::new(10, 213, 0, 9));
    }

    #[test]
    fn a_prefix_length_is_a_mask_as_well() {
        let mask = |prefix_length| {
            let host = Ipv4Addr::LOCALHOST;
            Addresses { host, sandbox: host, prefix_length }.netmask()
        };
        assert_eq!(mask(30), Ipv4Addr::new(255, 255, 255, 252));
        assert_eq!((mask(0), mask(32)), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    }

    #[test]
    fn a_route_over_a_pool_leads_to_the_other_and_a_default_route_does_not() {
        let default = [prefix([0, 0, 0, 0], 0), prefix([0, 0, 0, 0], 1), prefix([128, 0, 0, 0], 1)];
        assert_eq!(Subnet::choose(&default, 0).unwrap().host(), Ipv4Addr::new(10, 213, 0, 1));
        let private = prefix([10, 0, 0, 0], 8);
        assert_eq!(Subnet::choose(&[private], 0).unwrap().host(), Ipv4Addr::new(198, 18, 0, 1));
        let error = Subnet::choose(&[private, prefix([198, 18, 0, 0], 15)], 0).unwrap_err();
        assert!(error.to_string().contains("ip route"), "{error}");
    }
}

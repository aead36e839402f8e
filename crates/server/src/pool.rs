//! The inside addresses (A5): one IPv4 network of any size and one IPv6 network whose host parts
//! mirror the IPv4 ones. The gateway has the first address, each device keeps the one it got.
//!
//! Pure: who holds what is passed in. [`crate::accounts`] keeps it in the database.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use thiserror::Error;

/// The inside networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

/// A pair of networks that cannot serve as inside networks.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PoolError {
    /// No room for the gateway and one client.
    #[error(
        "{0} has no room for a gateway and a client; use /30 or larger, for example 10.8.0.0/24"
    )]
    TooSmall(Ipv4Net),
    /// The IPv6 network cannot mirror the IPv4 one.
    #[error("{v6} has fewer addresses than {v4}; use a /64, for example {v6_64}")]
    NarrowV6 {
        /// Network for IPv4.
        v4: Ipv4Net,
        /// Network for IPv6.
        v6: Ipv6Net,
        /// What to write instead.
        v6_64: Ipv6Net,
    },
}

/// No address is left.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("all {size} addresses of {pool} are in use; widen networks.v4 in the configuration")]
pub struct Full {
    /// The network.
    pub pool: String,
    /// How many clients it holds.
    pub size: u64,
}

impl PoolConfig {
    /// Checks the two networks. Host bits that are set are ignored.
    ///
    /// # Errors
    /// Networks without room for one client.
    pub fn new(v4: Ipv4Net, v6: Ipv6Net) -> Result<PoolConfig, PoolError> {
        let (v4, v6) = (v4.trunc(), v6.trunc());
        if v4.prefix_len() > 30 {
            return Err(PoolError::TooSmall(v4));
        }
        if 128 - v6.prefix_len() < 32 - v4.prefix_len() {
            let v6_64 = Ipv6Net::new_assert(v6.addr(), 64).trunc();
            return Err(PoolError::NarrowV6 { v4, v6, v6_64 });
        }
        Ok(PoolConfig { v4, v6 })
    }

    /// The IPv4 network.
    pub fn v4(&self) -> Ipv4Net {
        self.v4
    }

    /// The IPv6 network.
    pub fn v6(&self) -> Ipv6Net {
        self.v6
    }

    /// The gateway's own inside address.
    pub fn gateway_v4(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// The gateway's own inside IPv6 address.
    pub fn gateway_v6(&self) -> Ipv6Addr {
        self.mirror(self.gateway_v4())
    }

    /// How many clients have room: all but network, gateway and broadcast.
    pub fn size(&self) -> u64 {
        u64::from(self.last_offset()) - 1
    }

    /// The IPv6 address that belongs to an inside IPv4 address.
    pub fn mirror(&self, v4: Ipv4Addr) -> Ipv6Addr {
        let host = u32::from(v4) & u32::from(self.v4.hostmask());
        Ipv6Addr::from(u128::from(self.v6.network()) | u128::from(host))
    }

    /// Chooses an address: the `sticky` one if it is (still) a client's address of this network
    /// and nobody else's, else the lowest that is not in `taken`, else the first of `unused`,
    /// which are taken addresses that may be given away, in that order.
    ///
    /// # Errors
    /// [`Full`].
    pub fn allocate(
        &self,
        sticky: Option<Ipv4Addr>,
        taken: &BTreeSet<Ipv4Addr>,
        unused: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Result<Ipv4Addr, Full> {
        sticky
            .filter(|&address| self.is_client(address) && !taken.contains(&address))
            .or_else(|| self.lowest_free(taken))
            .or_else(|| unused.into_iter().find(|&address| self.is_client(address)))
            .ok_or_else(|| Full { pool: self.v4.to_string(), size: self.size() })
    }

    fn is_client(&self, address: Ipv4Addr) -> bool {
        address > self.gateway_v4() && address <= self.at(self.last_offset())
    }

    fn lowest_free(&self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (first, last) = (self.at(2), self.at(self.last_offset()));
        let mut free = u32::from(first);
        for &held in taken.range(first..=last) {
            if u32::from(held) != free {
                break;
            }
            free += 1;
        }
        (free <= u32::from(last)).then(|| Ipv4Addr::from(free))
    }

    /// Offset of the last client address.
    fn last_offset(&self) -> u32 {
        u32::from(self.v4.hostmask()) - 1
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.v4.network()) + offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(v4: &str) -> PoolConfig {
        PoolConfig::new(v4.parse().unwrap(), "fd12:3456:789a::/64".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_default_pool() {
        let pool = pool("10.8.0.0/24");
        assert_eq!(pool.gateway_v4(), Ipv4Addr::new(10, 8, 0, 1));
        assert_eq!(pool.gateway_v6(), "fd12:3456:789a::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(pool.size(), 253);
        let first = pool.allocate(None, &BTreeSet::new(), []).unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 8, 0, 2));
        assert_eq!(pool.mirror(Ipv4Addr::new(10, 8, 0, 254)).to_string(), "fd12:3456:789a::fe");
    }

    #[test]
    fn networks_that_cannot_work_are_refused_with_the_remedy() {
        let v6 = "fd00::/64".parse().unwrap();
        let error = PoolConfig::new("10.8.0.0/31".parse().unwrap(), v6).unwrap_err();
        assert!(error.to_string().contains("/30"), "{error}");
        let error = PoolConfig::new("10.8.0.0/24".parse().unwrap(), "fd00::/124".parse().unwrap());
        assert!(error.unwrap_err().to_string().contains("fd00::/64"));
    }

    #[test]
    fn the_largest_network_neither_overflows_nor_gives_the_broadcast_address() {
        let pool = pool("0.0.0.0/0");
        assert_eq!(pool.size(), u64::from(u32::MAX) - 2);
        let edge = Ipv4Addr::from(u32::MAX);
        assert_ne!(pool.allocate(Some(edge), &BTreeSet::new(), []).unwrap(), edge);
    }

    proptest! {
        #[test]
        fn every_client_gets_its_own_address_until_the_pool_is_full(
            bits in 22_u8..=30, network: u32, returning in proptest::collection::vec(any::<u8>(), 40)
        ) {
            let v4 = Ipv4Net::new(Ipv4Addr::from(network), bits).unwrap();
            let pool = PoolConfig::new(v4, "fd00::/64".parse().unwrap()).unwrap();
            let mut taken = BTreeSet::new();
            for _ in 0..pool.size() {
                let given = pool.allocate(None, &taken, []).unwrap();
                prop_assert!(v4.contains(&given));
                prop_assert!(given != v4.network() && given != v4.broadcast());
                prop_assert!(given != pool.gateway_v4());
                prop_assert!(taken.insert(given), "{given} given twice");
            }
            let full = pool.allocate(None, &taken, []).unwrap_err();
            prop_assert_eq!(full, Full { pool: v4.trunc().to_string(), size: pool.size() });

            let held: Vec<_> = taken.iter().copied().collect();
            for pick in returning {
                let own = held[usize::from(pick) % held.len()];
                taken.remove(&own);
                prop_assert_eq!(pool.allocate(Some(own), &taken, []).unwrap(), own);
                taken.insert(own);
            }
        }

        #[test]
        fn a_full_pool_gives_away_the_longest_unused(order in Just((2_u8..=6).collect::<Vec<_>>()).prop_shuffle()) {
            let pool = pool("10.8.0.0/29");
            let address = |n: &u8| Ipv4Addr::new(10, 8, 0, *n);
            let taken: BTreeSet<_> = order.iter().map(address).collect();
            let given = pool.allocate(None, &taken, order.iter().map(address)).unwrap();
            prop_assert_eq!(given, address(&order[0]));
        }

        #[test]
        fn an_address_from_outside_the_pool_is_never_given(foreign: u32) {
            let pool = pool("10.8.0.0/24");
            let foreign = Ipv4Addr::from(foreign);
            let given = pool.allocate(Some(foreign), &BTreeSet::new(), []).unwrap();
            prop_assert!(pool.is_client(given));
            prop_assert!(given == foreign || !pool.is_client(foreign));
        }

        #[test]
        fn mirrors_are_distinct_and_inside_the_network(a: u32, b: u32) {
            let pool = pool("0.0.0.0/0");
            let (one, two) = (pool.mirror(a.into()), pool.mirror(b.into()));
            prop_assert!(pool.v6().contains(&one));
            prop_assert_eq!(one == two, a == b);
        }
    }
}

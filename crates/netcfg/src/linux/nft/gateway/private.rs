//! What is private behind a gateway.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks that no client should reach through the gateway unless it is allowed: private, shared,
/// loopback, link-local (with the clouds' metadata service), reserved and multicast; also in the
/// ways in which IPv6 can write them.
pub(super) fn networks() -> Vec<IpNet> {
    const V4: [([u8; 4], u8); 13] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([168, 63, 129, 16], 32), // Azure's service for its machines
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
        ([255, 255, 255, 255], 32),
    ];
    const V6: [([u16; 8], u8); 7] = [
        ([0, 0, 0, 0, 0, 0, 0, 0], 96), // unspecified, loopback, IPv4-compatible
        ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), // IPv4-mapped
        ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), // local-use translation
        ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4, which can stand for any IPv4 address
        ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), // unique local
        ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), // link-local
        ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), // multicast
    ];
    let v4 = V4.map(|(address, length)| Ipv4Net::new_assert(address.into(), length));
    let translated = v4.map(through_nat64);
    let v6 = V6.map(|(address, length)| Ipv6Net::new_assert(address.into(), length));
    v4.into_iter()
        .map(IpNet::V4)
        .chain(translated.into_iter().map(IpNet::V6))
        .chain(v6.into_iter().map(IpNet::V6))
        .collect()
}

/// The same network written for a NAT64 translator (RFC 6052), behind which it would be reached.
fn through_nat64(network: Ipv4Net) -> Ipv6Net {
    let [a, b, c, d] = network.network().octets().map(u16::from);
    let address = [0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d];
    Ipv6Net::new_assert(address.into(), 96 + network.prefix_len())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn private_networks_are_also_known_as_a_translator_writes_them() {
        let network = through_nat64("10.0.0.0/8".parse().unwrap());
        assert_eq!(network, "64:ff9b::a00:0/104".parse().unwrap());
        for closed in [
            "169.254.169.254",
            "64:ff9b::169.254.169.254",
            "fd00:ec2::254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "2002:c0a8:701::1",
        ] {
            let address: IpAddr = closed.parse().unwrap();
            assert!(networks().iter().any(|network| network.contains(&address)), "{closed}");
        }
        for open in ["1.1.1.1", "168.63.129.17", "64:ff9b::1.1.1.1", "2606:4700::1111"] {
            let address: IpAddr = open.parse().unwrap();
            assert!(!networks().iter().any(|network| network.contains(&address)), "{open}");
        }
    }
}

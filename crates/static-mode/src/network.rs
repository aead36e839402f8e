//! The inside network, as users give it with `--net`.

use std::{fmt, str::FromStr};

use cipherwall_proto::datagram::static_mode::Inside;
use ipnet::Ipv4Net;

/// An IPv4 network whose first address is the gateway's and whose second one the client's (B2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    network: Ipv4Net,
    inside: Inside,
}

/// That is no inside network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give an IPv4 network with at least two addresses, such as 10.8.0.0/24")]
pub struct NetworkError;

impl Network {
    /// What it is if nobody says anything else.
    pub const DEFAULT: &str = "10.8.0.0/24";

    /// The addresses of both ends.
    pub fn inside(&self) -> Inside {
        self.inside
    }

    /// The whole network.
    pub fn network(&self) -> Ipv4Net {
        self.network
    }

    /// The gateway's address with the network's prefix.
    pub fn gateway(&self) -> Ipv4Net {
        Ipv4Net::new_assert(self.inside.gateway, self.network.prefix_len())
    }

    /// The client's address with the network's prefix.
    pub fn client(&self) -> Ipv4Net {
        Ipv4Net::new_assert(self.inside.client, self.network.prefix_len())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network: Ipv4Net = text.parse().map_err(|_| NetworkError)?;
        let network = network.trunc();
        let mut hosts = network.hosts();
        match (hosts.next(), hosts.next()) {
            (Some(gateway), Some(client)) if !gateway.is_unspecified() => {
                Ok(Self { network, inside: Inside { gateway, client } })
            }
            _ => Err(NetworkError),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_the_gateways_and_the_second_the_clients() {
        for (text, gateway, client) in [
            (Network::DEFAULT, "10.8.0.1/24", "10.8.0.2/24"),
            ("192.168.77.9/16", "192.168.0.1/16", "192.168.0.2/16"),
            ("10.1.1.4/30", "10.1.1.5/30", "10.1.1.6/30"),
            ("10.1.1.4/31", "10.1.1.4/31", "10.1.1.5/31"),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.gateway().to_string(), gateway);
            assert_eq!(network.client().to_string(), client);
        }
        for bad in ["10.8.0.1/32", "fd00::/64", "10.8.0.0", "", "0.0.0.0/31"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError), "{bad}");
        }
    }
}

//! Other VPNs, in the same laboratory: the client's program on the client, the server's on the
//! gateway, with NAT to the internet there.
//!
//! They run with their own defaults. A route to one address of the web host leads into their
//! tunnel, which costs them less than a change of all routes.

mod install;
mod ocserv;
mod openvpn;
mod wireguard;

use std::net::Ipv4Addr;

use anyhow::Result;
use e2e::Lab;

use super::path::Vpn;
pub(crate) use install::install;

/// The addresses inside the peers' tunnels.
const INSIDE: &str = "10.66.0.0/24";

/// A VPN that is measured beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Its version of 2023, as in Debian 13: the first with segmentation offload.
    WireguardGo,
    /// Mullvad's WireGuard in Rust.
    GotaTun,
    /// Data in DTLS.
    OcservDtls,
    /// All in one TLS connection.
    OcservTls,
    OpenvpnUdp,
    /// With the cipher and the HMAC of CipherWall's own packet format.
    OpenvpnUdpCfb,
    OpenvpnTcp,
}

impl Peer {
    pub(crate) const ALL: [Peer; 7] = [
        Peer::WireguardGo,
        Peer::GotaTun,
        Peer::OcservDtls,
        Peer::OcservTls,
        Peer::OpenvpnUdp,
        Peer::OpenvpnUdpCfb,
        Peer::OpenvpnTcp,
    ];

    /// As `--peers` calls it.
    fn key(self) -> &'static str {
        match self {
            Peer::WireguardGo => "wireguard-go",
            Peer::GotaTun => "gotatun",
            Peer::OcservDtls => "ocserv-dtls",
            Peer::OcservTls => "ocserv-tls",
            Peer::OpenvpnUdp => "openvpn-udp",
            Peer::OpenvpnUdpCfb => "openvpn-udp-cfb",
            Peer::OpenvpnTcp => "openvpn-tcp",
        }
    }

    /// As the tables call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Peer::WireguardGo => "wireguard-go 2023",
            Peer::GotaTun => "GotaTun",
            Peer::OcservDtls => "ocserv DTLS",
            Peer::OcservTls => "ocserv TLS",
            Peer::OpenvpnUdp => "OpenVPN UDP",
            Peer::OpenvpnUdpCfb => "OpenVPN UDP CFB",
            Peer::OpenvpnTcp => "OpenVPN TCP",
        }
    }

    /// Whether it is carried by TCP, whose congestion control then matters.
    pub(crate) fn is_over_tcp(self) -> bool {
        match self {
            Peer::OcservTls | Peer::OpenvpnTcp => true,
            Peer::WireguardGo
            | Peer::GotaTun
            | Peer::OcservDtls
            | Peer::OpenvpnUdp
            | Peer::OpenvpnUdpCfb => false,
        }
    }

    /// What is installed; an error if nothing is.
    pub(crate) fn version(self) -> Result<String> {
        match self {
            Peer::WireguardGo => install::wireguard_go_version(),
            Peer::GotaTun => install::gotatun_version(),
            Peer::OcservDtls | Peer::OcservTls => {
                install::debian_version(&["ocserv", "openconnect"])
            }
            Peer::OpenvpnUdp | Peer::OpenvpnUdpCfb | Peer::OpenvpnTcp => {
                install::debian_version(&["openvpn"])
            }
        }
    }

    /// Starts the gateway's end. Through the tunnel, `target` is to be reached; what is outside
    /// over TCP gets the congestion control `outside`.
    pub(crate) fn start(self, lab: &Lab, target: Ipv4Addr, outside: &str) -> Result<Box<dyn Vpn>> {
        // by route: a namespace may not choose each one for all its sockets, and the host's
        // settings are not ours to change
        for node in [&lab.clients[0], &lab.gateway] {
            let change = "ip route change $(ip -4 route show default) congctl \"$1\"";
            node.ok(&["sh", "-c", change, "sh", outside])?;
        }
        lab.gateway.sysctl(&["net/ipv4/ip_forward=1"])?;
        lab.gateway.nft(&format!(
            "table ip peer {{\n chain post {{\n type nat hook postrouting priority srcnat;\n\
             ip saddr {INSIDE} oifname \"eth0\" masquerade\n }}\n }}\n"
        ))?;
        let version = self.version()?;
        Ok(match self {
            Peer::WireguardGo => {
                let path = install::wireguard_go_path()?;
                let words = ["env", "LOG_LEVEL=error", &path, "-f"];
                Box::new(wireguard::WireGuard::start(lab, target, &words, version)?)
            }
            Peer::GotaTun => {
                let path = install::gotatun_path()?;
                let words = [&path, "-f", "-v", "error", "--disable-drop-privileges"];
                Box::new(wireguard::WireGuard::start(lab, target, &words, version)?)
            }
            Peer::OcservDtls => Box::new(ocserv::Ocserv::start(lab, target, true, version)?),
            Peer::OcservTls => Box::new(ocserv::Ocserv::start(lab, target, false, version)?),
            Peer::OpenvpnUdp => {
                Box::new(openvpn::OpenVpn::start(lab, target, openvpn::UDP, version)?)
            }
            Peer::OpenvpnUdpCfb => {
                Box::new(openvpn::OpenVpn::start(lab, target, openvpn::UDP_CFB, version)?)
            }
            Peer::OpenvpnTcp => {
                Box::new(openvpn::OpenVpn::start(lab, target, openvpn::TCP, version)?)
            }
        })
    }
}

/// Which peers are wanted; all by default.
#[derive(Clone)]
pub(crate) struct List(pub(crate) Vec<Peer>);

impl Default for List {
    fn default() -> List {
        List(Peer::ALL.to_vec())
    }
}

/// Reads `--peers`.
pub(crate) fn parse_list(text: &str) -> Result<List, String> {
    if text == "none" {
        return Ok(List(Vec::new()));
    }
    let find = |word: &str| Peer::ALL.into_iter().find(|peer| peer.key() == word);
    let known = || Peer::ALL.map(Peer::key).join(", ");
    text.split(',')
        .map(|word| find(word).ok_or_else(|| format!("there is no peer {word}: try {}", known())))
        .collect::<Result<Vec<Peer>, String>>()
        .map(List)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_chosen_by_name() {
        assert_eq!(parse_list("none").map(|list| list.0), Ok(Vec::new()));
        let chosen = parse_list("openvpn-tcp,gotatun").map(|list| list.0);
        assert_eq!(chosen, Ok(vec![Peer::OpenvpnTcp, Peer::GotaTun]));
        assert!(parse_list("openvpn").is_err_and(|error| error.contains("openvpn-udp")));
    }
}

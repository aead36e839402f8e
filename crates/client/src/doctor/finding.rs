//! What may be wrong, and what to do about it.

use serde::Serialize;

/// The causes that `doctor` tells apart (C8). Their names are stable: scripts read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// A process that died has left its settings on this host, or lockdown is on with nobody there.
    Leftovers,
    /// There is no way out of this host, or nothing at its end.
    NoNetwork,
    /// The network wants a log-in on a web page first.
    CaptivePortal,
    /// No DNS server helps.
    DnsBroken,
    /// DNS leads elsewhere than to the gateway.
    DnsLying,
    /// Nothing answers at the gateway's address, or its program does not run.
    GatewayUnreachable,
    /// The gateway's machine answers, but not at its port.
    PortBlocked,
    /// TLS does not get through as it is.
    TlsAltered,
    /// Somebody else answers in the gateway's place.
    WrongPin,
    /// Long packets vanish on the way.
    MtuHole,
    /// The gateway does not let this user or device in.
    Account,
    /// Datagrams do not get through; the stream does.
    UdpBlocked,
}

impl Cause {
    /// In a few words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Cause::Leftovers => "Something was left on this computer",
            Cause::NoNetwork => "There is no network",
            Cause::CaptivePortal => "This network wants a log-in first (captive portal)",
            Cause::DnsBroken => "DNS does not work",
            Cause::DnsLying => "DNS gives a wrong address",
            Cause::GatewayUnreachable => "The gateway cannot be reached",
            Cause::PortBlocked => "The gateway's port is blocked",
            Cause::TlsAltered => "Encrypted connections are altered or cut on the way",
            Cause::WrongPin => "Somebody else answers in the gateway's place",
            Cause::MtuHole => "Long packets vanish on the way",
            Cause::Account => "The gateway does not let this device in",
            Cause::UdpBlocked => "UDP is blocked; connections over TCP work",
        }
    }

    /// What to do, unless a finding knows better.
    fn remedy(self) -> &'static str {
        match self {
            Cause::Leftovers => "sudo cipherwall repair",
            Cause::NoNetwork => {
                "check the cable or Wi-Fi, and the router; if other devices have internet here, \
                 join the network again"
            }
            Cause::CaptivePortal => {
                "open a web page in a browser and log in there, then connect; while CipherWall \
                 blocks the network: sudo cipherwall portal"
            }
            Cause::DnsBroken => {
                "restart the router, or enter another DNS server in this computer's network \
                 settings, such as 9.9.9.9 or 1.1.1.1"
            }
            Cause::DnsLying => {
                "enter another DNS server in this computer's network settings, or use another \
                 network; if the gateway has moved, its owner has to correct its name's address"
            }
            Cause::GatewayUnreachable => {
                "ask the gateway's owner whether it runs: sudo cipherwall-server status; if it \
                 does, try another network"
            }
            Cause::PortBlocked => {
                "try another network; the gateway's owner can open the port in its firewall and at \
                 its provider, or let it listen on 443 as well (docs/troubleshooting.md, Changing \
                 the port)"
            }
            Cause::TlsAltered => {
                "try another network, and switch off programs that look into encrypted connections \
                 (antivirus, company proxies)"
            }
            Cause::WrongPin => {
                "try another network; if it is the same there, ask the gateway's owner, by another \
                 way than this network, whether it was set up anew, and for a new invitation"
            }
            Cause::MtuHole => {
                "set the MTU of this computer's network interface to 1280 (ip link set dev \
                 INTERFACE mtu 1280), or restart the router; whoever runs the network should let \
                 ICMP \"fragmentation needed\" through"
            }
            Cause::Account => "ask the gateway's owner: cipherwall-server user show NAME",
            Cause::UdpBlocked => {
                "nothing needs to be done; for datagrams, use another network, or ask the \
                 gateway's owner for another UDP port (datagrams.port in server.yaml)"
            }
        }
    }

    /// Whether it keeps this computer from connecting.
    pub(crate) fn is_serious(self) -> bool {
        self != Cause::UdpBlocked
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What kind of thing.
    pub(crate) cause: Cause,
    /// The cause in a few words.
    pub(crate) title: &'static str,
    /// What was seen.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl Finding {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        let (title, remedy) = (cause.title(), cause.remedy().to_owned());
        Self { cause, title, detail: detail.into(), remedy }
    }

    /// With what to do in this case.
    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}

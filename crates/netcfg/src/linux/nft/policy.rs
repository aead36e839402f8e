//! The table of the packet policy: what leaves this host, enters it and passes through it.
//!
//! Each function below stands for one line of "what may flow" in `docs/security.md`. What none of
//! them lets through is refused: programs of this host, and those behind it, are told at once;
//! packets from outside are dropped without a word.
//!
//! What leaves is looked at twice. The hook `output` can still refuse with an answer, but sees the
//! interface that was chosen before other programs' NAT and marks may have changed the way. The
//! hook `postrouting` sees the interface that the packet really leaves by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{sets, table::Table};
use crate::{
    Error, Kept, Opening, Policy, Protocol,
    linux::{
        client::{neighbours, private_networks},
        plan::check_name,
    },
};

/// The table's name, apart from the table of the other client settings, because it outlives it.
pub(in crate::linux) const NAME: &str = "cipherwall-policy";

/// Answers to something that was let out: not what merely claims to be one. Where somebody keeps
/// packets out of connection tracking, their addresses and ports have to do.
const ANSWER: &str = "ct state { established, untracked }";

/// Behind the filters of others, which can only refuse more.
const PRIORITY: u32 = 10;

/// The table for this policy.
///
/// # Errors
/// [`Error::NoInterface`] for a name that no interface has.
pub(in crate::linux) fn table(policy: &Policy) -> Result<Table, Error> {
    if let Some(tunnel) = &policy.tunnel {
        check_name(tunnel)?;
    }
    let mut rules = Rules::default();
    rules.allow_loopback();
    rules.allow_tunnel(policy.tunnel.as_deref());
    for gateway in &policy.gateways {
        rules.allow_gateway(policy.mark, gateway);
    }
    if policy.resolvers {
        rules.allow_resolvers(policy.mark);
    }
    rules.allow_dhcp();
    rules.allow_neighbour_discovery();
    rules.allow_multicast_membership();
    rules.allow_errors_about_allowed_packets();
    for kept in &policy.keep {
        rules.keep_connection(kept);
    }
    if policy.portal {
        rules.allow_portal();
    }
    rules.refuse_other_dns();
    if policy.allow_lan {
        rules.allow_lan();
    }
    rules.allow_direct(&policy.direct);
    Ok(Table { name: NAME.into(), text: rules.text() })
}

/// Rules in order: of what leaves, of what enters, of what passes through.
#[derive(Debug, Default)]
struct Rules {
    leave: Vec<String>,
    enter: Vec<String>,
    pass: Vec<String>,
}

impl Rules {
    fn allow_loopback(&mut self) {
        self.leave.push("oifname \"lo\" accept".into());
        self.enter.push("iifname \"lo\" accept".into());
    }

    /// By name: it stays open while the device is away, and for the next one.
    fn allow_tunnel(&mut self, tunnel: Option<&str>) {
        let Some(tunnel) = tunnel else { return };
        self.leave.push(format!("oifname \"{tunnel}\" accept"));
        self.enter.push(format!("iifname \"{tunnel}\" accept"));
        self.pass.push(format!("oifname \"{tunnel}\" accept"));
        self.pass.push(format!("iifname \"{tunnel}\" accept"));
    }

    /// Address, port, protocol and mark, so that no other program's packets are taken for ours
    /// (TunnelCrack ServerIP, CVE-2023-36673).
    fn allow_gateway(&mut self, mark: u32, gateway: &Opening) {
        let protocol = match gateway.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let (family, address, port) = place(gateway.address);
        self.leave.push(format!(
            "meta mark {mark:#x} {family} daddr {address} {protocol} dport {port} accept"
        ));
        self.enter
            .push(format!("{ANSWER} {family} saddr {address} {protocol} sport {port} accept"));
    }

    fn allow_resolvers(&mut self, mark: u32) {
        self.leave
            .push(format!("meta mark {mark:#x} meta l4proto {{ tcp, udp }} th dport 53 accept"));
        self.enter.push(format!("{ANSWER} meta l4proto {{ tcp, udp }} th sport 53 accept"));
    }

    /// As a client. A lease from a public address is renewed by broadcast.
    fn allow_dhcp(&mut self) {
        let mut servers = private_networks();
        servers.retain(|network| matches!(network, IpNet::V4(_)));
        servers.extend([SHARED, BROADCAST].map(IpNet::from));
        for (family, servers) in sets(&servers) {
            self.leave.push(format!("udp sport 68 udp dport 67 {family} daddr {servers} accept"));
        }
        self.enter.push("meta nfproto ipv4 udp sport 67 udp dport 68 accept".into());
        self.leave.push(
            "udp sport 546 udp dport 547 ip6 saddr fe80::/10 \
             ip6 daddr { ff02::1:2, fe80::/10 } accept"
                .into(),
        );
        self.enter.push("udp sport 547 udp dport 546 ip6 daddr fe80::/10 accept".into());
    }

    /// Without it there is no IPv6 on the link. A hop limit of 255 shows that a packet comes from
    /// the link itself (RFC 4861). Redirects are not taken.
    fn allow_neighbour_discovery(&mut self) {
        self.leave.push(
            "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } \
             ip6 hoplimit 255 accept"
                .into(),
        );
        self.enter.push(
            "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } \
             ip6 hoplimit 255 accept"
                .into(),
        );
    }

    /// Switches that watch these reports would cut off neighbour discovery without them.
    fn allow_multicast_membership(&mut self) {
        self.leave.push(
            "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } \
             ip6 hoplimit 1 accept"
                .into(),
        );
        self.enter.push("icmpv6 type mld-listener-query ip6 hoplimit 1 accept".into());
        self.leave.push("ip protocol igmp ip daddr 224.0.0.0/4 accept".into());
        self.enter.push("ip protocol igmp ip daddr 224.0.0.0/4 accept".into());
    }

    /// The size of the path, above all.
    fn allow_errors_about_allowed_packets(&mut self) {
        const STATE: &str = "ct state { related, untracked }";
        for errors in [
            "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, \
             parameter-problem }",
        ] {
            self.enter.push(format!("{errors} {STATE} accept"));
            self.pass.push(format!("{errors} {STATE} accept"));
        }
    }

    fn keep_connection(&mut self, kept: &Kept) {
        let (family, local, local_port) = place(kept.local);
        let (peer_family, peer, peer_port) = place(kept.peer);
        if family != peer_family {
            return; // there is no such connection
        }
        self.leave.push(format!(
            "{family} saddr {local} tcp sport {local_port} {family} daddr {peer} \
             tcp dport {peer_port} accept"
        ));
        self.enter.push(format!(
            "{family} saddr {peer} tcp sport {peer_port} {family} daddr {local} \
             tcp dport {local_port} accept"
        ));
    }

    fn allow_portal(&mut self) {
        for (protocols, ports) in [("{ tcp, udp }", "53"), ("tcp", "{ 80, 443 }")] {
            let matching = |side| format!("meta l4proto {protocols} th {side} {ports} accept");
            self.leave.push(matching("dport"));
            self.enter.push(format!("{ANSWER} {}", matching("sport")));
        }
    }

    /// Before the local network and the networks that go outside: their resolvers are not ours.
    fn refuse_other_dns(&mut self) {
        let refuse = "meta l4proto { tcp, udp } th dport { 53, 853 } counter return \
                      comment \"DNS outside the tunnel\"";
        self.leave.push(refuse.into());
        self.pass.push(refuse.into());
    }

    /// Only networks that are nobody's on the internet: see [`private_networks`].
    fn allow_lan(&mut self) {
        let private = private_networks();
        let mut reachable = [private.clone(), neighbours()].concat();
        reachable.extend(LOCAL_MULTICAST.map(IpNet::from));
        for (family, networks) in sets(&reachable) {
            self.leave.push(format!("{family} daddr {networks} accept"));
        }
        for (family, networks) in sets(&private) {
            self.enter.push(format!("{family} saddr {networks} accept"));
            self.pass.push(format!("{family} saddr {networks} {family} daddr {networks} accept"));
        }
        // virtual machines and containers that ask this host for an address
        self.enter.push("ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept".into());
    }

    fn allow_direct(&mut self, networks: &[IpNet]) {
        for (family, networks) in sets(networks) {
            self.leave.push(format!("{family} daddr {networks} accept"));
            self.enter.push(format!("{ANSWER} {family} saddr {networks} accept"));
            self.pass.push(format!("{family} daddr {networks} accept"));
            self.pass.push(format!("{ANSWER} {family} saddr {networks} accept"));
        }
    }

    fn text(self) -> String {
        let refused = |what: &str| format!("counter drop comment \"{what}\"");
        let entering = self.enter.into_iter().chain([refused("into this host")]);
        let leaving = [vec!["jump leave".into()], told("out of this host")].concat();
        let passing = [vec!["jump pass".into()], told("through this host")].concat();
        [
            named("leave", "", self.leave),
            named("pass", "", self.pass),
            base("output", "output", leaving),
            base("input", "input", entering),
            base("forward", "forward", passing),
            base(
                "postrouting",
                "postrouting",
                ["jump leave".into(), "jump pass".into(), refused("by another way")],
            ),
        ]
        .concat()
    }
}

/// The rules that refuse with an answer. A program that opens a connection gets a reset: the ICMP
/// error often comes while the kernel is still at work on its call, and is lost then. Connections
/// of the tunnel's, which meet this while a client is being replaced, live through an ICMP error,
/// and not through a reset.
fn told(what: &str) -> Vec<String> {
    vec![
        format!("tcp flags & (syn | ack) == syn counter reject with tcp reset comment \"{what}\""),
        format!("counter reject with icmpx type admin-prohibited comment \"{what}\""),
    ]
}

/// Addresses that providers share among their customers (RFC 6598).
const SHARED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
const BROADCAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32);
/// Multicast that stays on the link or the site.
const LOCAL_MULTICAST: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16),
    Ipv6Net::new_assert(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// Family, address and port as in rules. An IPv4 address that a socket writes as an IPv6 one is an
/// IPv4 address.
fn place(address: SocketAddr) -> (&'static str, IpAddr, u16) {
    let ip = address.ip().to_canonical();
    (if ip.is_ipv4() { "ip" } else { "ip6" }, ip, address.port())
}

/// A chain that drops what none of its rules decides.
fn base(name: &str, hook: &str, rules: impl IntoIterator<Item = String>) -> String {
    let head = format!("\t\ttype filter hook {hook} priority {PRIORITY}; policy drop;\n");
    named(name, &head, rules)
}

fn named(name: &str, head: &str, rules: impl IntoIterator<Item = String>) -> String {
    let rules: String = rules.into_iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!("\tchain {name} {{\n{head}{rules}\t}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_interface_do_not_get_into_the_rules() {
        for wrong in ["", "a\" accept", "a;b", "all"] {
            let policy = Policy {
                mark: 1,
                gateways: Vec::new(),
                tunnel: Some(wrong.into()),
                allow_lan: false,
                resolvers: false,
                portal: false,
                direct: Vec::new(),
                keep: Vec::new(),
            };
            assert!(matches!(table(&policy), Err(Error::NoInterface { .. })), "{wrong}");
        }
    }
}

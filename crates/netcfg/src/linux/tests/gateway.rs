//! What a gateway's settings do to packets.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{
    faults::block_on,
    sandbox::{assert_same, counted, in_namespace, run, sh, snapshot, try_sh, works},
};
use crate::{Error, GatewayNetwork, Host, Role, Wanted};

/// The internet at `up0`, and a private network there too.
pub(super) const UPLINK: &str = "
    ip link add up0 type veth peer name w0
    ip link set up0 addrgenmode none; ip link set up0 up
    ip link set w0 addrgenmode none; ip link set w0 up
    ip addr add 203.0.113.1/24 dev up0; ip addr add 192.168.7.1/24 dev up0
    ip addr add 2001:db8::1/64 dev up0 nodad
    ip route add default via 203.0.113.5; ip route add default via 2001:db8::5";

/// The internet host, and the clients' end of the tunnel, as namespaces; a veth pair stands for the
/// TUN device.
pub(super) const LAB: &str = "
    ip netns add world; ip link set w0 netns world
    ip -n world link set lo up; ip -n world link set w0 up
    ip -n world addr add 203.0.113.5/24 dev w0; ip -n world addr add 192.168.7.5/24 dev w0
    ip -n world addr add 2001:db8::5/64 dev w0 nodad
    ip netns add clients; ip link add cw0 address 02:00:00:00:00:01 type veth \
        peer name c0 address 02:00:00:00:00:02 netns clients
    ip -n clients link set lo up; ip -n clients link set c0 addrgenmode none
    ip -n clients link set c0 up
    ip -n clients addr add 10.66.0.2/32 dev c0; ip -n clients addr add fd66::2/128 dev c0 nodad
    ip -n clients addr add 10.99.0.9/32 dev c0
    ip -n clients route add 10.66.0.1/32 dev c0; ip -n clients route add default via 10.66.0.1
    ip -n clients route add fd66::1/128 dev c0; ip -n clients route add default via fd66::1
    ip -n clients neigh add fd66::1 lladdr 02:00:00:00:00:01 dev c0
    ";

/// A TUN device needs no neighbour discovery, the veth pair does.
pub(super) const NEIGHBOUR: &str = "ip neigh replace fd66::2 lladdr 02:00:00:00:00:02 dev cw0";

/// As Docker and ufw (iptables-nft), firewalld and fail2ban leave them.
pub(super) const OTHER_FIREWALLS: &str = r#"
table ip filter {
    chain DOCKER-USER { counter packets 7 bytes 420 return; }
    chain DOCKER { iifname != "docker0" oifname "docker0" counter packets 1 bytes 60 drop; }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        counter packets 12 bytes 3400 jump DOCKER-USER
        oifname "docker0" ct state related,established counter packets 5 bytes 300 accept
        oifname "docker0" counter packets 0 bytes 0 jump DOCKER
    }
    chain INPUT {
        type filter hook input priority filter; policy drop;
        iifname "lo" counter packets 3 bytes 180 accept
        tcp dport 22 counter packets 2 bytes 120 accept
        icmp type echo-request accept
    }
}
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        tcp dport 22 accept
        meta l4proto { icmp, ipv6-icmp } accept
        reject with icmpx admin-prohibited
    }
}
table inet f2b-table {
    set addr-set-sshd { type ipv4_addr; elements = { 192.0.2.66 } }
    chain f2b-chain {
        type filter hook input priority filter - 1; policy accept;
        tcp dport 22 ip saddr @addr-set-sshd reject
    }
}
"#;

pub(super) fn wanted() -> GatewayNetwork {
    GatewayNetwork {
        interface: "cw0".into(),
        addresses: vec!["10.66.0.1/16".parse().unwrap(), "fd66::1/64".parse().unwrap()],
        mtu: 1420,
        networks: vec!["10.66.0.0/16".parse().unwrap(), "fd66::/64".parse().unwrap()],
        uplink: Some("up0".into()),
        allow_private: Vec::new(),
        listen_tcp: vec![8443],
        listen_udp: vec![1194..=1194],
        inside_tcp: vec![8474],
        connections_each: Some(64),
        ipv6_uplink: true,
    }
}

pub(super) async fn host() -> Host {
    fs::create_dir_all("/run/state").unwrap();
    Host::open("/run/state".as_ref(), Role::Gateway).await.unwrap()
}

/// Tries for a while, because a veth pair that was just set up loses the first packets.
pub(super) fn client_reaches(target: &str) -> bool {
    works(&format!("ip netns exec clients ping -c 1 -i 0.2 -w 5 {target}"))
}

fn client_is_kept_from(target: &str) -> bool {
    !works(&format!("ip netns exec clients ping -c 1 -W 1 {target}"))
}

pub(super) fn client_connects(address: &str) -> bool {
    connects("clients", address).is_some()
}

pub(super) fn connects(namespace: &str, address: &str) -> Option<TcpStream> {
    let address = address.parse().unwrap();
    in_namespace(namespace, || TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok())
}

#[test]
fn clients_reach_the_internet_and_nothing_private() {
    run("linux::tests::gateway::clients_reach_the_internet_and_nothing_private", || {
        sh(UPLINK);
        sh(LAB);
        let before = snapshot();
        let _ssh = TcpListener::bind("203.0.113.1:22").unwrap();
        block_on(async {
            let mut host = host().await;
            host.apply(&Wanted::Gateway(wanted())).await.unwrap();
            sh(NEIGHBOUR);
            // The internet host has no route to the inside networks, so an answer shows that the
            // addresses are translated.
            assert!(client_reaches("203.0.113.5") && client_reaches("2001:db8::5"));
            assert!(client_reaches("10.66.0.1") && client_reaches("fd66::1"));
            assert!(client_connects("203.0.113.1:22"), "ssh to the gateway's public address");
            let _inner = TcpListener::bind("10.66.0.1:8080").unwrap();
            assert!(!client_connects("10.66.0.1:8080"), "a service on the inner address");
            let _inside = TcpListener::bind("10.66.0.1:8474").unwrap();
            assert!(client_connects("10.66.0.1:8474"), "one that is for clients");

            assert!(client_is_kept_from("192.168.7.1"), "the gateway's private address");
            assert_eq!(counted("private network of the gateway"), 2);
            assert!(client_is_kept_from("192.168.7.5") && client_is_kept_from("169.254.169.254"));
            assert!(client_is_kept_from("64:ff9b::192.168.7.5"));
            assert_eq!(counted("private network behind the gateway"), 3);
            assert!(client_is_kept_from("10.66.0.3") && client_is_kept_from("fd66::3"));
            assert_eq!(counted("client to client"), 2);
            assert!(client_is_kept_from("-I 10.99.0.9 203.0.113.5"));
            assert!(counted("source not from inside") >= 1);
            sh("ip -n world route add 10.66.0.0/16 via 203.0.113.1");
            assert!(!works("ip netns exec world ping -c 1 -W 1 10.66.0.2"));
            assert_eq!(counted("to inside from outside"), 1);

            let mut allowing = wanted();
            allowing.allow_private = vec!["192.168.7.5/32".parse().unwrap()];
            host.apply(&Wanted::Gateway(allowing)).await.unwrap();
            assert!(client_reaches("192.168.7.5"), "the allowed private host");
            assert!(client_is_kept_from("192.168.7.1"));
            host.reset().await.unwrap();
            assert_same(&before, &snapshot(), "reset");
        });
    });
}

#[test]
fn without_ipv6_uplink_ipv6_is_refused_at_once() {
    run("linux::tests::gateway::without_ipv6_uplink_ipv6_is_refused_at_once", || {
        sh(UPLINK);
        sh(LAB);
        block_on(async {
            let mut host = host().await;
            for forwarding in ["0", "1"] {
                sh(&format!("sysctl -qw net.ipv6.conf.all.forwarding={forwarding}"));
                let wanted = GatewayNetwork { ipv6_uplink: false, ..wanted() };
                host.apply(&Wanted::Gateway(wanted)).await.unwrap();
                sh(NEIGHBOUR);
                let start = Instant::now();
                let ping = try_sh("ip netns exec clients ping -c 1 -W 5 2001:db8::5");
                let said = String::from_utf8_lossy(&ping.stdout).into_owned();
                assert!(said.contains("prohibited"), "forwarding {forwarding}: {said}");
                assert!(start.elapsed().as_secs() < 2, "only after {:?}", start.elapsed());
                assert!(client_reaches("fd66::1"), "the gateway's inner address");
                assert!(client_reaches("203.0.113.5"), "IPv4");
                let now = sh("cat /proc/sys/net/ipv6/conf/all/forwarding");
                assert_eq!(now.trim(), forwarding);
                host.reset().await.unwrap();
            }
        });
    });
}

#[test]
fn large_segments_are_announced_as_what_fits() {
    run("linux::tests::gateway::large_segments_are_announced_as_what_fits", || {
        sh(UPLINK);
        sh(LAB);
        block_on(async {
            let mut host = host().await;
            host.apply(&Wanted::Gateway(GatewayNetwork { mtu: 1300, ..wanted() })).await.unwrap();
            let _server = in_namespace("world", || TcpListener::bind("203.0.113.5:80").unwrap());
            assert!(client_reaches("203.0.113.5"));
            let stream = connects("clients", "203.0.113.5:80").unwrap();
            // The client's link has 1500, so without the clamp the answer would announce 1460.
            let seen = SockRef::from(&stream).tcp_mss().unwrap();
            assert!(seen <= 1260, "{seen}");
        });
    });
}

#[test]
fn other_firewalls_let_the_tunnel_through_and_are_unchanged_afterwards() {
    run(
        "linux::tests::gateway::other_firewalls_let_the_tunnel_through_and_are_unchanged_afterwards",
        || {
            sh(UPLINK);
            sh(LAB);
            fs::write("/run/others.nft", OTHER_FIREWALLS).unwrap();
            sh("nft -f /run/others.nft");
            let _gateway = TcpListener::bind("203.0.113.1:8443").unwrap();
            let outside = || connects("world", "203.0.113.1:8443").is_some();
            let datagrams = UdpSocket::bind("203.0.113.1:1194").unwrap();
            datagrams.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let datagram_comes = || {
                in_namespace("world", || {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    socket.send_to(b"datagram", "203.0.113.1:1194").unwrap();
                });
                datagrams.recv(&mut [0; 8]).is_ok()
            };
            assert!(!outside() && !datagram_comes(), "the other firewalls drop nothing");
            block_on(async {
                let mut host = host().await;
                let report = host.apply(&Wanted::Gateway(wanted())).await.unwrap();
                assert!(report.warnings.is_empty(), "{report}");
                assert!(client_reaches("203.0.113.5") && client_reaches("10.66.0.1"));
                assert!(outside(), "clients cannot connect");
                assert!(datagram_comes(), "their datagrams do not arrive");
                let ruleset = sh("nft list ruleset");
                assert_eq!(ruleset.matches("cipherwall: ").count(), 11, "{ruleset}");
                host.apply(&Wanted::Gateway(wanted())).await.unwrap();
                assert_eq!(sh("nft list ruleset").matches("cipherwall: ").count(), 11);
                host.reset().await.unwrap();
                assert!(!outside());
                assert!(!sh("nft list ruleset").contains("cipherwall"));
            });
        },
    );
}

#[test]
fn a_table_of_another_owner_is_left_and_the_user_told() {
    run("linux::tests::gateway::a_table_of_another_owner_is_left_and_the_user_told", || {
        sh(UPLINK);
        sh(LAB);
        fs::write(
            "/run/owned.nft",
            "table inet firewalld { flags owner; chain filter_FORWARD { \
             type filter hook forward priority 0; policy drop; }; }",
        )
        .unwrap();
        // The table lives as long as the process that made it.
        let mut owner = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut commands = owner.stdin.take().unwrap();
        commands.write_all(b"include \"/run/owned.nft\"\n").unwrap();
        let start = Instant::now();
        while !sh("nft list ruleset").contains("owner") {
            assert!(start.elapsed().as_secs() < 10, "there is no owned table");
            std::thread::sleep(Duration::from_millis(50));
        }
        block_on(async {
            let mut host = host().await;
            let report = host.apply(&Wanted::Gateway(wanted())).await.unwrap();
            let warning = report.warnings.join("\n");
            assert!(warning.contains("firewall-cmd"), "{report}");
            let report = host.reset().await.unwrap();
            assert!(report.warnings.is_empty(), "{report}");
        });
        drop(commands);
        owner.wait().unwrap();
    });
}

#[test]
fn packet_filter_and_nat_stay_when_a_killed_gateway_is_started_again() {
    run(
        "linux::tests::gateway::packet_filter_and_nat_stay_when_a_killed_gateway_is_started_again",
        || {
            sh(UPLINK);
            sh(LAB);
            let before = snapshot();
            // a new handle would be a new table
            let table = || sh("nft -a list ruleset | grep 'table inet cipherwall-gw' || true");
            block_on(async {
                host().await.apply(&Wanted::Gateway(wanted())).await.unwrap();
                let killed = table();
                assert!(killed.contains("handle"), "{killed}");
                let mut host = host().await;
                host.recover_for_restart().await.unwrap();
                assert_eq!(table(), killed, "while it starts");
                host.apply(&Wanted::Gateway(wanted())).await.unwrap();
                assert_eq!(table(), killed, "started again");
                assert!(client_reaches("203.0.113.5"));
                host.reset().await.unwrap();
            });
            assert_same(&before, &snapshot(), "after the second one was stopped");
        },
    );
}

#[test]
fn rules_of_iptables_legacy_are_left_and_the_user_told() {
    run("linux::tests::gateway::rules_of_iptables_legacy_are_left_and_the_user_told", || {
        sh(UPLINK);
        sh(LAB);
        if !works("iptables-legacy -P FORWARD DROP") {
            return; // not installed, or not in this kernel
        }
        block_on(async {
            let mut host = host().await;
            let report = host.apply(&Wanted::Gateway(wanted())).await.unwrap();
            let warning = report.warnings.join("\n");
            let (_, commands) = warning.split_once("run: ").unwrap();
            assert!(client_is_kept_from("203.0.113.5"));
            sh(commands);
            assert!(client_reaches("203.0.113.5"), "the commands did not help: {commands}");
            let report = host.apply(&Wanted::Gateway(wanted())).await.unwrap();
            assert!(report.warnings.is_empty(), "{report}");
        });
    });
}

#[test]
fn what_cannot_work_is_refused_with_the_remedy() {
    run("linux::tests::gateway::what_cannot_work_is_refused_with_the_remedy", || {
        sh(UPLINK);
        sh(LAB);
        let before = snapshot();
        block_on(async {
            let mut host = host().await;
            let networks = vec!["192.168.0.0/16".parse().unwrap()];
            let wrong = GatewayNetwork { networks, ..wanted() };
            let error = host.apply(&Wanted::Gateway(wrong)).await.unwrap_err();
            assert!(matches!(error, Error::NetworkInUse { .. }), "{error}");
            assert_same(&before, &snapshot(), "after an error");
        });
        sh("for nft in /usr/sbin/nft /sbin/nft; do mount --bind /dev/null $nft || true; done");
        block_on(async {
            let error = host().await.apply(&Wanted::Gateway(wanted())).await.unwrap_err();
            assert!(error.to_string().contains("apt-get install nftables"), "{error}");
        });
    });
}

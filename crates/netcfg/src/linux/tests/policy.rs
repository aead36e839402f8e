//! What may flow in each state (`docs/security.md`), on the real kernel: for each policy exactly the
//! attempts that it names are answered, and of the others nothing is seen on any wire.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::{
    faults::block_on,
    probes::Far,
    sandbox::{counted, in_namespace, run, sh},
};
use crate::{Host, Kept, MARK_DEFAULT, Opening, Policy, Protocol, Role};

/// What programs try. All of it goes through while there is no policy.
const ATTEMPTS: [&str; 40] = [
    "tcp 203.0.113.7:443",
    "tcp* 203.0.113.7:443",
    "udp 203.0.113.7:1194",
    "udp* 203.0.113.7:1194",
    "tcp [2001:db8:7::7]:443",
    "tcp* [2001:db8:7::7]:443",
    "tcp* 203.0.113.7:22",
    "udp* 203.0.113.7:443",
    "tcp* 198.51.100.9:443",
    "udp 198.51.100.53:53",
    "tcp 198.51.100.53:53",
    "udp* 198.51.100.53:53",
    "tcp* 198.51.100.53:53",
    "tcp 198.51.100.9:80",
    "tcp 198.51.100.9:443",
    "udp 198.51.100.9:443",
    "tcp 198.51.100.9:853",
    "tcp [2001:db8:9::9]:443",
    "udp [2001:db8:9::9]:9",
    "ping 198.51.100.9",
    "ping 2001:db8:9::9",
    "tcp 192.168.50.1:631",
    "udp 192.168.50.1:161",
    "tcp [fd50::1]:631",
    "ping 192.168.50.1",
    "udp 192.168.50.1:53",
    "tcp 192.168.50.1:53",
    "tcp 192.168.50.1:853",
    "udp [fd50::1]:53",
    "send 224.0.0.251:5353",
    "send 239.255.255.250:1900",
    "send [ff02::fb]:5353",
    "send 255.255.255.255:67 from 68",
    "send [ff02::1:2]:547 from 546",
    "tcp 192.0.2.5:22",
    "udp 192.0.2.5:53",
    "tcp 10.66.0.1:80",
    "udp 10.66.0.1:53",
    "ping 10.66.0.1",
    "send 198.51.100.9:67 from 68",
];

const ALWAYS: [&str; 2] = ["send 255.255.255.255:67 from 68", "send [ff02::1:2]:547 from 546"];
const GATEWAY: [&str; 3] =
    ["tcp* 203.0.113.7:443", "udp* 203.0.113.7:1194", "tcp* [2001:db8:7::7]:443"];
const RESOLVERS: [&str; 2] = ["udp* 198.51.100.53:53", "tcp* 198.51.100.53:53"];
const TUNNEL: [&str; 3] = ["tcp 10.66.0.1:80", "udp 10.66.0.1:53", "ping 10.66.0.1"];
const LAN: [&str; 7] = [
    "tcp 192.168.50.1:631",
    "udp 192.168.50.1:161",
    "tcp [fd50::1]:631",
    "ping 192.168.50.1",
    "send 224.0.0.251:5353",
    "send 239.255.255.250:1900",
    "send [ff02::fb]:5353",
];
/// Marked or not: the client's own probe for the portal is among them.
const PORTAL: [&str; 9] = [
    "tcp 203.0.113.7:443",
    "tcp* 203.0.113.7:443",
    "tcp [2001:db8:7::7]:443",
    "tcp* [2001:db8:7::7]:443",
    "tcp* 198.51.100.9:443",
    "udp 198.51.100.53:53",
    "tcp 198.51.100.53:53",
    "tcp 198.51.100.9:80",
    "tcp 198.51.100.9:443",
];
const PORTAL_TOO: [&str; 6] = [
    "tcp [2001:db8:9::9]:443",
    "udp 192.168.50.1:53",
    "tcp 192.168.50.1:53",
    "udp [fd50::1]:53",
    "udp 192.0.2.5:53",
    "udp 10.66.0.1:53",
];
const DIRECT: [&str; 1] = ["tcp 192.0.2.5:22"];

/// Nothing but what is always allowed.
pub(super) fn closed() -> Policy {
    Policy {
        mark: MARK_DEFAULT,
        gateways: Vec::new(),
        tunnel: None,
        allow_lan: false,
        resolvers: false,
        portal: false,
        direct: Vec::new(),
        keep: Vec::new(),
    }
}

pub(super) fn connecting() -> Policy {
    let opening = |address: &str, protocol| Opening { address: address.parse().unwrap(), protocol };
    let gateways = vec![
        opening("203.0.113.7:443", Protocol::Tcp),
        opening("203.0.113.7:1194", Protocol::Udp),
        opening("[2001:db8:7::7]:443", Protocol::Tcp),
    ];
    Policy { gateways, ..closed() }
}

pub(super) fn connected() -> Policy {
    Policy { tunnel: Some("cw0".into()), ..connecting() }
}

pub(super) async fn host() -> Host {
    fs::create_dir_all("/run/state").unwrap();
    Host::open("/run/state".as_ref(), Role::Client).await.unwrap()
}

fn in_order<const N: usize>(parts: [&[&'static str]; N]) -> Vec<&'static str> {
    let wanted = parts.concat();
    ATTEMPTS.iter().copied().filter(|attempt| wanted.contains(attempt)).collect()
}

#[test]
fn in_each_state_flows_what_the_specification_names_and_nothing_else() {
    run(
        "linux::tests::policy::in_each_state_flows_what_the_specification_names_and_nothing_else",
        || {
            let far = Far::set_up(&ATTEMPTS);
            assert_eq!(far.open(&ATTEMPTS), ATTEMPTS, "without a policy");
            let direct = vec!["192.0.2.0/24".parse().unwrap()];
            let states: [(Policy, Vec<&str>); 7] = [
                (closed(), in_order([&ALWAYS])),
                (
                    Policy { resolvers: true, ..connecting() },
                    in_order([&ALWAYS, &GATEWAY, &RESOLVERS]),
                ),
                (connecting(), in_order([&ALWAYS, &GATEWAY])),
                (connected(), in_order([&ALWAYS, &GATEWAY, &TUNNEL])),
                (
                    Policy { allow_lan: true, direct, ..connected() },
                    in_order([&ALWAYS, &GATEWAY, &TUNNEL, &LAN, &DIRECT]),
                ),
                (
                    Policy { allow_lan: true, ..closed() },
                    in_order([&ALWAYS, &LAN, &TUNNEL[..1], &TUNNEL[2..]]),
                ),
                (
                    Policy { portal: true, ..closed() },
                    in_order([&ALWAYS, &RESOLVERS, &PORTAL, &PORTAL_TOO, &TUNNEL[..2]]),
                ),
            ];
            block_on(async {
                let mut host = host().await;
                for (policy, expected) in states {
                    host.protect(&policy).await.unwrap();
                    // whom one knew from before is asked for anew, and asks
                    sh("ip neigh flush dev up0; ip -n world neigh flush dev w0");
                    assert_eq!(far.open(&ATTEMPTS), expected, "{policy:?}");
                }
                host.unprotect().await.unwrap();
                assert_eq!(far.open(&ATTEMPTS), ATTEMPTS, "after the policy");
            });
        },
    );
}

#[test]
fn programs_are_told_at_once_that_they_may_not() {
    run("linux::tests::policy::programs_are_told_at_once_that_they_may_not", || {
        let _far = Far::set_up(&[]);
        block_on(async {
            host().await.protect(&connected()).await.unwrap();
            for to in ["198.51.100.9:443", "[2001:db8:9::9]:443"] {
                let start = Instant::now();
                let to: SocketAddr = to.parse().unwrap();
                let error = TcpStream::connect_timeout(&to, Duration::from_secs(9)).unwrap_err();
                assert!(start.elapsed() < Duration::from_secs(1), "{to}: {error}");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
            }
            assert!(counted("out of this host") >= 2);
        });
    });
}

#[test]
fn nobody_outside_reaches_this_host_but_the_lan_if_it_is_allowed() {
    run(
        "linux::tests::policy::nobody_outside_reaches_this_host_but_the_lan_if_it_is_allowed",
        || {
            let _far = Far::set_up(&[]);
            let _ssh = TcpListener::bind("[::]:22").unwrap();
            let service = UdpSocket::bind("192.168.50.2:9").unwrap();
            service.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            // the lease comes from this port, also before there is an address
            let lease = UdpSocket::bind("192.168.50.2:68").unwrap();
            lease.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let sent = |from: &str, to: &UdpSocket| {
                let port = to.local_addr().unwrap();
                let program = in_namespace("world", || UdpSocket::bind(from)).unwrap();
                program.send_to(b"!", port).unwrap();
                to.recv(&mut [0; 9]).is_ok()
            };
            let entered = || {
                let connects = |from: &str, to: &str| {
                    let [from, to] = [from, to].map(|ip| SocketAddr::new(ip.parse().unwrap(), 0));
                    let to = SocketAddr::new(to.ip(), 22);
                    let kind = socket2::Type::STREAM;
                    let program = in_namespace("world", || {
                        socket2::Socket::new(socket2::Domain::for_address(to), kind, None).unwrap()
                    });
                    program.bind(&from.into()).unwrap();
                    program.connect_timeout(&to.into(), Duration::from_millis(300)).is_ok()
                };
                let tries = [
                    connects("192.168.50.1", "192.168.50.2"),
                    connects("fd50::1", "fd50::2"),
                    sent("192.168.50.1:1000", &service),
                    connects("198.51.100.9", "192.168.50.2"),
                    // as if it were an answer of the gateway's
                    sent("203.0.113.7:1194", &service),
                    sent("198.51.100.9:1000", &service),
                ];
                assert!(sent("192.168.50.1:67", &lease), "no lease");
                tries
            };
            assert_eq!(entered(), [true; 6], "without a policy");
            block_on(async {
                let mut host = host().await;
                host.protect(&connected()).await.unwrap();
                assert_eq!(entered(), [false; 6]);
                host.protect(&Policy { allow_lan: true, ..connected() }).await.unwrap();
                assert_eq!(entered(), [true, true, true, false, false, false]);
            });
        },
    );
}

#[test]
fn connections_from_before_do_not_go_on_except_those_kept() {
    run("linux::tests::policy::connections_from_before_do_not_go_on_except_those_kept", || {
        let far = Far::set_up(&[]);
        let servers = ["198.51.100.9:22", "192.168.50.1:631", "198.51.100.9:80"]
            .map(|place| in_namespace("world", || TcpListener::bind(place)).unwrap());
        let connect = || {
            servers.each_ref().map(|server| {
                let near = TcpStream::connect(server.local_addr().unwrap()).unwrap();
                near.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                (near, server.accept().unwrap().0)
            })
        };
        // Whether what the far end says comes in, and what the near end says goes out.
        let flows = |connections: [(TcpStream, TcpStream); 3]| {
            connections.map(|(mut near, mut distant)| {
                let peer = near.peer_addr().unwrap().ip();
                distant.write_all(b"x").unwrap();
                let enters = near.read(&mut [0; 99]).is_ok();
                far.arrives(peer);
                near.write_all(b"y").ok();
                std::thread::sleep(Duration::from_millis(300));
                (enters, far.arrives(peer))
            })
        };
        // a firewall of the host's own, so that its kernel knows what is established
        sh(
            "nft 'add table inet fw { chain in { type filter hook input priority 0; ct state established accept; }; }'",
        );
        let (goes_on, cut) = ((true, true), (false, false));
        assert_eq!(flows(connect()), [goes_on; 3], "without a policy");
        block_on(async {
            let mut host = host().await;
            let old = connect();
            host.protect(&connected()).await.unwrap();
            assert_eq!(flows(old), [cut; 3]);

            host.unprotect().await.unwrap();
            let old = connect();
            // as a program that listens on both families sees it
            let port = old[0].0.local_addr().unwrap().port();
            let local = format!("[::ffff:192.168.50.2]:{port}").parse().unwrap();
            let peer = "198.51.100.9:22".parse().unwrap();
            let keep = vec![Kept { local, peer }];
            host.protect(&Policy { keep, allow_lan: true, ..connected() }).await.unwrap();
            assert_eq!(flows(old), [goes_on, goes_on, cut]);
        });
    });
}

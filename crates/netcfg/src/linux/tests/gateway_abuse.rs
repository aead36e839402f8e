//! What clients may try against each other and the gateway by way of its connection table.

use std::{
    net::{TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use super::{
    faults::block_on,
    gateway::{LAB, NEIGHBOUR, UPLINK, client_connects, client_reaches, connects, host, wanted},
    sandbox::{counted, in_namespace, run, sh},
};
use crate::{GatewayNetwork, Wanted};

/// As many a tutorial has it, and put there after our own; it would keep the ports that clients
/// choose. And a look at what leaves.
const OTHERS: &str = r#"nft -f - <<END
table ip nat {
    chain POSTROUTING { type nat hook postrouting priority srcnat; oifname "up0" masquerade; }
}
table ip seen {
    chain leaving {
        type filter hook postrouting priority 300;
        oifname "up0" ip saddr 10.66.0.0/16 counter comment "untranslated"
    }
}
END"#;

#[test]
fn clients_reach_no_listening_port_from_inside() {
    run("linux::tests::gateway_abuse::clients_reach_no_listening_port_from_inside", || {
        sh(UPLINK);
        sh(LAB);
        let _listener = TcpListener::bind("[::]:8443").unwrap();
        block_on(async {
            let mut host = host().await;
            let mut wanted = wanted();
            // as where the gateway is itself behind a router that forwards the port
            wanted.allow_private = vec!["192.168.7.0/24".parse().unwrap()];
            // twice, and within a range
            wanted.listen_udp = vec![1194..=1194, 9000..=9099, 9050..=9050, 1194..=1194];
            host.apply(&Wanted::Gateway(wanted)).await.unwrap();
            sh(NEIGHBOUR);
            for address in ["203.0.113.1:8443", "192.168.7.1:8443", "10.66.0.1:8443"] {
                let start = Instant::now();
                assert!(!client_connects(address), "{address} through the tunnel");
                assert!(start.elapsed().as_secs() < 2, "refused after {:?}", start.elapsed());
            }
            assert!(!client_connects("[2001:db8::1]:8443"));
            assert!(connects("world", "203.0.113.1:8443").is_some(), "from outside");
            assert!(counted("tunnel in the tunnel") >= 4);
        });
    });
}

#[test]
fn a_client_has_so_many_connections_and_no_more() {
    run("linux::tests::gateway_abuse::a_client_has_so_many_connections_and_no_more", || {
        sh(UPLINK);
        sh(LAB);
        block_on(async {
            let mut host = host().await;
            host.apply(&Wanted::Gateway(wanted())).await.unwrap();
            sh(NEIGHBOUR);
            // which also finds the neighbours
            assert!(client_reaches("10.66.0.1") && client_reaches("fd66::1"));
            let connections = |target: &str| {
                let addresses = (0..100).map(|port| format!("{target}:{}", 10_000 + port));
                in_namespace("clients", || {
                    let socket = UdpSocket::bind("[::]:0").unwrap();
                    addresses.for_each(|address| drop(socket.send_to(b"x", address)));
                });
                std::thread::sleep(Duration::from_millis(200));
            };
            connections("[::ffff:203.0.113.5]");
            assert_eq!(counted("too many connections"), 36, "of 100, 64 are allowed");
            connections("[2001:db8::5]");
            assert_eq!(counted("too many connections"), 72, "and as many by IPv6");
            assert!(client_reaches("10.66.0.1"), "the gateway itself counts apart");
            host.apply(&Wanted::Gateway(GatewayNetwork { connections_each: None, ..wanted() }))
                .await
                .unwrap();
            connections("[::ffff:203.0.113.5]");
            assert_eq!(counted("too many connections"), 0, "without a limit");
        });
    });
}

#[test]
fn nothing_leaves_untranslated_whatever_others_translate() {
    run(
        "linux::tests::gateway_abuse::nothing_leaves_untranslated_whatever_others_translate",
        || {
            sh(UPLINK);
            sh(LAB);
            block_on(async {
                host().await.apply(&Wanted::Gateway(wanted())).await.unwrap();
                sh(OTHERS);
                sh(NEIGHBOUR);
                let outside =
                    in_namespace("world", || UdpSocket::bind("203.0.113.5:7000").unwrap());
                outside.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                in_namespace("clients", || {
                    let socket = UdpSocket::bind("10.66.0.2:1194").unwrap();
                    socket.send_to(b"x", "203.0.113.5:7000").unwrap();
                });
                let (_, from) = outside.recv_from(&mut [0; 8]).unwrap();
                assert_eq!(from.ip().to_string(), "203.0.113.1");
                assert!(from.port() >= 32_768, "the client's own port was kept: {from}");

                // a TCP segment that begins no connection
                in_namespace("clients", || {
                    let kind = socket2::Type::RAW;
                    let tcp = Some(socket2::Protocol::TCP);
                    let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, tcp).unwrap();
                    let reset = b"\x20\x00\x00\x50\0\0\0\x01\0\0\0\x01\x50\x04\0\0\0\0\0\0";
                    let to: std::net::SocketAddr = "203.0.113.5:80".parse().unwrap();
                    socket.send_to(reset, &to.into()).unwrap();
                });
                std::thread::sleep(Duration::from_millis(200));
                assert_eq!(counted("of no connection"), 1);
                assert_eq!(counted("untranslated"), 0, "an inside address was seen outside");
            });
        },
    );
}

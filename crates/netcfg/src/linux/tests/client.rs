//! What a client's settings do to packets.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::{
    faults::block_on,
    sandbox::{assert_same, counted, in_namespace, run, sh, snapshot, works},
};
use crate::{ClientNetwork, Error, Host, Kept, Role, Wanted};

/// A LAN with a router at 192.168.50.1.
pub(super) const UPLINK: &str = "
    ip link add up0 type veth peer name w0
    ip link set up0 addrgenmode none; ip link set up0 up
    ip link set w0 addrgenmode none; ip link set w0 up
    ip addr add 192.168.50.2/24 dev up0
    ip route add default via 192.168.50.1 dev up0";

/// The router with the internet behind it, and the far end of the tunnel, as namespaces; veth pairs
/// stand for the TUN device.
const LAB: &str = "
    ip netns add world; ip link set w0 netns world
    ip -n world link set lo up; ip -n world link set w0 up
    ip -n world addr add 192.168.50.1/24 dev w0; ip -n world addr add 198.51.100.9/32 dev lo
    ip netns add exit; ip link add cw0 type veth peer name t0 netns exit
    ip -n exit link set lo up; ip -n exit link set t0 up
    ip -n exit addr add 10.66.0.1/24 dev t0; ip -n exit addr add 198.51.100.9/32 dev lo";

pub(super) fn wanted() -> ClientNetwork {
    ClientNetwork {
        interface: "cw0".into(),
        addresses: vec!["10.66.0.2/32".parse().unwrap(), "fd66::2/128".parse().unwrap()],
        mtu: 1420,
        mark: crate::MARK_DEFAULT,
        table: crate::TABLE_DEFAULT,
        routes: crate::default_routes(),
        allow_lan: true,
        direct: Vec::new(),
        keep: Vec::new(),
        dns: vec!["10.66.0.1".parse().unwrap(), "fd66::1".parse().unwrap()],
    }
}

async fn host() -> Host {
    fs::create_dir_all("/run/state").unwrap();
    Host::open("/run/state".as_ref(), Role::Client).await.unwrap()
}

fn way(to: &str) -> String {
    let route = sh(&format!("ip route get {to}"));
    let words: Vec<&str> = route.split_whitespace().collect();
    words.windows(2).find(|pair| pair[0] == "dev").unwrap()[1].to_owned()
}

#[test]
fn everything_goes_into_the_tunnel_but_the_tunnel_itself_and_the_lan() {
    run(
        "linux::tests::client::everything_goes_into_the_tunnel_but_the_tunnel_itself_and_the_lan",
        || {
            sh(UPLINK);
            sh(LAB);
            // A hostile network: a public address as "the LAN", and routes by DHCP (option 121).
            sh("ip addr add 203.0.113.2/24 dev up0
                ip route add 198.51.100.9/32 via 192.168.50.1 dev up0
                ip route add 128.0.0.0/2 via 192.168.50.1 dev up0");
            block_on(async {
                let mut host = host().await;
                host.apply(&Wanted::Client(wanted())).await.unwrap();
                for inside in ["198.51.100.9", "203.0.113.9", "10.66.0.1", "2001:db8::9", "fd66::1"]
                {
                    assert_eq!(way(inside), "cw0", "{inside}");
                }
                // The inner DNS server even where the LAN has the same network.
                sh("ip addr add 10.66.0.77/24 dev up0");
                assert_eq!(way("10.66.0.1"), "cw0");
                assert_eq!(way("198.51.100.9 mark 0x6377"), "up0");
                for lan in ["192.168.50.77", "239.255.255.250", "10.66.0.78"] {
                    assert_eq!(way(lan), "up0", "{lan}");
                }
                // Private networks that are not here are not sent to the provider.
                assert_eq!(way("10.1.2.3"), "cw0");
                let main = sh("ip route show default");
                assert_eq!(main, "default via 192.168.50.1 dev up0 \n");

                let strict = ClientNetwork { allow_lan: false, ..wanted() };
                host.apply(&Wanted::Client(strict)).await.unwrap();
                assert_eq!(way("192.168.50.77"), "cw0");
                assert_eq!(way("198.51.100.9 mark 0x6377"), "up0");
            });
        },
    );
}

#[test]
fn networks_that_stay_outside_do_and_only_those_wanted_go_inside() {
    run(
        "linux::tests::client::networks_that_stay_outside_do_and_only_those_wanted_go_inside",
        || {
            sh(UPLINK);
            sh(LAB);
            let networks =
                |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            block_on(async {
                let mut host = host().await;
                let direct = networks(&["198.51.100.0/24", "10.66.0.0/16", "2001:db8:5::/48"]);
                let wanted = ClientNetwork { direct, ..wanted() };
                sh("ip -6 route add default dev up0");
                host.apply(&Wanted::Client(wanted.clone())).await.unwrap();
                assert_eq!(way("198.51.100.9"), "up0");
                assert_eq!(way("2001:db8:5::9"), "up0");
                assert_eq!(way("203.0.113.9"), "cw0");
                assert_eq!(way("10.66.0.1"), "cw0", "the inner network never stays outside");

                let routes = networks(&["203.0.113.0/24", "2001:db8:6::/48"]);
                let only = ClientNetwork { routes, direct: Vec::new(), ..wanted };
                host.apply(&Wanted::Client(only.clone())).await.unwrap();
                assert_eq!(way("203.0.113.9"), "cw0");
                assert_eq!(way("10.66.0.1"), "cw0");
                assert_eq!(way("198.51.100.9"), "up0");
                assert_eq!(way("2001:db8:6::9"), "cw0");
                assert_eq!(way("2001:db8:5::9"), "up0");

                // without IPv6 inside, of IPv6 only what should go there is refused
                let addresses = networks(&["10.66.0.2/32"]);
                let only = ClientNetwork { addresses, ..only };
                host.apply(&Wanted::Client(only)).await.unwrap();
                assert_eq!(way("2001:db8:5::9"), "up0");
                assert!(!works("ip route get 2001:db8:6::9"));
            });
        },
    );
}

#[test]
fn a_kept_connection_goes_on_outside_and_only_that_one() {
    run("linux::tests::client::a_kept_connection_goes_on_outside_and_only_that_one", || {
        sh(UPLINK);
        sh(LAB);
        sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done");
        let peer: SocketAddr = "198.51.100.9:22".parse().unwrap();
        let listener = in_namespace("world", || TcpListener::bind(peer).unwrap());
        let connect = || {
            let here = TcpStream::connect_timeout(&peer, Duration::from_secs(2)).unwrap();
            here.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            (here, listener.accept().unwrap().0)
        };
        let (mut kept, mut lost) = (connect(), connect());
        let speaks = |(here, there): &mut (TcpStream, TcpStream)| {
            let mut said = [0; 2];
            there.write_all(b"hi").and_then(|()| here.read_exact(&mut said)).is_ok()
                && here.write_all(b"ho").is_ok()
                && unacknowledged(here) == 0
        };
        assert!(speaks(&mut kept) && speaks(&mut lost));
        block_on(async {
            let mut host = host().await;
            let local = kept.0.local_addr().unwrap();
            // as a server that listens for both families calls it
            let IpAddr::V4(v4) = local.ip() else { panic!("{local}") };
            let local = SocketAddr::new(v4.to_ipv6_mapped().into(), local.port());
            let keep = vec![Kept { local, peer }];
            let wanted = ClientNetwork { keep, ..wanted() };
            host.apply(&Wanted::Client(wanted)).await.unwrap();
        });
        assert!(speaks(&mut kept), "it was to be kept");
        assert!(!speaks(&mut lost), "everything goes on outside, so this test shows nothing");
        let port = kept.0.local_addr().unwrap().port();
        let way_of =
            |ports: String| way(&format!("198.51.100.9 from 192.168.50.2 ipproto tcp {ports}"));
        assert_eq!(way_of(format!("sport {port} dport 22")), "up0");
        assert_eq!(way_of(format!("sport {port} dport 23")), "cw0");
        assert_eq!(way_of(format!("sport {} dport 22", port ^ 1)), "cw0");
    });
}

/// What the other end has not acknowledged after a second, in bytes.
fn unacknowledged(stream: &TcpStream) -> usize {
    std::thread::sleep(Duration::from_secs(1));
    let port = stream.local_addr().unwrap().port();
    let listed = sh(&format!("ss -Htn sport = :{port}"));
    listed.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn answers_to_the_tunnel_pass_a_strict_reverse_path_filter() {
    run("linux::tests::client::answers_to_the_tunnel_pass_a_strict_reverse_path_filter", || {
        sh(UPLINK);
        sh(LAB);
        sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done");
        block_on(async {
            let mut host = host().await;
            host.apply(&Wanted::Client(wanted())).await.unwrap();
            let marked = "ping -c 1 -i 0.2 -w 4 -m 25463 198.51.100.9";
            assert!(works(marked), "the tunnel's own packets get no answer");
            sh("nft delete table inet cipherwall");
            assert!(!works(marked), "the filter is not strict, so this test shows nothing");
            // Applying again repairs it.
            host.apply(&Wanted::Client(wanted())).await.unwrap();
            assert!(works(marked));
            assert!(works("ping -c 1 -i 0.2 -w 4 10.66.0.1"), "nothing through the tunnel");
        });
    });
}

#[test]
fn neighbours_neither_find_nor_reach_the_inner_address() {
    run("linux::tests::client::neighbours_neither_find_nor_reach_the_inner_address", || {
        sh(UPLINK);
        sh(LAB);
        // The neighbour has a route to the inner address, and asks by ARP for it too.
        sh("ip -n world route add 10.66.0.2/32 via 192.168.50.2
            ip -n world addr add 10.66.1.9/24 dev w0; ip -n world route add 10.66.0.3/32 dev w0");
        block_on(async {
            let mut host = host().await;
            let mut wanted = wanted();
            wanted.addresses.push("10.66.0.3/32".parse().unwrap());
            host.apply(&Wanted::Client(wanted)).await.unwrap();
            assert!(works("ip netns exec world ping -c 1 -i 0.2 -w 4 192.168.50.2"));
            assert!(!works("ip netns exec world ping -c 1 -W 1 10.66.0.2"));
            assert!(counted("to the inner address from outside") > 0);
            assert!(!works("ip netns exec world ping -c 1 -W 2 10.66.0.3"));
            let neighbour = sh("ip -n world neigh show 10.66.0.3");
            assert!(!neighbour.contains("lladdr"), "the inner address was told: {neighbour}");
        });
    });
}

#[test]
fn applying_again_changes_nothing_and_another_state_replaces_the_first() {
    run(
        "linux::tests::client::applying_again_changes_nothing_and_another_state_replaces_the_first",
        || {
            sh(UPLINK);
            sh(LAB);
            let before = snapshot();
            block_on(async {
                let mut host = host().await;
                host.apply(&Wanted::Client(wanted())).await.unwrap();
                let first = snapshot();
                assert!(first.contains("nameserver 10.66.0.1\n"), "{first}");
                assert!(!first.contains("nameserver 192.0.2.53"), "{first}");
                host.apply(&Wanted::Client(wanted())).await.unwrap();
                assert_same(&first, &snapshot(), "applied again");

                // Another program (DHCP) writes its server; ours comes back, and at the end its own.
                fs::write("/etc/resolv.conf", "nameserver 192.0.2.99\n").unwrap();
                let mut other = wanted();
                other.addresses = vec!["10.66.0.5/32".parse().unwrap()];
                host.apply(&Wanted::Client(other)).await.unwrap();
                let second = snapshot();
                assert!(second.contains("10.66.0.5") && !second.contains("10.66.0.2/"), "{second}");
                assert!(!second.contains("192.0.2.99"));

                host.reset().await.unwrap();
                let before =
                    before.replace("search lan\nnameserver 192.0.2.53", "nameserver 192.0.2.99");
                assert_same(&before, &snapshot(), "reset");
            });
        },
    );
}

#[test]
fn without_nft_only_a_strict_filter_stops_the_client() {
    run("linux::tests::client::without_nft_only_a_strict_filter_stops_the_client", || {
        sh(UPLINK);
        sh(LAB);
        sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
        sh("for nft in /usr/sbin/nft /sbin/nft; do mount --bind /dev/null $nft || true; done");
        block_on(async {
            let mut host = host().await;
            let report = host.apply(&Wanted::Client(wanted())).await.unwrap();
            assert!(report.warnings[0].contains("apt-get install nftables"), "{report}");
            host.reset().await.unwrap();

            sh("sysctl -qw net.ipv4.conf.up0.rp_filter=1");
            let error = host.apply(&Wanted::Client(wanted())).await.unwrap_err();
            assert!(matches!(error, Error::ProgramMissing { .. }));
            let message = error.to_string();
            assert!(message.contains("up0.rp_filter=1"), "{message}");
            assert!(message.contains("apt-get install nftables"), "{message}");
        });
    });
}

#[test]
fn an_error_leaves_nothing_behind() {
    run("linux::tests::client::an_error_leaves_nothing_behind", || {
        sh(UPLINK);
        sh(LAB);
        let before = snapshot();
        block_on(async {
            let mut host = host().await;
            let mut wrong = wanted();
            wrong.mtu = 1; // the kernel refuses it, after much is done
            let error = host.apply(&Wanted::Client(wrong)).await.unwrap_err();
            assert!(error.to_string().contains("MTU 1"), "{error}");
            assert_same(&before, &snapshot(), "after an error");

            let absent = ClientNetwork { interface: "cw9".into(), ..wanted() };
            let error = host.apply(&Wanted::Client(absent)).await.unwrap_err();
            assert!(matches!(error, Error::NoInterface { .. }), "{error}");

            let error = Host::open("/run/state".as_ref(), Role::Client).await.unwrap_err();
            assert!(matches!(error, Error::InUse { pid: Some(_), .. }), "{error}");
        });
    });
}

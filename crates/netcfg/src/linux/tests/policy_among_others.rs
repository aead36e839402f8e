//! The packet policy among others: what the host forwards, other programs that turn packets around,
//! other processes of ours, and what goes wrong.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use super::{
    client,
    faults::block_on,
    policy::{closed, connected, connecting, host},
    probes::Far,
    sandbox::{assert_same, counted, in_namespace, run, sh, snapshot, works},
};
use crate::{Error, Host, Policy, Role, Wanted};

#[test]
fn what_this_host_forwards_is_under_the_policy_too() {
    run(
        "linux::tests::policy_among_others::what_this_host_forwards_is_under_the_policy_too",
        || {
            let far = Far::set_up(&[]);
            sh("ip netns add box; ip link add br0 type veth peer name b0 netns box
            ip link set br0 addrgenmode none; ip link set br0 up; ip addr add 172.20.0.1/24 dev br0
            ip -n box link set lo up; ip -n box link set b0 up; ip -n box addr add 172.20.0.2/24 dev b0
            ip -n box route add default via 172.20.0.1
            ip -n world route add 172.20.0.0/24 via 192.168.50.2
            sysctl -qw net.ipv4.ip_forward=1");
            let direct = vec!["192.0.2.0/24".parse().unwrap()];
            let reached = || -> Vec<&str> {
                let goes = |to: &&str| {
                    far.arrives(to.parse().unwrap());
                    let answered = works(&format!("ip netns exec box ping -c 1 -W 1 {to}"));
                    assert_eq!(answered, far.arrives(to.parse().unwrap()), "{to}");
                    answered
                };
                ["198.51.100.9", "192.168.50.1", "192.0.2.5", "10.66.0.1"]
                    .into_iter()
                    .filter(goes)
                    .collect()
            };
            assert_eq!(reached().len(), 4, "without a policy");
            block_on(async {
                let mut host = host().await;
                host.protect(&connected()).await.unwrap();
                assert_eq!(reached(), ["10.66.0.1"]);
                // neither back nor forth from outside
                assert!(!works("ip netns exec world ping -c 1 -W 1 172.20.0.2"));
                host.protect(&Policy { allow_lan: true, direct, ..closed() }).await.unwrap();
                assert_eq!(reached(), ["192.168.50.1", "192.0.2.5", "10.66.0.1"]);
                assert!(works("ip netns exec world ping -c 1 -W 1 172.20.0.2"));
                assert!(!works("ip netns exec world ping -c 1 -W 1 -I 198.51.100.9 172.20.0.2"));
            });
        },
    );
}

#[test]
fn other_programs_marks_and_translation_lead_nothing_around_it() {
    run(
        "linux::tests::policy_among_others::other_programs_marks_and_translation_lead_nothing_around_it",
        || {
            let far = Far::set_up(&["tcp 10.66.0.1:80", "tcp 198.51.100.9:80"]);
            // Another VPN that turns packets around after their way was chosen.
            sh("ip route add default via 192.168.50.1 dev up0 table 99; ip rule add fwmark 0x99 table 99
            ip route replace 198.51.100.0/24 via 10.66.0.1 dev cw0");
            let marks = "nft add table ip other
            nft 'add chain ip other out { type route hook output priority mangle; }'
            nft add rule ip other out ip daddr 198.51.100.9 meta mark set 0x99";
            let translates = "nft add table ip other
            nft 'add chain ip other out { type nat hook output priority -100; }'
            nft add rule ip other out ip daddr 10.66.0.1 tcp dport 80 dnat to 203.0.113.7:80";
            for (trick, try_it, leaked) in [
                (marks, "ping -c 1 -W 1 198.51.100.9", "198.51.100.9"),
                (translates, "bash -c 'echo > /dev/tcp/10.66.0.1/80'", "203.0.113.7"),
            ] {
                let leaks = || {
                    far.arrives(leaked.parse().unwrap());
                    works(&format!("timeout 1 {try_it}"));
                    far.arrives(leaked.parse().unwrap())
                };
                sh(trick);
                assert!(leaks(), "{trick}: it shows nothing");
                block_on(async {
                    let mut host = host().await;
                    host.protect(&connected()).await.unwrap();
                    assert!(!leaks(), "{trick}");
                    assert!(counted("by another way") > 0, "{trick}");
                    host.unprotect().await.unwrap();
                });
                sh("nft delete table ip other");
            }
        },
    );
}

#[test]
fn programs_learn_at_once_that_their_connections_from_before_are_over() {
    run(
        "linux::tests::policy_among_others::programs_learn_at_once_that_their_connections_from_before_are_over",
        || {
            let _far = Far::set_up(&[]);
            let place = "198.51.100.9:80";
            let server = in_namespace("world", || TcpListener::bind(place)).unwrap();
            let mut program = TcpStream::connect(place).unwrap();
            let _server = server.accept().unwrap();
            let datagrams = UdpSocket::bind("0.0.0.0:0").unwrap();
            datagrams.connect("198.51.100.9:9").unwrap();
            block_on(async {
                let mut host = host().await;
                host.protect(&connected()).await.unwrap();
                host.apply(&Wanted::Client(client::wanted())).await.unwrap();
            });
            program.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            program.write_all(b"x").unwrap();
            let error = program.read(&mut [0; 9]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            let error = datagrams.send(b"x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        },
    );
}

#[test]
fn only_unprotect_removes_it_and_the_next_process_knows_of_it() {
    run(
        "linux::tests::policy_among_others::only_unprotect_removes_it_and_the_next_process_knows_of_it",
        || {
            sh(&format!("ip tuntap add cw0 mode tun; {}", client::UPLINK));
            let there = || works("nft list table inet cipherwall-policy");
            let before = snapshot();
            block_on(async {
                let mut first = host().await;
                assert!(!first.is_protected());
                first.protect(&connecting()).await.unwrap();
                first.apply(&Wanted::Client(client::wanted())).await.unwrap();
                let report = first.reset().await.unwrap();
                assert!(there() && first.is_protected() && report.kept.is_empty(), "{report}");
                first.apply(&Wanted::Client(client::wanted())).await.unwrap();
                drop(first);

                let mut next = host().await;
                assert!(next.is_protected());
                let report = next.recover().await.unwrap();
                assert!(
                    there() && report.kept.len() == 1 && report.warnings.is_empty(),
                    "{report}"
                );
                // somebody else removes it, unknown to us
                sh("nft flush ruleset");
                next.protect(&connected()).await.unwrap();
                assert!(there());
                let report = next.unprotect().await.unwrap();
                assert!(report.undone[0].contains("cipherwall-policy"), "{report}");
                assert!(!next.is_protected());
                assert_same(&before, &snapshot(), "after unprotect");
                assert_eq!(next.unprotect().await.unwrap(), crate::Report::default());

                // the journal is gone, and the table is there all the same
                next.protect(&connected()).await.unwrap();
                drop(next);
                fs::remove_dir_all("/run/state").unwrap();
                let mut stranger = host().await;
                assert!(!stranger.is_protected());
                stranger.unprotect().await.unwrap();
                assert_same(&before, &snapshot(), "without a journal");
            });
        },
    );
}

#[test]
fn a_policy_that_cannot_be_made_leaves_the_one_before() {
    run(
        "linux::tests::policy_among_others::a_policy_that_cannot_be_made_leaves_the_one_before",
        || {
            let far = Far::set_up(&["tcp 198.51.100.9:80"]);
            let wrong = Policy { tunnel: Some("no such \" name".into()), ..closed() };
            block_on(async {
                let mut host = host().await;
                let error = host.protect(&wrong).await.unwrap_err();
                assert!(matches!(error, Error::NoInterface { .. }), "{error}");
                assert!(!host.is_protected());
                assert_eq!(far.open(&["tcp 198.51.100.9:80"]).len(), 1, "still open");

                host.protect(&closed()).await.unwrap();
                sh(
                    "for nft in /usr/sbin/nft /sbin/nft; do mount --bind /dev/null $nft || true; done",
                );
                let error = host.protect(&connected()).await.unwrap_err();
                assert!(error.to_string().contains("apt-get install nftables"), "{error}");
                assert!(host.is_protected());
                assert_eq!(far.open(&["tcp 198.51.100.9:80"]).len(), 0, "still closed");
                assert!(host.unprotect().await.is_err() && host.is_protected());
                sh("umount /usr/sbin/nft /sbin/nft || true");
                host.unprotect().await.unwrap();
            });
            let mut gateway = block_on(Host::open("/run/state".as_ref(), Role::Gateway)).unwrap();
            let error = block_on(gateway.protect(&closed())).unwrap_err();
            assert!(matches!(error, Error::WrongRole { .. }), "{error}");
        },
    );
}

#[test]
fn a_full_disk_keeps_nothing_open() {
    run("linux::tests::policy_among_others::a_full_disk_keeps_nothing_open", || {
        let far = Far::set_up(&["tcp 198.51.100.9:80"]);
        sh("mkdir /run/state; mount -t tmpfs -o size=16k tmpfs /run/state");
        block_on(async {
            let mut host = host().await;
            sh("head -c 1M /dev/zero > /run/state/full || true");
            let report = host.protect(&closed()).await.unwrap();
            assert!(report.warnings[0].contains("netcfg-policy.json"), "{report}");
            assert!(far.open(&["tcp 198.51.100.9:80"]).is_empty());
            host.unprotect().await.unwrap();
            assert_eq!(far.open(&["tcp 198.51.100.9:80"]).len(), 1);
        });
    });
}

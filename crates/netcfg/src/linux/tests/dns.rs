//! What happens to the host's resolver file, and who is told of it.

use std::{fs, time::Duration};

use tokio::time::timeout;

use super::{
    client::{UPLINK, wanted},
    faults::block_on,
    sandbox::{assert_same, run, sh, snapshot, works},
};
use crate::{ClientNetwork, Host, Role, Wanted, linux::dns::watch::ResolverWatch};

const PATH: &str = "/etc/resolv.conf";

async fn host() -> Host {
    fs::create_dir_all("/run/state").unwrap();
    Host::open("/run/state".as_ref(), Role::Client).await.unwrap()
}

async fn apply(host: &mut Host, server: &str) {
    let wanted = ClientNetwork { dns: vec![server.parse().unwrap()], ..wanted() };
    let report = host.apply(&Wanted::Client(wanted)).await.unwrap();
    assert_eq!(report.warnings, Vec::<String>::new());
    let text = fs::read_to_string(PATH).unwrap();
    assert!(text.contains(&format!("\nnameserver {server}\n")), "{text}");
}

fn prepare() {
    sh(&format!("ip tuntap add cw0 mode tun; {UPLINK}"));
}

#[test]
fn the_old_file_returns_after_the_servers_changed_in_between() {
    run("linux::tests::dns::the_old_file_returns_after_the_servers_changed_in_between", || {
        prepare();
        let before = snapshot();
        block_on(async {
            let mut host = host().await;
            apply(&mut host, "10.66.0.1").await;
            apply(&mut host, "10.66.0.7").await;
            let outside: Vec<_> =
                host.outside_resolvers().iter().map(ToString::to_string).collect();
            assert_eq!(outside, ["192.0.2.53:53"]);
            host.reset().await.unwrap();
            assert_same(&before, &snapshot(), "after two sets of servers");
        });
    });
}

#[test]
fn a_protected_file_is_replaced_stays_protected_and_returns() {
    run("linux::tests::dns::a_protected_file_is_replaced_stays_protected_and_returns", || {
        prepare();
        for protection in ["i", "a"] {
            sh(&format!("chattr +{protection} {PATH}"));
            let before = snapshot();
            let is_protected =
                || sh(&format!("lsattr {PATH}")).split(' ').next().unwrap().contains(protection);
            assert!(
                is_protected(),
                "this file system has no attributes, so this test shows nothing"
            );
            block_on(async {
                let mut host = host().await;
                apply(&mut host, "10.66.0.1").await;
                assert!(is_protected(), "another program could write it now");
                assert!(!works(&format!("echo > {PATH}")));
                apply(&mut host, "10.66.0.7").await;
                host.reset().await.unwrap();
            });
            assert_same(&before, &snapshot(), "after a protected file");
            assert!(is_protected(), "it was before");
            sh(&format!("chattr -{protection} {PATH}"));
        }
    });
}

#[test]
fn who_writes_the_file_while_connected_is_noticed_and_what_he_wrote_returns() {
    run(
        "linux::tests::dns::who_writes_the_file_while_connected_is_noticed_and_what_he_wrote_returns",
        || {
            prepare();
            block_on(async {
                let mut watch = ResolverWatch::open().unwrap();
                let mut host = host().await;
                apply(&mut host, "10.66.0.1").await;
                let notice = Duration::from_millis(500);
                assert!(timeout(notice, watch.changed()).await.is_err(), "we ourselves wrote it");
                for (by, command) in [
                    ("writing", "echo 'nameserver 192.0.2.7' > /etc/resolv.conf"),
                    (
                        "renaming",
                        "echo 'nameserver 192.0.2.7' > /etc/n; mv /etc/n /etc/resolv.conf",
                    ),
                    ("a link", "ln -sf /run/of-another /etc/resolv.conf"),
                    ("removing", "rm /etc/resolv.conf"),
                    ("writing anew", "echo 'nameserver 192.0.2.7' > /etc/resolv.conf"),
                ] {
                    sh(command);
                    timeout(Duration::from_secs(5), watch.changed()).await.expect(by);
                    apply(&mut host, "10.66.0.1").await;
                }
                host.reset().await.unwrap();
                assert_eq!(fs::read_to_string(PATH).unwrap(), "nameserver 192.0.2.7\n");
            });
        },
    );
}

#[test]
fn a_write_into_a_mounted_file_is_noticed() {
    run("linux::tests::dns::a_write_into_a_mounted_file_is_noticed", || {
        prepare();
        sh(&format!("cp {PATH} /run/r; mount --bind /run/r {PATH}"));
        block_on(async {
            let mut host = host().await;
            apply(&mut host, "10.66.0.1").await;
            let mut watch = ResolverWatch::open().unwrap();
            sh("echo 'nameserver 192.0.2.7' > /run/r");
            timeout(Duration::from_secs(5), watch.changed()).await.expect("noticed");
        });
    });
}

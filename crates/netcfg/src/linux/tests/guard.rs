//! What is noticed when somebody takes away what is ours.

use std::{fs, time::Duration};

use tokio::time::timeout;

use super::{
    client,
    faults::block_on,
    policy::connected,
    sandbox::{run, sh, works},
};
use crate::{Guard, Host, Role, Wanted};

const SOON: Duration = Duration::from_millis(500);

#[test]
fn others_are_noticed_and_repaired_and_we_ourselves_are_not() {
    run("linux::tests::guard::others_are_noticed_and_repaired_and_we_ourselves_are_not", || {
        sh(&format!("ip tuntap add cw0 mode tun; {}", client::UPLINK));
        block_on(story());
    });
}

async fn story() {
    fs::create_dir_all("/run/state").unwrap();
    let mut host = Host::open("/run/state".as_ref(), Role::Client).await.unwrap();
    let wanted = Wanted::Client(client::wanted());
    let mut guard = Guard::watch().unwrap();
    host.protect(&connected()).await.unwrap();
    host.apply(&wanted).await.unwrap();
    host.protect(&connected()).await.unwrap();
    host.apply(&wanted).await.unwrap();
    // others at their own things
    sh("nft add table inet other; nft add chain inet other c; nft add rule inet other c accept
        nft delete table inet other; ip rule add fwmark 7 table 7; ip rule del fwmark 7 table 7
        ip route add 192.0.2.0/24 via 192.168.50.1; ip route del 192.0.2.0/24");
    let noticed = timeout(SOON, guard.disturbed()).await;
    assert!(noticed.is_err(), "disturbed by ourselves, or by others at their own things");

    let table = |name: &str| works(&format!("nft list table inet {name}"));
    for (fault, repaired) in [
        ("nft flush ruleset", "nft list table inet cipherwall-policy"),
        ("nft flush ruleset", "nft list table inet cipherwall"),
        ("nft delete table inet cipherwall-policy", "nft list table inet cipherwall-policy"),
        (
            "nft flush chain inet cipherwall-policy output",
            "nft list chain inet cipherwall-policy output | grep -q reject",
        ),
        (
            "nft insert rule inet cipherwall-policy leave accept",
            "nft list chain inet cipherwall-policy leave | head -3 | grep -q lo",
        ),
        ("ip rule del pref 5183", "ip rule | grep -q ^5183"),
        ("ip -6 rule flush", "ip -6 rule | grep -q ^5183"),
        ("ip route flush table 25463", "ip route show table 25463 | grep -q 128.0.0.0/1"),
    ] {
        sh(fault);
        assert!(!works(repaired), "{fault}: it is no fault");
        timeout(SOON, guard.disturbed()).await.unwrap_or_else(|_| panic!("{fault}: not noticed"));
        host.protect(&connected()).await.unwrap();
        host.apply(&wanted).await.unwrap();
        assert!(works(repaired), "{fault}: not repaired");
        // however many there were, and whatever our repair looked like: it ends
        let mut again = 0;
        while timeout(SOON, guard.disturbed()).await.is_ok() {
            again += 1;
            host.protect(&connected()).await.unwrap();
            host.apply(&wanted).await.unwrap();
            assert!(again < 20, "{fault}: our repair looks like a fault");
        }
    }
    assert!(table("cipherwall-policy") && table("cipherwall"));
}

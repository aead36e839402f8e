//! Texts that other programs on the host wrote, and our own journal as a power cut or an editor may
//! have left it.

use std::net::IpAddr;

use cipherwall_netcfg::{GatewayNetwork, fuzz};

/// First byte: which text. The rest is it.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    if kind % 6 == 5 {
        let (changes, unreadable) = fuzz::journal(data);
        assert!(changes + unreadable <= data.split(|byte| *byte == b'\n').count());
        return;
    }
    let text = String::from_utf8_lossy(data);
    match kind % 6 {
        0 => rules_of_nft(&text),
        1 => rules_of_iptables(&text),
        2 => assert!(fuzz::resolvers(&text).iter().all(|server| server.port() == 53)),
        3 => resolver_file(&text),
        _ => {
            let _ = fuzz::has_default_route(&text);
        }
    }
}

/// Names of tables and chains are other programs' words, and go into a script: each rule stays one
/// command.
fn rules_of_nft(text: &str) {
    for command in fuzz::foreign_rules(text, &gateway()).unwrap_or_default() {
        let (before, comment) = command.split_once(" comment \"cipherwall: ").expect("a comment");
        assert!(comment.ends_with("\"\n"));
        let words: Vec<&str> = before.split(' ').collect();
        assert_eq!(words[..2], ["insert", "rule"]);
        assert!(["ip", "ip6", "inet"].contains(&words[2]));
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./\\".contains(c);
        assert!(words[3..5].iter().all(|name| !name.is_empty() && name.chars().all(plain)));
        assert!(!before.contains(['\n', ';', '{', '}', '#']), "{command:?}");
    }
}

/// What is asked for is what helps.
fn rules_of_iptables(text: &str) {
    let missing = fuzz::legacy_rules(&gateway(), text);
    let added: String = missing.iter().map(|rule| format!("\n-A {rule}")).collect();
    let still = fuzz::legacy_rules(&gateway(), &format!("{text}{added}"));
    assert!(still.is_empty(), "{still:?}");
}

/// Whatever the old file said, the new one names our server alone.
fn resolver_file(old: &str) {
    let ours: IpAddr = [10, 8, 0, 1].into();
    assert_eq!(fuzz::replaced_resolvers(&[ours], old), [ours.to_string()]);
}

fn gateway() -> GatewayNetwork {
    GatewayNetwork {
        interface: "cw0".into(),
        addresses: vec!["10.66.0.1/16".parse().expect("a network")],
        mtu: 1_420,
        networks: vec!["10.66.0.0/16".parse().expect("a network")],
        uplink: None,
        allow_private: Vec::new(),
        listen_tcp: vec![8443],
        listen_udp: vec![1194..=1194],
        inside_tcp: Vec::new(),
        connections_each: None,
        ipv6_uplink: true,
    }
}

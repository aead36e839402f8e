//! A peer that knows only the format, by another hand in another language.

use anyhow::{Context, Result};
use e2e::{HostState, Lab, Page, Ping, Process, address};

use crate::{CLIENT, PATIENCE, Pair, assert_flows, end, path};

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/static_mode/peer.py");
/// The distribution's, whose packages the tests install.
const PYTHON: &str = "/usr/bin/python3";
/// Python is not fast.
const SIZE: u64 = 2 << 20;

/// What our gateway does for its client, for theirs.
const NAT: &str = "table ip peer {\n chain out {\n type nat hook postrouting priority srcnat;\n \
                   oifname \"eth0\" ip saddr 10.8.0.0/24 masquerade\n }\n }\n";

#[test]
fn our_client_with_a_gateway_of_others() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    lab.gateway.sysctl(&["net/ipv4/ip_forward=1"])?;
    lab.gateway.nft(NAT)?;
    let key = path(&pair.key_path).to_owned();
    let words = [PYTHON, PEER, &key, "theirs", "10.8.0.1/24", "listen", "1194"];
    let mut peer = lab.gateway.spawn("peer", &words)?;
    peer.wait_for_line("ready", PATIENCE)?;
    let before = HostState::of(&lab.clients[0])?;
    pair.start_client(&["--dns", &address::DNS.to_string()])?;

    assert_flows(&pair.client)?;
    assert_eq!(
        lab.visitor_address(&pair.client.node, address::WEB.into())?,
        address::GATEWAY.to_string()
    );
    Page::open(&pair.client.node, "http://www.lab.test/").context("DNS through their gateway")?;
    lab.transfer(&pair.client.node, SIZE)?;
    end(pair.client()?)?;
    before.expect_unchanged(&lab.clients[0], "after static mode")
}

#[test]
fn our_gateway_with_a_client_of_others() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    pair.start_gateway(&[])?;
    let _peer = start_their_client(&lab, &pair)?;
    let client = &lab.clients[0];
    assert_eq!(Ping::send(client, address::INNER_GATEWAY.into(), 20)?.received, 20);
    // only what is for the web host goes into their tunnel
    client.ip(&["route", "add", &address::WEB.to_string(), "dev", "theirs"])?;
    assert_flows(&pair.client)?;
    assert_eq!(lab.visitor_address(client, address::WEB.into())?, address::GATEWAY.to_string());
    lab.transfer(&pair.client.node, SIZE)
}

/// Their client on the first client's machine, with the pair's key.
pub(crate) fn start_their_client(lab: &Lab, pair: &Pair) -> Result<Process> {
    let inside = format!("{CLIENT}/24");
    let gateway = address::GATEWAY.to_string();
    let words = [PYTHON, PEER, path(&pair.key_path), "theirs", &inside, &gateway, "1194"];
    let mut peer = lab.clients[0].spawn("peer", &words)?;
    peer.wait_for_line("ready", PATIENCE)?;
    Ok(peer)
}

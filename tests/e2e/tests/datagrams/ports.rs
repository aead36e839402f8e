//! A range of ports instead of one (A22).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use e2e::{ClientNode, GatewayNode, Lab, Options, Page, Programs, Transport};

use crate::FILE;

#[test]
fn sessions_get_ports_of_the_range_and_share_them_when_there_are_more() -> Result<()> {
    let lab = Lab::with(Options { clients: 3, ..Options::default() })?;
    let programs = Programs::find()?.over(Transport::Udp);
    let edits = [("  ports: off", "  ports: 9000-9001")];
    let gateway = GatewayNode::start_edited(&lab, &programs, &edits)?;
    let sent = lab.make_download("file", 8 << 20)?;
    let clients = (0..3)
        .map(|index| {
            let user = format!("user{index}");
            ClientNode::connect_new(&lab, index, &programs, &gateway, &user)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut ports = BTreeSet::new();
    for client in &clients {
        let (_, received) = Page::download(&client.node, FILE)?;
        assert_eq!(received, sent, "SHA-256 of a download");
        ports.extend(client.status()?.gateway.as_ref().map(SocketAddr::port));
    }
    assert_eq!(ports, BTreeSet::from([9000, 9001]));
    for session in gateway.sessions()?.as_array().context("sessions")? {
        assert_eq!(session["transport"], "udp");
    }
    Ok(())
}

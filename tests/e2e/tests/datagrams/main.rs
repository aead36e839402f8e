//! Sessions whose packets go in datagrams: what they carry, and what the ways do to them.

mod blocked;
mod hostile;
mod paths;
mod ports;
mod relay;

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{
    ClientNode, GatewayNode, Lab, Ping, Programs, Transport, address, figure, full_or_short,
};

/// By address: names need not be looked up while ways are broken.
const FILE: &str = "http://198.51.100.80/file";
const CIPHERS: [&str; 3] = ["chacha20-poly1305", "aes-256-gcm", "aes-256-cfb-hmac-sha256"];
/// How long going over to datagrams may take.
const SOON: Duration = Duration::from_secs(10);

/// A gateway with these changes of its `server.yaml`, and a client whose packets go in datagrams.
fn connected(lab: &Lab, edits: &[(&str, &str)]) -> Result<(GatewayNode, ClientNode)> {
    let programs = Programs::find()?.over(Transport::Udp);
    let gateway = GatewayNode::start_edited(lab, &programs, edits)?;
    let client = ClientNode::connect_new(lab, 0, &programs, &gateway, "alice")?;
    Ok((gateway, client))
}

/// Bytes between clients and gateway, counted by the carrier.
struct Outside<'a>(&'a Lab);

impl Outside<'_> {
    /// From now on.
    fn count(lab: &Lab) -> Result<Outside<'_>> {
        lab.carrier.nft(
            "table inet count {\n counter by_tcp { }\n counter by_udp { }\n chain c {\n \
             type filter hook forward priority -20;\n \
             tcp dport 8443 counter name by_tcp\n tcp sport 8443 counter name by_tcp\n \
             udp dport { 1194, 9000-9099 } counter name by_udp\n \
             udp sport { 1194, 9000-9099 } counter name by_udp\n }\n }\n",
        )?;
        Ok(Outside(lab))
    }

    fn bytes(&self, protocol: &str) -> Result<u64> {
        let text = self.0.carrier.ok(&[
            "nft",
            "-j",
            "list",
            "counter",
            "inet",
            "count",
            &format!("by_{protocol}"),
        ])?;
        let counters: serde_json::Value = serde_json::from_str(&text)?;
        let items = counters["nftables"].as_array().context("no list")?;
        items.iter().find_map(|item| item["counter"]["bytes"].as_u64()).context("no counter")
    }
}

#[test]
fn files_and_pings_go_in_datagrams_with_each_cipher() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, mut client) = connected(&lab, &[])?;
    let outside = Outside::count(&lab)?;
    let size = full_or_short(256, 24) << 20;
    for cipher in CIPHERS {
        client.disconnect()?;
        client.connect(&["--cipher", cipher])?;
        let (tcp, udp) = (outside.bytes("tcp")?, outside.bytes("udp")?);
        lab.transfer(&client.node, size).context(cipher)?;
        for target in [address::INNER_GATEWAY.into(), address::WEB.into(), address::WEB_V6.into()] {
            let answers = Ping::send(&client.node, target, 20)?.received;
            assert_eq!(answers, 20, "echoes of {target} with {cipher}");
        }
        let (tcp, udp) = (outside.bytes("tcp")? - tcp, outside.bytes("udp")? - udp);
        assert!(udp > 2 * size && tcp < size / 20, "{cipher}: {udp} bytes by UDP, {tcp} by TCP");
        let status = client.status()?;
        assert_eq!(status.cipher.as_deref(), Some(cipher));
        assert_eq!(status.transport.as_deref(), Some("udp"));
        assert_eq!(status.gateway.map(|gateway| gateway.port()), Some(1194));
        assert!(status.rx_bytes > size && status.tx_bytes > size, "counters: {status:?}");
        assert_eq!(status.notice, None);
        let session = gateway.session()?;
        assert_eq!((&session["transport"], &session["cipher"]), (&"udp".into(), &cipher.into()));
        assert!(session["rx_bytes"].as_u64() > Some(size), "{session}");
    }
    Ok(())
}

#[test]
fn without_being_asked_for_there_are_none() -> Result<()> {
    let lab = Lab::new()?;
    let (_gateway, mut client) = connected(&lab, &[])?;
    for options in [&["--transport", "auto"][..], &["--transport", "tls"]] {
        client.disconnect()?;
        let outside = Outside::count(&lab)?;
        client.connect(options)?;
        lab.transfer(&client.node, 1 << 20)?;
        assert_eq!(client.status()?.transport.as_deref(), Some("tls"), "{options:?}");
        assert_eq!(outside.bytes("udp")?, 0, "{options:?}");
        lab.carrier.ok(&["nft", "delete", "table", "inet", "count"])?;
    }
    Ok(())
}

#[test]
fn the_cipher_for_datagrams_asks_for_them_and_cannot_be_had_without() -> Result<()> {
    let lab = Lab::new()?;
    let (_gateway, mut client) = connected(&lab, &[])?;
    client.disconnect()?;
    let cipher = ["--cipher", "aes-256-cfb-hmac-sha256"];
    let refused =
        client.run(&[&["connect", "--foreground", "--transport", "tls"], &cipher[..]].concat())?;
    assert_eq!(refused.code(), 2, "{refused}");
    assert!(refused.stderr.contains("datagrams only"), "{refused}");
    client.connect(&[&["--transport", "auto"], &cipher[..]].concat())?;
    let status = client.wait_for_transport(Transport::Udp, SOON)?;
    assert_eq!(status.cipher.as_deref(), Some(cipher[1]));
    Ok(())
}

#[test]
fn a_gateway_without_datagrams_is_told_of_once() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_edited(&lab, &programs, &[("  port: 1194", "  port: off")])?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    client.connect(&["--transport", "udp"])?;
    lab.transfer(&client.node, 1 << 20)?;
    let status = client.status()?;
    assert_eq!(status.transport.as_deref(), Some("tls"));
    let notice = status.notice.context("the user is told")?;
    assert!(notice.contains("no datagrams"), "{notice}");
    let said = client.process()?.stderr();
    assert_eq!(said.matches("no datagrams").count(), 1, "{said}");
    Ok(())
}

#[test]
fn keys_change_under_load_and_nothing_is_lost() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[("interval: 4h", "interval: 200ms")])?;
    let outside = Outside::count(&lab)?;
    let before = gateway.session()?;
    lab.transfer(&client.node, full_or_short(512, 48) << 20)?;
    let count = u16::try_from(full_or_short(2_000, 200))?;
    let pinged = Ping::send(&client.node, address::WEB.into(), count)?;
    assert_eq!(pinged.received, usize::from(count), "pings while keys change every 200 ms");
    let after = gateway.session()?;
    let rekeys = after["rekeys"].as_u64().context("rekeys")?;
    figure("rekeys", rekeys as f64, "times");
    assert!(rekeys >= 10, "{rekeys} rekeys");
    assert_eq!(before["since"], after["since"], "one connection carried everything");
    assert_eq!(after["transport"], "udp");
    assert!(outside.bytes("tcp")? < 8 << 20, "the stream had to help out");
    Ok(())
}

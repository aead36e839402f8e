//! UDP that does not get through, or not any more: the stream carries the traffic meanwhile.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{
    ClientNode, Download, GatewayNode, Lab, Page, Programs, Transport, address, figure, until,
};

use crate::{FILE, SOON, connected};

const ONE_WAY: Duration = Duration::from_secs(15);
/// How soon a download has to go on another way.
const WITHIN: Duration = Duration::from_secs(4);

/// The web host sends this fast, so that a download is under way for some seconds.
pub(crate) fn limit_rate(lab: &Lab, rate: &str) -> Result<()> {
    let words = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate];
    lab.web.ok(&[&words[..], &["burst", "64kb", "latency", "50ms"]].concat()).map(drop)
}

/// Waits until the gateway sends by this transport.
fn wait_for_gateway(gateway: &GatewayNode, transport: &str) -> Result<()> {
    until(&format!("the gateway to send over {transport}"), SOON, || {
        Ok((gateway.session()?["transport"] == transport).then_some(()))
    })
}

#[test]
fn a_download_goes_on_over_the_stream_and_returns_to_datagrams() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, mut client) = connected(&lab, &[])?;
    let before = gateway.session()?;
    let sent = lab.make_download("file", 128 << 20)?;
    limit_rate(&lab, "100mbit")?;
    let download = Download::start(&client.node, address::WEB, "file")?;
    sleep(Duration::from_millis(1_500));

    let blocked = lab.block_datagrams()?;
    let took = until("the download to go on", WITHIN, || {
        Ok(download.flow_after(blocked).filter(|_| blocked.elapsed() > Duration::from_secs(2)))
    })?;
    figure("the download went on after", took.as_secs_f64() * 1e3, "ms");
    let status = client.wait_for_transport(Transport::Tls, WITHIN)?;
    assert_ne!(status.cipher, None);
    wait_for_gateway(&gateway, "tls")?;
    let notice = until("the user to be told", SOON, || Ok(client.status()?.notice))?;
    assert!(notice.contains("do not get through"), "{notice}");

    lab.let_datagrams_pass()?;
    let start = Instant::now();
    let status = client.wait_for_transport(Transport::Udp, Duration::from_secs(20))?;
    figure("datagrams again after", start.elapsed().as_secs_f64(), "s");
    assert_eq!(status.notice, None);
    wait_for_gateway(&gateway, "udp")?;
    assert_eq!(download.finish(Duration::from_secs(60))?, sent, "SHA-256 of the download");
    assert_eq!(gateway.session()?["since"], before["since"], "one connection all the time");
    assert!(client.process()?.is_running());
    Ok(())
}

#[test]
fn blocked_from_the_start_it_works_all_the_same_and_the_user_is_told() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    lab.block_datagrams()?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    client.connect(&["--transport", "udp"])?;
    lab.transfer(&client.node, 4 << 20)?;
    let notice = until("the user to be told", SOON, || Ok(client.status()?.notice))?;
    assert!(notice.contains("do not get through"), "{notice}");
    let text = client.run(&["status"])?.ok()?;
    assert!(text.contains("do not get through"), "{text}");
    assert_eq!(client.status()?.transport.as_deref(), Some("tls"));
    let said = client.process()?.stderr();
    assert_eq!(said.matches("do not get through").count(), 1, "{said}");

    lab.let_datagrams_pass()?;
    let status = client.wait_for_transport(Transport::Udp, Duration::from_secs(20))?;
    assert_eq!(status.notice, None);
    lab.transfer(&client.node, 4 << 20)
}

/// Only one way is blocked: what the other end does not get it cannot answer. The gateway takes longer
/// to notice, since it hears from the client until that tries less often.
#[test]
fn one_way_alone_is_not_used() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    for way in ["sport", "dport"] {
        lab.carrier.nft(&format!(
            "table inet block {{\n chain one {{\n type filter hook forward priority -10;\n \
             udp {way} 1194 drop\n }}\n }}\n"
        ))?;
        let start = Instant::now();
        until("a page in spite of it", ONE_WAY, || {
            client.node.ok(&["curl", "-s", "-m", "1", "http://198.51.100.80/"]).map(Some)
        })
        .with_context(|| format!("{way} is blocked"))?;
        figure(
            &format!("a page while {way} is blocked, after"),
            start.elapsed().as_secs_f64(),
            "s",
        );
        lab.transfer(&client.node, 8 << 20).with_context(|| format!("{way} is blocked"))?;
        lab.let_datagrams_pass()?;
        client.wait_for_transport(Transport::Udp, Duration::from_secs(20))?;
        wait_for_gateway(&gateway, "udp")?;
    }
    let (_, received) = Page::download(&client.node, FILE)?;
    assert!(!received.is_empty());
    Ok(())
}

/// The connection is gone, the datagrams are not: the session goes on with another one of each.
#[test]
fn a_new_connection_has_datagrams_again() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    let inner = client.inner_address()?;
    let sent = lab.make_download("file", 64 << 20)?;
    limit_rate(&lab, "100mbit")?;
    let download = Download::start(&client.node, address::WEB, "file")?;
    sleep(Duration::from_secs(1));
    lab.carrier.ok(&["conntrack", "-F"])?;
    lab.randomise_nat()?;
    assert_eq!(download.finish(Duration::from_secs(60))?, sent, "SHA-256 of the download");
    client.wait_for_transport(Transport::Udp, SOON)?;
    wait_for_gateway(&gateway, "udp")?;
    assert_eq!(client.inner_address()?, inner);
    lab.transfer(&client.node, 4 << 20)
}

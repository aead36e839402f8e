//! The laboratory itself, on the direct path without any VPN. If these fail, look here first.

use std::net::IpAddr;

use anyhow::Result;
use e2e::{Capture, HostState, Lab, Options, Page, Ping, Sshd, Stream, address};

#[test]
fn pages_files_and_uploads_pass_on_the_direct_path() -> Result<()> {
    let lab = Lab::new()?;
    let client = &lab.clients[0];

    assert_eq!(lab.visitor_address(client, address::WEB.into())?, address::CARRIER.to_string());
    let visitor_v6 = lab.visitor_address(client, address::WEB_V6.into())?;
    assert_eq!(visitor_v6, address::client_v6(0).to_string());
    let page = Page::open(client, "http://www.lab.test/")?;
    assert!(page.body.contains("laboratory"), "{page:?}");

    let sent = lab.make_download("file", 20_000_000)?;
    let (_, received) = Page::download(client, "http://www.lab.test/file")?;
    assert_eq!(sent, received, "the downloaded file differs");
    let (_, sent) = Page::upload(client, "http://www.lab.test/upload/file", 20_000_000)?;
    let path = lab.web_root_dir().join("upload/file");
    let stored = lab.web.ok(&["sha256sum", &path.display().to_string()])?;
    assert!(stored.starts_with(&sent), "the uploaded file differs");
    Ok(())
}

#[test]
fn dns_ping_udp_and_ssh_work_on_the_direct_path() -> Result<()> {
    let lab = Lab::new()?;
    let client = &lab.clients[0];

    let long = client.ok(&["dig", "+short", "long.lab.test", "TXT"])?;
    assert_eq!(long.lines().count(), 8, "TXT by TCP: {long}");
    let known = client.ok(&["getent", "ahosts", "www.lab.test"])?;
    assert!(known.contains(&address::WEB_V6.to_string()), "{known}");
    for target in [IpAddr::from(address::WEB), address::WEB_V6.into(), address::GATEWAY.into()] {
        assert_eq!(Ping::send(client, target, 5)?.received, 5, "ping {target}");
    }
    assert_eq!(Ping::send(&lab.gateway, address::PRIVATE.into(), 2)?.received, 2);
    assert_eq!(Ping::send(&lab.gateway, address::METADATA.into(), 2)?.received, 2);

    let _iperf3 = lab.start_iperf3()?;
    let (rate, lost) = Stream::UdpDown(20_000_000).run(client, address::WEB.into(), 1)?;
    assert!(rate > 15e6 && lost < 0.05, "{rate} bit/s, {lost} lost");
    Sshd::start(&lab.gateway)?.log_in(client, address::GATEWAY)
}

#[test]
fn a_capture_shows_what_crosses_the_link() -> Result<()> {
    let lab = Lab::new()?;
    let capture = Capture::start(&lab.routers[0], "lan0")?;
    capture.expect_probe(&lab.clients[0])?;
    Page::open(&lab.clients[0], &format!("http://[{}]/", address::WEB_V6))?;
    Ping::send(&lab.clients[0], address::WEB.into(), 1)?;
    capture.wait_for("the page", |flow| flow.is_with("tcp", address::WEB_V6.into(), 80))?;
    capture.wait_for("the echo", |flow| flow.protocol == "icmp" && flow.port == 8)?;
    let flows = capture.finish()?;
    assert!(flows.keys().all(|flow| flow.protocol != "unknown"), "{flows:?}");
    Ok(())
}

#[test]
fn changes_of_a_host_show_and_an_idle_host_stays_equal() -> Result<()> {
    let lab = Lab::new()?;
    let client = &lab.clients[0];
    let before = HostState::of(client)?;
    Page::open(client, "http://www.lab.test/")?;
    before.expect_unchanged(client, "after a page")?;

    client.ip(&["route", "add", "0.0.0.0/1", "dev", "eth0"])?;
    client.ip(&["rule", "add", "fwmark", "7", "lookup", "7"])?;
    client.nft("table inet some {\n chain c {\n }\n }\n")?;
    client.sysctl(&["net/ipv4/conf/eth0/rp_filter=2"])?;
    client.ok(&[
        "sh",
        "-c",
        "echo nameserver 9.9.9.9 > /etc/new && mv /etc/new /etc/resolv.conf",
    ])?;
    let difference = before.difference(&HostState::of(client)?);
    for sign in ["+ 0.0.0.0/1", "fwmark", "+ table inet some", "+ nameserver", "rp_filter:2"] {
        assert!(difference.contains(sign), "no {sign:?} in\n{difference}");
    }
    Ok(())
}

#[test]
fn several_clients_share_a_router_and_the_gateway_may_lack_ipv6() -> Result<()> {
    let options =
        Options { clients: 3, shared_router: true, gateway_ipv6: false, ..Default::default() };
    let lab = Lab::with(options)?;
    assert_eq!(lab.routers.len(), 1);
    for client in &lab.clients {
        assert_eq!(Ping::send(client, address::GATEWAY.into(), 2)?.received, 2);
        assert_eq!(Ping::send(client, address::WEB_V6.into(), 2)?.received, 2);
    }
    assert_eq!(Ping::send(&lab.gateway, address::WEB_V6.into(), 1)?.received, 0);
    Ok(())
}

#[test]
fn nothing_is_left_of_a_laboratory() -> Result<()> {
    let lab = Lab::new()?;
    let id = lab.id().to_owned();
    let dir = lab.clients[0].dir().to_owned();
    assert!(std::path::Path::new("/run/netns").join(lab.gateway.namespace()).exists());
    drop(lab);
    assert!(!dir.exists(), "{} is still there", dir.display());
    let spaces = std::fs::read_dir("/run/netns")?.flatten();
    let left: Vec<_> = spaces.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(&id)), "{left:?}");
    Ok(())
}

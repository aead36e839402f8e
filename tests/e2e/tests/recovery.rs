//! Crashes of either side: the client comes back by itself, and no host is left changed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{ClientNode, GatewayNode, HostState, Lab, Page, Programs, address, figure, until};

/// When a program that is starting or stopping is killed.
const MOMENTS_MS: [u64; 12] = [2, 5, 10, 15, 20, 30, 45, 60, 80, 120, 200, 500];

/// How soon a client has to be back after the gateway is.
const BACK: Duration = Duration::from_secs(25);

/// How soon a silent loss has to be mended: five times the 3 s that it should take.
const REPLACED: Duration = Duration::from_secs(15);

/// The carrier loses everything in silence.
const CUT: &str = "table inet cut {\n chain everything {\n type filter hook forward priority -10;\n drop\n }\n }\n";

e2e::over_each_transport! {
    the_client_is_back_by_itself_with_the_same_address_after_a_gateway_crash,
    a_transfer_outlives_a_short_loss_of_the_path,
    a_connection_that_is_dropped_in_silence_is_replaced_within_seconds,
    a_client_killed_while_connected_or_disconnecting_leaves_nothing_after_repair,
    disconnecting_and_stopping_leave_no_trace,
}

fn the_client_is_back_by_itself_with_the_same_address_after_a_gateway_crash(
    programs: &Programs,
) -> Result<()> {
    let lab = Lab::new()?;
    let mut gateway = GatewayNode::start_new(&lab, programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    let address = client.inner_address()?;
    for crash in [true, false] {
        if crash {
            gateway.kill9()?;
        } else {
            gateway.stop()?;
        }
        client.wait_for_state("reconnecting", Duration::from_secs(35))?;
        gateway.start().context("starting the gateway again")?;
        client.wait_for_state("connected", BACK)?;
        assert_eq!(client.inner_address()?, address, "crash: {crash}");
        let seen = until("a page through the tunnel", Duration::from_secs(10), || {
            lab.visitor_address(&client.node, address::WEB.into()).map(Some)
        })?;
        assert_eq!(seen, address::GATEWAY.to_string());
        assert!(client.process()?.is_running(), "the client was not restarted");
    }
    Ok(())
}

fn a_transfer_outlives_a_short_loss_of_the_path(programs: &Programs) -> Result<()> {
    let lab = Lab::new()?;
    let gateway = GatewayNode::start_new(&lab, programs)?;
    let client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    let address = client.inner_address()?;
    let sent = lab.make_download("file", 24 * 1024 * 1024)?;
    // slow enough to be under way when the path breaks: 2 s
    let limit = ["root", "tbf", "rate", "100mbit", "burst", "64kb", "latency", "50ms"];
    lab.web.ok(&[&["tc", "qdisc", "add", "dev", "eth0"], &limit[..]].concat())?;
    let (_, received) = std::thread::scope(|scope| {
        let transfer = scope.spawn(|| Page::download(&client.node, "http://www.lab.test/file"));
        std::thread::sleep(Duration::from_millis(500));
        lab.carrier.nft(CUT)?;
        std::thread::sleep(Duration::from_secs(4));
        lab.carrier.ok(&["nft", "delete", "table", "inet", "cut"])?;
        transfer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_eq!(received, sent, "SHA-256 of the file that was under way");
    assert_eq!(client.inner_address()?, address);
    Ok(())
}

fn a_connection_that_is_dropped_in_silence_is_replaced_within_seconds(
    programs: &Programs,
) -> Result<()> {
    let lab = Lab::new()?;
    let gateway = GatewayNode::start_new(&lab, programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    let address = client.inner_address()?;
    let sessions = gateway.run(&["session", "list", "--json"])?.ok()?;
    let sessions: serde_json::Value = serde_json::from_str(&sessions)?;
    let peer = sessions[0]["peer"].as_str().context("where the client comes from")?;
    let port = peer.rsplit(':').next().unwrap_or_default();
    // a NAT has forgotten this connection and tells nobody; others pass
    lab.internet.nft(&format!(
        "table inet cut {{\n chain everything {{\n type filter hook forward priority -10;\n \
         tcp sport {port} drop\n tcp dport {port} drop\n }}\n }}\n"
    ))?;
    let started = Instant::now();
    until("a page over another connection", REPLACED, || {
        // traffic that goes unanswered is what gets the loss noticed
        let one = ["curl", "--silent", "--max-time", "1", "http://www.lab.test/"];
        Ok((client.node.run(&one)?.code() == 0).then_some(()))
    })?;
    figure("back after a silent loss", started.elapsed().as_secs_f64(), "s");
    assert_eq!(client.inner_address()?, address);
    assert!(client.process()?.is_running(), "the client was not restarted");
    Ok(())
}

#[test]
fn a_tunnel_device_that_somebody_removes_ends_the_client_and_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let before = HostState::of(&lab.clients[0])?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    client.node.ip(&["link", "delete", &client.interface()?])?;
    let ended = client.process()?.wait(Duration::from_secs(10))?;
    assert_eq!(ended.code(), Some(1));
    let said = client.process()?.stderr();
    assert!(said.contains("network device is gone"), "{said}");
    before.expect_unchanged(&client.node, "after the device was removed")
}

#[test]
fn a_client_killed_while_connecting_leaves_nothing_after_repair() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let before = HostState::of(&lab.clients[0])?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    before.expect_unchanged(&client.node, "after import")?;
    for moment in MOMENTS_MS {
        client.start_connecting(&[])?;
        std::thread::sleep(Duration::from_millis(moment));
        client.kill9()?;
        client.run(&["repair"])?.ok()?;
        let when = format!("after kill -9 {moment} ms into connect, and repair");
        before.expect_unchanged(&client.node, &when)?;
    }
    client.connect(&[]).context("and after all that it connects").map(drop)
}

fn a_client_killed_while_connected_or_disconnecting_leaves_nothing_after_repair(
    programs: &Programs,
) -> Result<()> {
    let lab = Lab::new()?;
    let gateway = GatewayNode::start_new(&lab, programs)?;
    let before = HostState::of(&lab.clients[0])?;
    let mut client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    client.kill9()?;
    client.run(&["repair"])?.ok()?;
    before.expect_unchanged(&client.node, "after kill -9 while connected, and repair")?;
    Page::open(&client.node, "http://www.lab.test/").context("direct path after repair")?;
    client.run(&["repair"])?.ok().context("repair with nothing to repair")?;

    for moment in MOMENTS_MS {
        client.connect(&[])?;
        client.process()?.start_terminating();
        std::thread::sleep(Duration::from_millis(moment));
        client.kill9()?;
        client.run(&["repair"])?.ok()?;
        let when = format!("after kill -9 {moment} ms into disconnecting, and repair");
        before.expect_unchanged(&client.node, &when)?;
    }
    Ok(())
}

#[test]
fn the_next_connect_after_a_crash_repairs_by_itself() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let before = HostState::of(&lab.clients[0])?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    for _ in 0..3 {
        client.kill9()?;
        client.connect(&[])?;
        let seen = lab.visitor_address(&client.node, address::WEB.into())?;
        assert_eq!(seen, address::GATEWAY.to_string());
    }
    client.disconnect()?;
    before.expect_unchanged(&client.node, "after three crashes, connect and disconnect")
}

#[test]
fn a_gateway_killed_at_any_time_leaves_nothing_after_repair() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let before = HostState::of(&lab.gateway)?;
    let mut gateway = GatewayNode::new(&lab, &programs);
    gateway.init(&address::GATEWAY.to_string())?;
    before.expect_unchanged(&gateway.node, "after init")?;
    for moment in MOMENTS_MS {
        gateway.start_without_waiting()?;
        std::thread::sleep(Duration::from_millis(moment));
        gateway.kill9()?;
        gateway.run(&["repair"])?.ok()?;
        let when = format!("after kill -9 {moment} ms into the start, and repair");
        before.expect_unchanged(&gateway.node, &when)?;
    }
    gateway.start()?;
    gateway.kill9()?;
    gateway.run(&["repair"])?.ok()?;
    before.expect_unchanged(&gateway.node, "after kill -9 while running, and repair")?;
    for moment in MOMENTS_MS {
        gateway.start()?;
        gateway.process()?.start_terminating();
        std::thread::sleep(Duration::from_millis(moment));
        gateway.kill9()?;
        gateway.run(&["repair"])?.ok()?;
        let when = format!("after kill -9 {moment} ms into the stop, and repair");
        before.expect_unchanged(&gateway.node, &when)?;
    }
    Ok(())
}

#[test]
fn the_next_start_of_a_gateway_after_a_crash_repairs_by_itself() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let before = HostState::of(&lab.gateway)?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    for _ in 0..3 {
        gateway.kill9()?;
        gateway.start()?;
    }
    gateway.stop()?;
    before.expect_unchanged(&gateway.node, "after three crashes, start and stop")
}

fn disconnecting_and_stopping_leave_no_trace(programs: &Programs) -> Result<()> {
    let lab = Lab::new()?;
    let before_client = HostState::of(&lab.clients[0])?;
    let before_gateway = HostState::of(&lab.gateway)?;
    let mut gateway = GatewayNode::start_new(&lab, programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    Page::open(&client.node, "http://www.lab.test/")?;
    client.disconnect()?;
    before_client.expect_unchanged(&client.node, "after disconnect")?;
    client.connect(&[])?;
    let status = client.process()?.terminate(Duration::from_secs(10))?;
    assert!(status.success(), "SIGTERM ends a connected client with {status}");
    before_client.expect_unchanged(&client.node, "after SIGTERM")?;
    gateway.stop()?;
    before_gateway.expect_unchanged(&gateway.node, "after the gateway was stopped")
}

//! `cipherwall speedtest`: the tunnel measured by its own means, and nobody else let in.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{ClientNode, GatewayNode, Lab, Link, Node, Options, Programs, address, figure};
use serde_json::Value;

const FAILED: i32 = 1;
const NOT_REACHABLE: i32 = 4;
const PORT: u16 = 8474;
const JSON: [&str; 4] = ["speedtest", "--json", "--seconds", "2"];

/// A figure of a report.
fn number(report: &Value, pointer: &str) -> Result<f64> {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.with_context(|| format!("no {pointer} in {report}"))
}

fn measure(client: &ClientNode) -> Result<Value> {
    let text = client.run(&JSON)?.ok()?;
    assert_eq!(text.lines().count(), 1, "one line of JSON: {text}");
    serde_json::from_str(&text).with_context(|| format!("speedtest printed {text:?}"))
}

/// Nothing here is slower than this, even if the machine is busy.
fn assert_plausible(report: &Value) -> Result<()> {
    assert_eq!(report["gateway"], format!("{}:{PORT}", address::INNER_GATEWAY), "{report}");
    assert_eq!(report["transport"], "tls", "{report}");
    for latency in ["/idle", "/download/latency", "/upload/latency"] {
        let figure = |name| number(report, &format!("{latency}/{name}"));
        let (min, median, max) = (figure("min_ms")?, figure("median_ms")?, figure("max_ms")?);
        assert!(0.0 < min && min <= median && median <= max, "{latency} in {report}");
        assert!(median < 1000.0 && figure("samples")? >= 2.0, "{latency} in {report}");
    }
    for direction in ["/download", "/upload"] {
        let rate = number(report, &format!("{direction}/bits_per_s"))?;
        assert!((1e7..1e11).contains(&rate), "{direction} in {report}");
        figure(&format!("speedtest{direction}"), rate / 1e6, "Mbit/s");
    }
    Ok(())
}

/// Whether a TCP connection comes about.
fn reaches(node: &Node, host: IpAddr) -> Result<bool> {
    let script = format!("exec 3<>/dev/tcp/{host}/{PORT}");
    Ok(node.run(&["timeout", "1", "bash", "-c", &script])?.status.success())
}

/// Opens the port, says `first` and waits for the end of the connection.
fn time_until_cut_off(client: &ClientNode, first: &str) -> Result<Duration> {
    let host = address::INNER_GATEWAY;
    let script =
        format!("exec 3<>/dev/tcp/{host}/{PORT}; printf '{first}' >&3; cat <&3 >/dev/null");
    let begin = Instant::now();
    let ran = client.node.run(&["timeout", "15", "bash", "-c", &script])?;
    assert_ne!(ran.code(), 124, "it is still open: {ran}");
    Ok(begin.elapsed())
}

#[test]
fn a_speed_test_measures_the_tunnel_for_several_clients_at_once() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    let ran = client.run(&["speedtest"])?;
    assert_eq!(ran.code(), NOT_REACHABLE, "{ran}");
    assert!(
        ran.stderr.contains("not connected") && ran.stderr.contains("cipherwall connect"),
        "{ran}"
    );

    client.connect(&[])?;
    let other = ClientNode::connect_new(&lab, 1, &programs, &gateway, "bob")?;
    let before = client.status()?;
    assert_plausible(&measure(&client)?).context("alone")?;
    let after = client.status()?;
    assert!(after.rx_bytes - before.rx_bytes > 1 << 20, "through the tunnel: {after:?}");
    assert!(after.tx_bytes - before.tx_bytes > 1 << 20, "through the tunnel: {after:?}");

    let reports = std::thread::scope(|scope| {
        let clients = [&client, &other].map(|client| scope.spawn(|| measure(client)));
        clients.map(|thread| thread.join().unwrap_or_else(|it| std::panic::resume_unwind(it)))
    });
    for report in reports {
        assert_plausible(&report?).context("two at the same time")?;
    }

    let ran = client.run(&["speedtest", "--seconds", "1", "--streams", "1"])?;
    let table = &ran.stdout;
    let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    for name in ["download", "upload"] {
        assert!(row(name).contains("bit/s") && row(name).contains(" ms"), "{ran}");
    }
    assert!(row("idle").contains(" ms"), "{ran}");
    assert!(ran.stderr.is_empty(), "nobody watches the progress: {ran}");
    Ok(())
}

#[test]
fn the_figures_are_those_of_the_path() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    // before it connects: the kernel holds a path's delay for known for ten seconds
    let delay = Duration::from_millis(20);
    let up = Link { delay, rate: Some(10_000_000), ..Link::default() };
    let _link = lab.emulate(up, Link { rate: Some(40_000_000), ..up })?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let text = client.run(&["speedtest", "--json", "--seconds", "5"])?.ok()?;
    let report: Value = serde_json::from_str(&text)?;
    let idle = number(&report, "/idle/median_ms")?;
    assert!((40.0..60.0).contains(&idle), "40 ms: {report}");
    for (direction, rate) in [("/download", 40e6), ("/upload", 10e6)] {
        let measured = number(&report, &format!("{direction}/bits_per_s"))?;
        figure(&format!("speedtest{direction} of {} Mbit/s", rate / 1e6), measured / 1e6, "Mbit/s");
        assert!((0.6..1.0).contains(&(measured / rate)), "{direction}: {rate} bit/s: {report}");
        let loaded = number(&report, &format!("{direction}/latency/median_ms"))?;
        assert!((40.0..400.0).contains(&loaded), "{direction} in {report}");
    }
    Ok(())
}

#[test]
fn an_interrupted_test_ends_at_once_and_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let words = client.words(&["speedtest", "--seconds", "30"]);
    let mut running = client.node.spawn("speedtest", &words)?;
    e2e::until("the download to run", Duration::from_secs(15), || {
        Ok(Some(()).filter(|()| client.status().is_ok_and(|it| it.rx_bytes > 1 << 20)))
    })?;
    let ran = client.run(&JSON)?;
    assert_eq!(ran.code(), FAILED, "one test of each client: {ran}");
    assert!(ran.stderr.contains("running already"), "{ran}");

    client.node.ok(&["kill", "-INT", &running.pid().to_string()])?;
    let status = running.wait(Duration::from_secs(1))?;
    assert_eq!(status.code(), Some(FAILED), "{}", running.logs());
    assert!(running.stderr().contains("interrupted"), "{}", running.logs());
    assert_plausible(&measure(&client)?)
}

#[test]
fn nobody_but_clients_reaches_the_port_and_nobody_can_hold_it() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let [a, b, c, d, ..] = client.inner_address_v6()?.segments();
    let inside: [IpAddr; 2] =
        [address::INNER_GATEWAY.into(), Ipv6Addr::new(a, b, c, d, 0, 0, 0, 1).into()];
    for host in inside {
        assert!(reaches(&client.node, host)?, "control: {host} from inside");
    }
    // a neighbour of the gateway tries its inside addresses as well
    lab.internet.ip(&["route", "add", "10.8.0.0/24", "via", &address::GATEWAY.to_string()])?;
    let prefix = format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0));
    lab.internet.ip(&["route", "add", &prefix, "via", &address::GATEWAY_V6.to_string()])?;
    let public = [address::GATEWAY.into(), address::GATEWAY_V6.into()];
    for host in inside.into_iter().chain(public) {
        for node in [&lab.internet, &lab.web] {
            assert!(!reaches(node, host)?, "{host} from {}", node.namespace());
        }
    }

    let silent = time_until_cut_off(&client, "")?;
    assert!(silent < Duration::from_secs(6), "cut off after {silent:?}");
    let in_a_test = time_until_cut_off(&client, "CWS\\x01e\\x00")?;
    assert!(in_a_test < Duration::from_secs(10), "cut off after {in_a_test:?}");
    assert_plausible(&measure(&client)?).context("after those who said nothing")?;

    client.disconnect()?;
    gateway.stop()?;
    let config_path = gateway.state_dir().join("server.yaml");
    let config = std::fs::read_to_string(&config_path)?;
    let off = config.replace("speedtest: 8474", "speedtest: off");
    assert_ne!(off, config, "server.yaml has no line speedtest: 8474");
    std::fs::write(&config_path, off)?;
    gateway.start()?;
    client.connect(&[])?;
    let ran = client.run(&JSON)?;
    assert_eq!(ran.code(), NOT_REACHABLE, "{ran}");
    assert!(ran.stderr.contains("`speedtest` in server.yaml"), "where to switch it on: {ran}");
    Ok(())
}

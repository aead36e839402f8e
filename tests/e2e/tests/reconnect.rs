//! Whatever happens to the path: once it is back, traffic flows within a second (C5), and a download
//! that is under way goes on.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{
    Beat, ClientNode, Download, GatewayNode, Lab, Options, Programs, address, figure,
    full_or_short, until,
};

/// Five times what is asked for, since the machine has other things to do.
const BAR: Duration = Duration::from_secs(5);
/// What the web host sends, in bytes a second: slow enough for a download to be under way.
const RATE: u64 = 2_000_000;
/// From the beginning of the download to the outage.
const BEFORE: Duration = Duration::from_millis(1_500);
/// How long it is watched what happens after the outage.
const AFTER: Duration = Duration::from_secs(6);
/// How long a download may take after an outage: the web host may wait two minutes for its turn.
const FINISH: Duration = Duration::from_secs(150);

struct Scene {
    client: ClientNode,
    gateway: GatewayNode,
    programs: Programs,
    lab: Lab,
}

impl Scene {
    fn new(options: Options, programs: &Programs) -> Result<Scene> {
        let lab = Lab::with(options)?;
        let programs = programs.clone();
        let gateway = GatewayNode::start_new(&lab, &programs)?;
        let client = ClientNode::new(&lab, 0, &programs)?;
        client.import(&gateway.invite("alice")?.link)?;
        let rate = format!("{}", RATE * 8);
        let slow = ["root", "tbf", "rate", &rate, "burst", "64kb", "latency", "50ms"];
        lab.web.ok(&[&["tc", "qdisc", "add", "dev", "eth0"], &slow[..]].concat())?;
        Ok(Scene { client, gateway, programs, lab })
    }

    /// Downloads while `outage`, which returns when it was over, happens.
    fn outlive(
        &mut self,
        name: &str,
        outage: impl FnOnce(&mut Scene) -> Result<Instant>,
    ) -> Result<()> {
        let seconds = (BEFORE + AFTER).as_secs() + 1;
        let sent = self.lab.make_download("steady", RATE * seconds)?;
        let download = Download::start(&self.lab.clients[0], address::WEB, "steady")?;
        let back = self.be_back_after(name, outage)?;
        let bytes = download.flow_after(back);
        let received = download.finish(FINISH).with_context(|| self.logs(name))?;
        assert_eq!(received, sent, "{name}: SHA-256");
        // the time also depends on when the web host tries again, which waits longer and longer
        if let Some(bytes) = bytes {
            figure(&format!("{name}: a download goes on after"), bytes.as_secs_f64() * 1e3, "ms");
        }
        Ok(())
    }

    /// The outage, with datagrams on their way every 20 ms.
    fn be_back_after(
        &mut self,
        name: &str,
        outage: impl FnOnce(&mut Scene) -> Result<Instant>,
    ) -> Result<Instant> {
        let address = self.client.inner_address()?;
        let beat = Beat::start(&self.lab.clients[0], &self.lab.web, address::WEB)?;
        sleep(BEFORE);
        let back = outage(self).with_context(|| name.to_owned())?;
        sleep((back + AFTER).saturating_duration_since(Instant::now()));
        let datagrams = beat.flow_after(back).context("no datagram since the path is back");
        let datagrams = datagrams.with_context(|| self.logs(name))?;
        figure(&format!("{name}: datagrams flow after"), datagrams.as_secs_f64() * 1e3, "ms");
        assert!(datagrams < BAR, "{name}: {datagrams:?}{}", self.logs(name));
        assert_eq!(self.client.inner_address()?, address, "{name}");
        assert!(self.client.process()?.is_running(), "{name}: the client ended");
        Ok(back)
    }

    fn logs(&mut self, name: &str) -> String {
        let of =
            |process: Result<&mut e2e::Process>| process.map(|it| it.logs()).unwrap_or_default();
        format!("{name}\n{}{}", of(self.client.process()), of(self.gateway.process()))
    }
}

fn connected(options: Options, programs: &Programs) -> Result<Scene> {
    let mut scene = Scene::new(options, programs)?;
    scene.client.connect(&[])?;
    Ok(scene)
}

/// Seconds.
fn cuts() -> &'static [u64] {
    full_or_short(&[1, 5, 20, 120], &[1, 5, 12])
}

e2e::over_each_transport! {
    a_path_that_was_cut_in_silence,
    another_port_in_silence,
    another_address_on_another_link_and_back,
    a_gateway_that_was_restarted,
}

fn a_path_that_was_cut_in_silence(programs: &Programs) -> Result<()> {
    let mut scene = connected(Options::default(), programs)?;
    for &seconds in cuts() {
        scene.outlive(&format!("cut for {seconds} s"), |scene| {
            scene.lab.cut_path(Duration::from_secs(seconds))
        })?;
    }
    Ok(())
}

#[test]
fn a_link_of_the_client_that_went_down() -> Result<()> {
    let mut scene = connected(Options::default(), &Programs::find()?)?;
    for &seconds in cuts() {
        scene.outlive(&format!("link down for {seconds} s"), |scene| {
            scene.lab.drop_link(Duration::from_secs(seconds))
        })?;
    }
    Ok(())
}

#[test]
fn another_port_after_a_reset() -> Result<()> {
    let mut scene = connected(Options::default(), &Programs::find()?)?;
    scene.outlive("port changed, old one reset", |scene| scene.lab.rebind_nat())
}

fn another_port_in_silence(programs: &Programs) -> Result<()> {
    let mut scene = connected(Options::default(), programs)?;
    scene.outlive("port changed in silence", |scene| scene.lab.swallow_flows())
}

fn another_address_on_another_link_and_back(programs: &Programs) -> Result<()> {
    let mut scene = connected(Options::default(), programs)?;
    scene.outlive("to another link", |scene| scene.lab.change_link())?;
    scene.outlive("and back", |scene| scene.lab.change_link())
}

#[test]
fn a_gateway_that_was_killed() -> Result<()> {
    let mut scene = connected(Options::default(), &Programs::find()?)?;
    scene.outlive("gateway killed", |scene| {
        scene.gateway.kill9()?;
        scene.gateway.start()?;
        Ok(Instant::now())
    })
}

/// With another configuration; one that is wrong changes nothing.
#[test]
fn a_gateway_that_was_reloaded() -> Result<()> {
    let mut scene = connected(Options::default(), &Programs::find()?)?;
    let config_path = scene.gateway.state_dir().join("server.yaml");
    let config = fs::read_to_string(&config_path)?;
    fs::write(&config_path, format!("{config}nonsense: 1\n"))?;
    scene.gateway.process()?.hang_up();
    scene.gateway.process()?.wait_for_error_line("not reloaded", BAR)?;
    fs::write(&config_path, config.replace("mtu: 1420", "mtu: 1380"))?;
    let pid = scene.gateway.process()?.pid();
    scene.outlive("gateway reloaded", |scene| {
        scene.gateway.reload()?;
        Ok(Instant::now())
    })?;
    assert_eq!(scene.gateway.process()?.pid(), pid);
    let interface = scene.client.interface()?;
    let link = scene.lab.clients[0].ip(&["link", "show", "dev", &interface])?;
    assert!(link.contains("mtu 1380"), "{link}");
    scene.gateway.stop()
}

/// A download may break off: while the gateway is stopped, its NAT is gone, too.
fn a_gateway_that_was_restarted(programs: &Programs) -> Result<()> {
    let mut scene = connected(Options::default(), programs)?;
    scene.be_back_after("gateway restarted", |scene| {
        scene.gateway.stop()?;
        scene.gateway.start()?;
        Ok(Instant::now())
    })?;
    Ok(())
}

#[test]
fn a_computer_that_slept() -> Result<()> {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let mut scene = Scene::new(Options::default(), &Programs::find()?)?;
    scene.lab.randomise_nat()?;
    let clock_path = scene.client.node.dir().join("clock");
    fs::write(&clock_path, "+0\n")?;
    scene.client.start_by(&[
        "env",
        &format!("LD_PRELOAD={LIBRARY}"),
        &format!("FAKETIME_TIMESTAMP_FILE={}", clock_path.display()),
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ]);
    scene.client.connect(&[])?;
    let asleep = Duration::from_secs(full_or_short(60, 3));
    scene.outlive("asleep for an hour", |scene| {
        let lab = &scene.lab;
        let process = scene.client.process()?;
        process.suspend(|| {
            sleep(asleep);
            fs::write(&clock_path, "+3600\n")?;
            lab.flush_nat()
        })?;
        Ok(Instant::now())
    })
}

#[test]
fn status_tells_what_goes_on_while_the_gateway_is_away() -> Result<()> {
    let mut scene = connected(Options::default(), &Programs::find()?)?;
    scene.gateway.stop()?;
    scene.client.wait_for_state("reconnecting", Duration::from_secs(10))?;
    let status = until("a refused try", Duration::from_secs(10), || {
        let text = scene.client.run(&["status", "--json"])?.ok()?;
        let status: serde_json::Value = serde_json::from_str(&text)?;
        let said = status["error"].as_str().unwrap_or_default();
        Ok(said.contains("refused").then_some(status.clone()))
    })?;
    assert!(status["lost_at"].as_u64().is_some(), "{status}");
    let shown = scene.client.run(&["status"])?.ok()?;
    assert!(shown.contains("Lost:") && shown.contains("Next try:"), "{shown}");
    scene.gateway = GatewayNode::new(&scene.lab, &scene.programs);
    scene.gateway.start()?;
    let status = scene.client.wait_for_state("connected", BAR)?;
    assert_eq!(status.state, "connected");
    Ok(())
}

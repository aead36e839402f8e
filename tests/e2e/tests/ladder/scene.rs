//! A gateway with two TCP ports and KCP, a client that knows all of them, and what a network may do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Beat, ClientNode, Download, GatewayNode, Lab, Programs, address, figure, until};
use serde_json::Value;

/// Five times what is asked for, since the machine has other things to do.
pub(crate) const BAR: Duration = Duration::from_secs(25);
/// What the web host sends, in bytes a second: slow enough for a download to be under way.
pub(crate) const RATE: u64 = 1_000_000;

/// The rungs, best first.
pub(crate) const BEST: &str = "tls:8443";
pub(crate) const OTHER_PORT: &str = "tls:443";
pub(crate) const KCP: &str = "kcp:443";

/// What the carrier drops of the traffic with the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Udp,
    Tcp,
    /// All but TCP port 443.
    AllButOnePort,
    /// Of each TCP connection, all behind the first 64 KB.
    LongTcp,
}

impl Fault {
    fn rules(self) -> String {
        let gateway = address::GATEWAY;
        let both = |what: &str, there: &str, back: &str| {
            format!(
                "ip daddr {gateway} {what} {there} drop\nip saddr {gateway} {what} {back} drop\n"
            )
        };
        match self {
            Fault::Udp => both("meta l4proto udp", "", ""),
            Fault::Tcp => both("meta l4proto tcp", "", ""),
            Fault::AllButOnePort => {
                both("meta l4proto udp", "", "") + &both("", "tcp dport != 443", "tcp sport != 443")
            }
            Fault::LongTcp => both("meta l4proto tcp", "ct bytes > 65536", "ct bytes > 65536"),
        }
    }
}

pub(crate) struct Scene {
    pub(crate) client: ClientNode,
    pub(crate) gateway: GatewayNode,
    pub(crate) lab: Lab,
}

impl Scene {
    /// The client has imported its invitation.
    pub(crate) fn new() -> Result<Scene> {
        let (lab, programs) = (Lab::new()?, Programs::find()?);
        let ports = ("listen: [\"[::]:8443\"]", "listen: [\"[::]:8443\", \"[::]:443\"]");
        let gateway = GatewayNode::start_edited(&lab, &programs, &[ports])?;
        let client = ClientNode::new(&lab, 0, &programs)?;
        client.import(&gateway.invite("alice")?.link)?;
        lab.carrier.sysctl(&["net/netfilter/nf_conntrack_acct=1"])?;
        Ok(Scene { client, gateway, lab })
    }

    pub(crate) fn connected() -> Result<Scene> {
        let mut scene = Scene::new()?;
        scene.client.connect(&[])?;
        assert_eq!(scene.rung()?, BEST);
        Ok(scene)
    }

    /// From now on, and nothing else any more; gives the moment before.
    pub(crate) fn suffer(&self, fault: Fault) -> Result<Instant> {
        let since = Instant::now();
        self.lab.carrier.nft(&format!(
            "table inet fault\ndelete table inet fault\ntable inet fault {{\n chain path {{\n \
             type filter hook forward priority -10;\n{}}}\n}}\n",
            fault.rules()
        ))?;
        Ok(since)
    }

    /// Everything passes.
    pub(crate) fn recover(&self) -> Result<()> {
        self.lab.carrier.ok(&["nft", "delete", "table", "inet", "fault"]).map(drop)
    }

    /// The ladder as `status` tells of it.
    pub(crate) fn ladder(&self) -> Result<Vec<Value>> {
        ladder(&self.client)
    }

    /// The rung that carries the session; empty if none does.
    pub(crate) fn rung(&self) -> Result<String> {
        Ok(in_use(&self.ladder()?))
    }

    pub(crate) fn wait_for(&mut self, rung: &str, patience: Duration) -> Result<()> {
        let waited = until(&format!("the session to be over {rung}"), patience, || {
            Ok((self.rung()? == rung).then_some(()))
        });
        waited.with_context(|| self.logs())
    }

    /// Datagrams to the web host and back, all the time.
    pub(crate) fn beat(&self) -> Result<Beat> {
        Beat::start(&self.lab.clients[0], &self.lab.web, address::WEB)
    }

    /// A download of so many seconds, and the SHA-256 of what it is to bring.
    pub(crate) fn download(&self, seconds: u64) -> Result<(Download, String)> {
        let rate = format!("{}", RATE * 8);
        let slow = ["root", "tbf", "rate", &rate, "burst", "64kb", "latency", "50ms"];
        self.lab.web.ok(&[&["tc", "qdisc", "add", "dev", "eth0"], &slow[..]].concat())?;
        let sent = self.lab.make_download("steady", RATE * seconds)?;
        let download = Download::start(&self.lab.clients[0], address::WEB, "steady")?;
        Ok((download, sent))
    }

    /// Datagrams flow again, soon enough.
    pub(crate) fn check_back(&mut self, what: &str, beat: &Beat, since: Instant) -> Result<()> {
        let after = until("datagrams to flow", BAR, || Ok(beat.flow_after(since)));
        let after = after.with_context(|| format!("{what}{}", self.logs()))?;
        figure(&format!("{what}: datagrams flow after"), after.as_secs_f64() * 1e3, "ms");
        assert!(after < BAR, "{what}: {after:?}{}", self.logs());
        Ok(())
    }

    pub(crate) fn logs(&mut self) -> String {
        let of =
            |process: Result<&mut e2e::Process>| process.map(|it| it.logs()).unwrap_or_default();
        format!("{}{}", of(self.client.process()), of(self.gateway.process()))
    }
}

pub(crate) fn ladder(client: &ClientNode) -> Result<Vec<Value>> {
    let text = client.run(&["status", "--json"])?.ok()?;
    let status: Value = serde_json::from_str(&text)?;
    status["ladder"].as_array().cloned().context("status names no ladder")
}

/// As `tls:8443`.
pub(crate) fn in_use(ladder: &[Value]) -> String {
    let used = ladder.iter().find(|rung| rung["in_use"] == true);
    used.map_or_else(String::new, |rung| {
        format!("{}:{}", rung["transport"].as_str().unwrap_or_default(), rung["port"])
    })
}

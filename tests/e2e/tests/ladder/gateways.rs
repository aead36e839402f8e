//! Several gateways in one profile, and a gateway whose name leads elsewhere.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Beat, ClientNode, GatewayNode, Lab, Programs, address, figure, until};

use crate::scene::ladder;

/// Five times the 3 s that it may take to be on another gateway.
const FAILOVER: Duration = Duration::from_secs(15);
/// The longest step of the back-off, 15 s and 30%, and what connecting takes.
const STEP: Duration = Duration::from_secs(25);
/// Before the first climb, and what looking for the name and connecting take.
const CLIMB: Duration = Duration::from_secs(45);
const MOVED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

/// Two gateways with the same users, and a client that knows both.
struct Household {
    client: ClientNode,
    first: GatewayNode,
    second: GatewayNode,
    lab: Lab,
}

/// What the second gateway has a copy of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Device,
    User,
}

impl Household {
    fn connected() -> Result<Household> {
        Household::of(Known::Device)
    }

    fn of(known: Known) -> Result<Household> {
        let (mut lab, programs) = (Lab::new()?, Programs::find()?);
        let mut first = GatewayNode::start_new(&lab, &programs)?;
        let mut client = ClientNode::new(&lab, 0, &programs)?;
        let link = first.invite("alice")?.link;
        if known == Known::Device {
            client.import(&link)?;
        }
        first.stop()?;
        let node = lab.add_gateway()?;
        let state_dir = node.dir().join("state");
        fs::create_dir_all(&state_dir)?;
        fs::copy(first.state_dir().join("server.db"), state_dir.join("server.db"))?;
        let second = GatewayNode::start_on(&node, &address::SECOND_GATEWAY.to_string(), &programs)?;
        first.start()?;
        if known == Known::User {
            client.import(&first.invite("alice")?.link)?;
        }
        let link = second.invite("alice")?.link;
        let profile = address::GATEWAY.to_string();
        client.run(&["profile", "endpoint", "add", &profile, &link])?.ok()?;
        client.connect(&[])?;
        Ok(Household { client, first, second, lab })
    }

    fn gateway(&self) -> Result<Option<IpAddr>> {
        Ok(self.client.status()?.gateway.map(|gateway| gateway.ip()))
    }

    /// From `since` on the first gateway is dead.
    fn check_failover(&mut self, beat: &Beat, since: Instant, how: &str) -> Result<()> {
        let failed_over = until("traffic through the second gateway", FAILOVER, || {
            let there = self.gateway()? == Some(address::SECOND_GATEWAY.into());
            Ok(beat.flow_after(since).filter(|_| there))
        });
        let after = failed_over.with_context(|| self.logs())?;
        figure(&format!("gateway {how}: datagrams flow after"), after.as_secs_f64() * 1e3, "ms");
        assert!(after < FAILOVER, "{how}: {after:?}{}", self.logs());
        let seen = self.lab.visitor_address(&self.client.node, address::WEB.into())?;
        assert_eq!(seen, address::SECOND_GATEWAY.to_string());
        Ok(())
    }

    fn logs(&mut self) -> String {
        let of =
            |process: Result<&mut e2e::Process>| process.map(|it| it.logs()).unwrap_or_default();
        format!("{}{}", of(self.client.process()), of(self.second.process()))
    }
}

#[test]
fn a_gateway_that_vanishes_is_replaced_by_the_second_one_of_the_profile() -> Result<()> {
    let mut household = Household::connected()?;
    assert_eq!(household.gateway()?, Some(address::GATEWAY.into()));
    let beat = Beat::start(&household.lab.clients[0], &household.lab.web, address::WEB)?;
    let since = Instant::now();
    household.lab.gateway.ip(&["link", "set", "eth0", "down"])?;
    household.check_failover(&beat, since, "vanished")?;
    let shown = household.client.run(&["status"])?.ok()?;
    assert!(shown.contains("198.18.7.2:8443 over tls: in use"), "{shown}");
    Ok(())
}

#[test]
fn a_gateway_that_was_killed_is_replaced_by_the_second_one_of_the_profile() -> Result<()> {
    let mut household = Household::connected()?;
    let beat = Beat::start(&household.lab.clients[0], &household.lab.web, address::WEB)?;
    let since = Instant::now();
    household.first.kill9()?;
    household.check_failover(&beat, since, "killed")?;
    // it stays there, since another public address would break what goes on
    household.first.start()?;
    sleep(Duration::from_secs(3));
    assert_eq!(household.gateway()?, Some(address::SECOND_GATEWAY.into()));
    Ok(())
}

#[test]
fn a_gateway_that_does_not_know_this_device_does_not_end_the_session() -> Result<()> {
    let mut household = Household::of(Known::User)?;
    household.first.kill9()?;
    until("the second gateway's refusal in status", FAILOVER, || {
        let shown = household.client.run(&["status"])?.ok()?;
        let is_there = |line: &str| line.contains("198.18.7.2:8443") && line.contains("rejected");
        Ok(shown.lines().any(is_there).then_some(()))
    })
    .with_context(|| household.logs())?;
    sleep(Duration::from_secs(3));
    let waits = household.client.status()?.state;
    assert_eq!(waits, "reconnecting", "{}", household.logs());
    household.first.start()?;
    until("the session at the first gateway", FAILOVER, || {
        let status = household.client.status()?;
        let there = status.gateway.is_some_and(|it| it.ip() == IpAddr::from(address::GATEWAY));
        Ok((status.state == "connected" && there).then_some(()))
    })
    .with_context(|| household.logs())?;
    Ok(())
}

#[test]
fn endpoints_are_added_preferred_and_removed() -> Result<()> {
    let household = Household::connected()?;
    let profile = address::GATEWAY.to_string();
    let run = |words: &[&str]| household.client.run(words);
    let endpoints = || -> Result<Vec<String>> {
        let shown: serde_json::Value =
            serde_json::from_str(&run(&["profile", "show", &profile, "--json"])?.ok()?)?;
        let of = |it: &serde_json::Value| {
            let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            format!("{}:{}:{}", text("transport"), text("host"), it["port"])
        };
        Ok(shown["endpoints"].as_array().context("no endpoints")?.iter().map(of).collect())
    };
    let [first, second] = ["203.0.113.2", "198.18.7.2"];
    let four =
        [(first, "tls", 8443), (first, "kcp", 443), (second, "tls", 8443), (second, "kcp", 443)];
    let four: Vec<_> =
        four.iter().map(|(host, way, port)| format!("{way}:{host}:{port}")).collect();
    assert_eq!(endpoints()?, four);
    let like = "tls:198.18.7.2:8443";
    run(&["profile", "endpoint", "add", &profile, "198.18.7.2:443", "--like", like])?.ok()?;
    run(&["profile", "set", &profile, "--prefer", "tls:198.18.7.2:443"])?.ok()?;
    assert_eq!(endpoints()?[0], "tls:198.18.7.2:443");
    run(&["profile", "endpoint", "remove", &profile, "tls:198.18.7.2:443"])?.ok()?;
    assert_eq!(endpoints()?, four);
    let strangers = run(&["profile", "endpoint", "remove", &profile, "192.0.2.9:1"])?;
    assert_eq!(strangers.code(), 2, "{strangers}");
    Ok(())
}

#[test]
fn a_gateway_whose_name_leads_elsewhere_is_found_again() -> Result<()> {
    let (lab, _gateway, mut client) = named()?;
    assert_eq!(client.status()?.gateway.map(|it| it.ip()), Some(address::GATEWAY.into()));

    lab.move_gateway(MOVED)?;
    // long enough for the back-off to have come to its longer steps
    sleep(Duration::from_secs(8));
    let since = Instant::now();
    lab.move_name(MOVED)?;
    until("the client at the new address", STEP, || {
        let status = client.status()?;
        let there = status.state == "connected"
            && status.gateway.is_some_and(|it| it.ip() == IpAddr::from(MOVED));
        Ok(there.then_some(()))
    })
    .with_context(|| client.process().map(|it| it.logs()).unwrap_or_default())?;
    figure("name moved: connected after", since.elapsed().as_secs_f64() * 1e3, "ms");
    let text = client.run(&["profile", "show", "--json"])?.ok()?;
    let shown: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(shown["last_good_addresses"][0], "203.0.113.77:8443", "{shown}");
    Ok(())
}

/// A gateway with a name, and a client that is connected.
fn named() -> Result<(Lab, GatewayNode, ClientNode)> {
    let (lab, programs) = (Lab::new()?, Programs::find()?);
    lab.move_name(address::GATEWAY)?;
    let gateway = GatewayNode::start_on(&lab.gateway, "home.lab.test", &programs)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    wait_for_record(&lab, address::GATEWAY)?;
    client.import(&gateway.invite("alice")?.link)?;
    client.connect(&[])?;
    Ok((lab, gateway, client))
}

fn wait_for_record(lab: &Lab, to: Ipv4Addr) -> Result<()> {
    until("the record", Duration::from_secs(10), || {
        let answer = lab.web.run(&["dig", "+short", "@198.51.100.53", "home.lab.test"])?;
        Ok(answer.stdout.contains(&to.to_string()).then_some(()))
    })
    .map(drop)
}

#[test]
fn a_name_that_leads_to_a_wrong_address_keeps_nobody_from_connecting() -> Result<()> {
    let (lab, _gateway, mut client) = named()?;
    client.disconnect()?;
    lab.move_name(MOVED)?;
    wait_for_record(&lab, MOVED)?;
    client.connect(&[])?;
    assert_eq!(client.status()?.gateway.map(|it| it.ip()), Some(address::GATEWAY.into()));
    Ok(())
}

#[test]
fn a_better_way_whose_name_leads_elsewhere_is_climbed_to() -> Result<()> {
    let (lab, _gateway, mut client) = named()?;
    client.run(&["profile", "endpoint", "add", "home.lab.test", &format!("{MOVED}:8443")])?.ok()?;
    client.disconnect()?;
    lab.move_gateway(MOVED)?;
    client.connect(&[])?;
    let used = || -> Result<bool> { Ok(ladder(&client)?[0]["in_use"] == true) };
    assert!(!used()?, "the name still leads to where nobody is");
    lab.move_name(MOVED)?;
    wait_for_record(&lab, MOVED)?;
    until("the session over the name", CLIMB, || Ok(used()?.then_some(())))?;
    Ok(())
}

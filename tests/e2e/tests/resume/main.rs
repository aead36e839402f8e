//! Sessions that go on: over new connections, over restarts, and for nobody but their owner.

mod early;
#[path = "../hostile/relay.rs"]
mod relay;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{
    ClientNode, GatewayNode, Lab, Link, Options, Page, Ping, Programs, Transport, address, figure,
    until,
};
use relay::{Fault, Relay, Way};
use serde_json::Value;
use wire::Wire;

const REJECTED: i32 = 5;
/// How soon a client has to be back, with the smallest delays.
const BACK: Duration = Duration::from_secs(10);
/// By address: a name could not be looked up while the tunnel is broken.
const FILE: &str = "http://198.51.100.80/file";
/// What who has an old copy is told.
const COPIED: &str = "another computer has used a copy of this profile";

/// What the gateway's log says of the clients that it let in: whether each came by a resume.
fn let_in(gateway: &mut GatewayNode) -> Result<Vec<bool>> {
    let log = gateway.process()?.stderr();
    let connected = log.lines().filter(|line| line.contains(" connected "));
    Ok(connected.map(|line| line.contains("resumed=true")).collect())
}

/// Why the gateway's log says that it refused clients.
fn refusals(gateway: &mut GatewayNode) -> Result<Vec<String>> {
    let log = gateway.process()?.stderr();
    let reason = |line: &str| Some(line.split_once("reason=")?.1.split_whitespace().next()?.into());
    Ok(log
        .lines()
        .filter(|line| line.contains("a client was refused"))
        .filter_map(reason)
        .collect())
}

/// The open sessions' ids.
fn sessions(gateway: &GatewayNode) -> Result<Vec<String>> {
    let text = gateway.run(&["session", "list", "--json"])?.ok()?;
    let sessions: Vec<Value> = serde_json::from_str(&text)?;
    Ok(sessions.iter().filter_map(|s| s["id"].as_str().map(str::to_owned)).collect())
}

fn profiles_dir(client: &ClientNode) -> PathBuf {
    client.node.dir().join("state/profiles")
}

/// The file in which the client keeps its session.
fn session_path(client: &ClientNode) -> PathBuf {
    profiles_dir(client).join("203.0.113.2.session")
}

/// Waits until the client has written its session down, which happens beside its other work.
fn kept_session(client: &ClientNode, other_than: &str) -> Result<String> {
    until("the session to be kept", BACK, || {
        let kept = std::fs::read_to_string(session_path(client)).unwrap_or_default();
        Ok((!kept.is_empty() && kept != other_than).then_some(kept))
    })
}

/// Waits until the gateway has heard that the latest token is kept.
fn wait_until_retired(gateway: &GatewayNode, tokens: u32) -> Result<()> {
    until("earlier tokens to be retired", BACK, || {
        let retired = sql(gateway, "SELECT COUNT(*) FROM tokens WHERE retired = 1")?;
        Ok((retired.trim().parse::<u32>()? >= tokens).then_some(()))
    })
}

fn sql(gateway: &GatewayNode, statement: &str) -> Result<String> {
    let path = gateway.state_dir().join("server.db");
    let path = path.to_str().context("path is not UTF-8")?;
    gateway.node.ok(&["sqlite3", "-bail", "-cmd", ".timeout 5000", path, statement])
}

/// A page through the tunnel.
fn works(lab: &Lab, client: &ClientNode) -> Result<()> {
    let seen = until("a page through the tunnel", BACK, || {
        Ok(lab.visitor_address(&client.node, address::WEB.into()).ok())
    })?;
    assert_eq!(seen, address::GATEWAY.to_string());
    Ok(())
}

/// Ends the connection by `fault`, and waits until there is another one.
/// Without KCP, which would lead around what is broken.
const ONLY_TLS: &[&str] = &["--transport", "tls"];

fn break_connection(relay: &Relay, client: &ClientNode, way: Way, fault: Fault) -> Result<()> {
    let connections = relay.connections();
    relay.spoil(way, fault);
    until("another connection", BACK, || {
        // something must pass to be spoilt
        let _ = Ping::send_with(&client.node, address::WEB.into(), 1, &["-W", "0.05"])?;
        Ok((relay.has_spoilt() && relay.connections() > connections).then_some(()))
    })?;
    client.wait_for_state("connected", BACK).map(drop)
}

fn copy_profiles(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        std::fs::copy(&path, to.join(path.file_name().context("a file's name")?))?;
    }
    Ok(())
}

e2e::over_each_transport! {
    a_session_outlives_the_gateway_s_process_and_not_its_database,
}

#[test]
fn a_broken_connection_is_resumed_with_the_same_address_and_the_download_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let programs = &Programs::find()?;
    let relay = Relay::start(&lab.routers[0])?;
    let mut gateway = GatewayNode::start_new(&lab, programs)?;
    let client = ClientNode::connect_new_with(&lab, 0, programs, &gateway, "alice", ONLY_TLS)?;
    let (inner, session) = (client.inner_address()?, sessions(&gateway)?);
    let log_ins = let_in(&mut gateway)?.len();
    let mut kept = kept_session(&client, "")?;
    let sent = lab.make_download("file", 32 << 20)?;
    // slow enough to be under way all the time
    let limit = ["root", "tbf", "rate", "50mbit", "burst", "64kb", "latency", "50ms"];
    lab.web.ok(&[&["tc", "qdisc", "add", "dev", "eth0"], &limit[..]].concat())?;
    let faults =
        [(Way::Down, Fault::Truncated), (Way::Up, Fault::FlippedBit), (Way::Down, Fault::Repeated)];
    let (_, received) = std::thread::scope(|scope| {
        let download = scope.spawn(|| Page::download(&client.node, FILE));
        for (way, fault) in faults {
            std::thread::sleep(Duration::from_millis(700));
            break_connection(&relay, &client, way, fault)
                .with_context(|| format!("{fault:?} {way:?}"))?;
            kept = kept_session(&client, &kept)?;
        }
        download.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_eq!(received, sent, "SHA-256 of the file that was under way");
    assert_eq!(client.inner_address()?, inner);
    assert_eq!(sessions(&gateway)?, session, "it is the same session");
    let since = &let_in(&mut gateway)?[log_ins..];
    assert!(since.len() >= faults.len() && since.iter().all(|resumed| *resumed), "{since:?}");
    assert_eq!(refusals(&mut gateway)?, Vec::<String>::new());
    wait_until_retired(&gateway, 3)
}

#[test]
fn the_user_s_first_answer_comes_after_three_round_trips() -> Result<()> {
    assert_three_round_trips(false)
}

fn assert_three_round_trips(early_data: bool) -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = early::gateway(&lab, &programs, early_data)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    let delay = Duration::from_millis(150);
    let way = Link { delay, ..Link::default() };
    let _link = lab.emulate(way, way)?;
    let wire = Wire::start(&lab.clients[0])?;
    client.connect(early::option(early_data))?;
    works(&lab, &client)?;
    let first = wire.connections()?.pop().context("no connection in the capture")?;
    // the path answers this connection, and no other, with a reset
    lab.internet.nft(&format!(
        "table inet cut {{\n chain everything {{\n type filter hook forward priority -10;\n \
         tcp sport {} reject with tcp reset\n }}\n }}\n",
        first.port
    ))?;
    Ping::send_with(&client.node, address::WEB.into(), 60, &["-i", "0.05"])?;
    client.wait_for_state("connected", BACK)?;
    let resumed = wire.connections()?.pop().context("no second connection")?;
    assert!(let_in(&mut gateway)?.ends_with(&[true]), "it was resumed");
    assert_eq!(early::hints(&mut gateway)? > 0, early_data);

    // the user's ping, which had to wait for the connection, went behind the request
    let answer = resumed.first_packet().context("no packet in the capture")?;
    figure("first packet after a resume", answer.as_secs_f64() * 1_000.0, "ms");
    let round_trips = answer.as_secs_f64() / (2.0 * delay.as_secs_f64());
    figure("first packet after a resume", round_trips, "round trips");
    assert!((2.9..3.5).contains(&round_trips), "{round_trips} round trips");
    // a ticket of the first one stands for certificate and signature
    let (full, short) = (first.before_answer(), resumed.before_answer());
    figure("handshake of a log-in", full as f64, "bytes from the gateway");
    figure("handshake of a resume", short as f64, "bytes from the gateway");
    assert!(short + 300 < full, "{short} bytes instead of {full}");
    Ok(())
}

#[test]
fn a_token_without_the_key_of_its_device_opens_nothing() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut owner = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    // another device of the same user, so that nothing but the key is wrong
    let mut thief = ClientNode::new(&lab, 1, &programs)?;
    thief.import(&gateway.invite("alice")?.link)?;
    let token = kept_session(&owner, "")?;
    std::fs::write(session_path(&thief), &token)?;
    let before = let_in(&mut gateway)?.len();

    thief.connect(&[])?;
    assert_eq!(refusals(&mut gateway)?, ["Rejected"]);
    assert_eq!(let_in(&mut gateway)?[before..], [false], "the thief came in as what he is");
    assert_ne!(thief.inner_address()?, owner.inner_address()?);
    assert_ne!(kept_session(&thief, "")?, token);
    works(&lab, &owner)?;
    works(&lab, &thief)?;
    assert!(owner.process()?.is_running());
    assert_eq!(let_in(&mut gateway)?.len(), before + 1, "the owner did not notice");
    Ok(())
}

#[test]
fn who_shows_an_old_copy_of_the_token_is_told_and_disturbs_nobody() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let relay = Relay::start(&lab.routers[0])?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut owner = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let first = kept_session(&owner, "")?;
    let mut copy = ClientNode::new(&lab, 1, &programs)?;
    copy_profiles(&profiles_dir(&owner), &profiles_dir(&copy))?;
    break_connection(&relay, &owner, Way::Down, Fault::Truncated)?;
    kept_session(&owner, &first)?;
    wait_until_retired(&gateway, 1)?;

    let before = let_in(&mut gateway)?.len();
    assert_is_told(&mut copy)?;
    assert_eq!(refusals(&mut gateway)?, ["Superseded"]);
    assert_eq!(let_in(&mut gateway)?.len(), before, "nobody was let in or had to come again");
    works(&lab, &owner)?;

    // asked to once more, the copy logs in: it has the device's key. Then the owner is the second
    copy.connect(&["203.0.113.2"])?;
    let status = owner.process()?.wait(BACK)?;
    let said = owner.process()?.stderr();
    assert_eq!(status.code(), Some(REJECTED), "{said}");
    assert!(said.contains(COPIED), "{said}");
    works(&lab, &copy)
}

/// `connect` ends by itself, and says why.
fn assert_is_told(client: &mut ClientNode) -> Result<()> {
    let process = client.start_connecting(&["203.0.113.2"])?;
    let status = process.wait(BACK)?;
    let said = process.stderr();
    assert_eq!(status.code(), Some(REJECTED), "{said}");
    assert!(said.contains(COPIED), "{said}");
    assert!(!session_path(client).exists(), "the token is forgotten");
    Ok(())
}

#[test]
fn of_two_computers_with_the_same_token_one_goes_on_and_the_other_is_told() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut first = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let inner = first.inner_address()?;
    kept_session(&first, "")?;
    let mut second = ClientNode::new(&lab, 1, &programs)?;
    copy_profiles(&profiles_dir(&first), &profiles_dir(&second))?;
    // the token is good: whoever shows it first has the session, the other one learns of it
    second.start_connecting(&["203.0.113.2"])?;
    let told = until("one of them to be told", 2 * BACK, || {
        for (one, other) in [(0, 1), (1, 0)] {
            let clients = [&mut first, &mut second];
            if !clients[one].process()?.is_running() {
                return Ok(Some((one, other)));
            }
        }
        Ok(None)
    })?;
    let mut clients = [first, second];
    let process = clients[told.0].process()?;
    let (status, said) = (process.wait(BACK)?, process.stderr());
    assert_eq!(status.code(), Some(REJECTED), "{said}");
    assert!(said.contains(COPIED), "{said}");
    assert!(refusals(&mut gateway)?.contains(&"Superseded".to_owned()));
    let other = &mut clients[told.1];
    other.wait_for_state("connected", BACK)?;
    assert_eq!(other.inner_address()?, inner);
    works(&lab, other)?;
    assert!(other.process()?.is_running());
    assert_eq!(sessions(&gateway)?.len(), 1);
    Ok(())
}

#[test]
fn a_revoked_or_expired_session_is_replaced_by_a_log_in_without_a_question() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let inner = client.inner_address()?;
    type Deed = fn(&GatewayNode) -> Result<()>;
    let revoke: Deed =
        |gateway| gateway.run(&["session", "revoke", "--user", "alice"])?.ok().map(drop);
    let expire: Deed = |gateway| sql(gateway, "UPDATE sessions SET expires = 1").map(drop);
    let forget: Deed = |gateway| sql(gateway, "DELETE FROM sessions").map(drop);
    let nothing: Deed = |_| Ok(());
    for (deed, refused) in [
        (nothing, None),
        (revoke, Some("Revoked")),
        (expire, Some("Expired")),
        (forget, Some("Rejected")),
    ] {
        let kept = kept_session(&client, "")?;
        client.kill9()?;
        until("the gateway to notice", BACK, || {
            Ok((gateway.status()?["sessions"] == 0).then_some(()))
        })?;
        deed(&gateway)?;
        let (before, refused_before) = (let_in(&mut gateway)?.len(), refusals(&mut gateway)?.len());
        client.connect(&[])?;
        // on a busy machine it may have tried a second connection beside the first
        let first = let_in(&mut gateway)?.get(before).copied();
        assert_eq!(first, Some(refused.is_none()), "{refused:?}");
        let refusals = refusals(&mut gateway)?[refused_before..].to_vec();
        assert_eq!(refusals, refused.map(str::to_owned).into_iter().collect::<Vec<_>>());
        kept_session(&client, &kept)?;
        assert_eq!(client.inner_address()?, inner, "{refused:?}");
        works(&lab, &client)?;
    }

    client.kill9()?;
    gateway.run(&["user", "disable", "alice"])?.ok()?;
    let process = client.start_connecting(&[])?;
    let (status, said) = (process.wait(BACK)?, process.stderr());
    assert_eq!(status.code(), Some(REJECTED), "{said}");
    assert!(said.contains("rejected the log-in"), "{said}");
    Ok(())
}

fn a_session_outlives_the_gateway_s_process_and_not_its_database(
    programs: &Programs,
) -> Result<()> {
    let lab = Lab::new()?;
    let mut gateway = GatewayNode::start_new(&lab, programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    let (inner, session) = (client.inner_address()?, sessions(&gateway)?);
    for crash in [true, false] {
        if crash {
            gateway.kill9()?
        } else {
            gateway.stop()?
        }
        client.wait_for_state("reconnecting", Duration::from_secs(35))?;
        gateway.start()?;
        client.wait_for_state("connected", Duration::from_secs(25))?;
        assert_eq!(let_in(&mut gateway)?, [true], "crash: {crash}");
        assert_eq!((client.inner_address()?, sessions(&gateway)?), (inner, session.clone()));
        works(&lab, &client)?;
    }

    gateway.stop()?;
    for file in ["server.db", "server.db-wal", "server.db-shm"] {
        let _ = std::fs::remove_file(gateway.state_dir().join(file));
    }
    gateway.init(&address::GATEWAY.to_string())?;
    gateway.start()?;
    // over KCP a gateway does not even answer whom it does not know
    let told =
        if programs.transport() == Transport::Kcp { "no answer" } else { "ask for a new one" };
    let status = until("the client to say what is wrong", Duration::from_secs(30), || {
        let text = client.run(&["status", "--json"])?.stdout;
        Ok(text.contains(told).then_some(text))
    });
    status.context("with the database, the gateway has lost what it knows clients by")?;
    assert!(client.process()?.is_running(), "the gateway's owner may put the database back");
    Ok(())
}

#[test]
fn a_farewell_ends_the_session_and_a_crash_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    kept_session(&client, "")?;
    client.disconnect()?;
    assert!(!session_path(&client).exists(), "the token is forgotten");
    until("the session to be closed", BACK, || Ok(sessions(&gateway)?.is_empty().then_some(())))?;

    client.connect(&[])?;
    assert!(let_in(&mut gateway)?.ends_with(&[false]));
    let kept = kept_session(&client, "")?;
    assert!(kept.contains("alice"), "{kept}");
    client.kill9()?;
    client.connect(&[])?;
    assert!(let_in(&mut gateway)?.ends_with(&[true]));
    works(&lab, &client)
}

#[test]
fn a_replayed_resume_does_nothing_here_or_at_another_gateway() -> Result<()> {
    assert_replay_does_nothing(false)
}

fn assert_replay_does_nothing(early_data: bool) -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let relay = Relay::start(&lab.routers[0])?;
    let mut gateway = early::gateway(&lab, &programs, early_data)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    client.connect(early::option(early_data))?;
    let inner = client.inner_address()?;
    let first = kept_session(&client, "")?;
    break_connection(&relay, &client, Way::Down, Fault::Truncated)?;
    assert!(let_in(&mut gateway)?.ends_with(&[true]));
    kept_session(&client, &first)?;
    wait_until_retired(&gateway, 1)?;
    let recorded = relay.opening();
    assert!(recorded.len() > 2_000, "handshake, resume and pings: {} bytes", recorded.len());
    let flight = early::first_flight(&recorded)?;
    assert_eq!(flight.early_data, early_data, "what the hello asks for");
    assert_eq!(flight.hint.is_some(), early_data);
    let replayed = [recorded.len(), recorded.len() / 2, flight.length];
    let hinted = early::hints(&mut gateway)?;
    assert_eq!(hinted, u32::from(early_data), "it came as early data");

    let tokens = "SELECT hex(hash), generation, retired FROM tokens ORDER BY generation";
    let state = sql(&gateway, tokens)?;
    let come = let_in(&mut gateway)?.len();
    let pinged = std::thread::scope(|scope| {
        let pinged = scope.spawn(|| Ping::send(&client.node, address::WEB.into(), 100));
        for length in replayed {
            wire::replay(&lab, &recorded[..length])?;
        }
        pinged.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_eq!(pinged.received, 100, "pings while the resume is replayed");
    assert_eq!(let_in(&mut gateway)?.len(), come);
    assert_eq!(early::hints(&mut gateway)?, hinted, "the ticket was used");

    // another process with the same keys and the same database, as a second gateway has them
    client.kill9()?;
    gateway.kill9()?;
    gateway.start()?;
    for length in replayed {
        wire::replay(&lab, &recorded[..length])?;
    }
    assert_eq!(let_in(&mut gateway)?, Vec::<bool>::new());
    assert_eq!(early::hints(&mut gateway)?, 0, "this one does not know the ticket");
    assert_eq!(sql(&gateway, tokens)?, state, "no token was used or given");
    client.connect(early::option(early_data))?;
    assert_eq!(let_in(&mut gateway)?, [true], "and the owner's is still good");
    assert_eq!(client.inner_address()?, inner);
    Ok(())
}

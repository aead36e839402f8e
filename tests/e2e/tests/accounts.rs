//! Who may come in and who no longer: what users are told, how soon, and what nobody notices.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{ClientNode, GatewayNode, HostState, Lab, Options, Ping, Programs, Ran, address, until};
use serde_json::Value;

const FAILED: i32 = 1;
const REJECTED: i32 = 5;

/// How soon who is sent away has to be out.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The exit code, and words of the message in any case of letters.
fn assert_says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code(), code, "exit code of {ran}");
    let message = ran.stderr.to_lowercase();
    for word in words {
        assert!(message.contains(&word.to_lowercase()), "no {word:?} in the message of {ran}");
    }
    assert!(!message.contains("panicked"), "{ran}");
}

fn json(gateway: &GatewayNode, words: &[&str]) -> Result<Value> {
    let text = gateway.run(words)?.ok()?;
    serde_json::from_str(&text).with_context(|| format!("{words:?} printed {text:?}"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

/// The client was just sent away: it has to end by itself, and to say why.
fn assert_is_out(client: &mut ClientNode, since: Instant, before: &HostState) -> Result<()> {
    let process = client.process()?;
    let status = process.wait(Duration::from_secs(10))?;
    let message = process.stderr();
    assert_eq!(status.code(), Some(REJECTED), "{message}");
    assert!(message.contains("the gateway's owner has ended this session"), "{message}");
    // the host settings are undone by then, which takes its time
    let took = since.elapsed();
    assert!(took < AT_ONCE + Duration::from_secs(1), "out after {took:?}");
    before.expect_unchanged(&client.node, "after the session was ended")
}

#[test]
fn a_revoked_session_ends_within_a_second_and_the_device_may_come_again() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let before = HostState::of(&lab.clients[0])?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let mut other = ClientNode::connect_new(&lab, 1, &programs, &gateway, "bob")?;
    let inner = client.inner_address()?;
    let sessions = json(&gateway, &["session", "list", "--json"])?;
    let session = sessions.as_array().into_iter().flatten().find(|s| s["user"] == "alice");
    let id = text(session.context("no session of alice")?, "id")?.to_owned();

    let started = Instant::now();
    let said = gateway.run(&["session", "revoke", &id[..8]])?.ok()?;
    assert_eq!(said, "one session of alice ended\n");
    until("the session to be gone", AT_ONCE, || {
        Ok((gateway.status()?["sessions"] == 1).then_some(()))
    })?;
    assert_is_out(&mut client, started, &before)?;
    assert_eq!(json(&gateway, &["session", "list", "--json"])?[0]["user"], "bob");

    client.connect(&[]).context("the device may come again")?;
    assert_eq!(client.inner_address()?, inner);
    assert!(other.process()?.is_running(), "nobody else noticed");
    Ok(())
}

#[test]
fn a_disabled_user_a_removed_device_and_a_removed_user_are_out_and_stay_out() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let before = HostState::of(&lab.clients[0])?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;

    let started = Instant::now();
    let said = gateway.run(&["user", "disable", "alice"])?.ok()?;
    assert_eq!(said, "user alice disabled; one session ended\n");
    assert_is_out(&mut client, started, &before)?;
    let refused = client.run(&["connect", "--foreground"])?;
    assert_says(&refused, REJECTED, &["disabled", "ask the gateway's owner"]);
    gateway.run(&["user", "enable", "alice"])?.ok()?;
    client.connect(&[]).context("an enabled user is as before")?;

    let devices = json(&gateway, &["device", "list", "alice", "--json"])?;
    let id = devices[0]["id"].as_i64().context("no id")?.to_string();
    let started = Instant::now();
    gateway.run(&["device", "remove", &id])?.ok()?;
    assert_is_out(&mut client, started, &before)?;
    assert_says(&client.run(&["connect", "--foreground"])?, REJECTED, &["rejected"]);

    client.run(&["import", &gateway.invite("alice")?.link, "--force"])?.ok()?;
    client.connect(&[]).context("with a new invitation it is a new device")?;
    let started = Instant::now();
    gateway.run(&["user", "remove", "alice", "--yes"])?.ok()?;
    assert_is_out(&mut client, started, &before)?;
    assert_says(&client.run(&["connect", "--foreground"])?, REJECTED, &["rejected"]);
    Ok(())
}

#[test]
fn an_account_that_ends_while_connected_ends_the_session() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    gateway.run(&["user", "set", "alice", "--expires", "2s"])?.ok()?;
    let status = client.process()?.wait(Duration::from_secs(15))?;
    assert_eq!(status.code(), Some(REJECTED));
    assert_says(&client.run(&["connect", "--foreground"])?, REJECTED, &["account", "expired"]);
    gateway.run(&["user", "set", "alice", "--expires", "never"])?.ok()?;
    client.connect(&[]).map(drop)
}

#[test]
fn used_expired_and_revoked_invitations_say_so() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let (client, other) =
        (ClientNode::new(&lab, 0, &programs)?, ClientNode::new(&lab, 1, &programs)?);
    let used = gateway.invite("alice")?.link;
    client.import(&used)?;
    let short = ["invite", "create", "alice", "--expires", "1s", "--json"];
    let late = text(&json(&gateway, &short)?, "link")?.to_owned();
    let revoked = gateway.invite("alice")?.link;
    let list = json(&gateway, &["invite", "list", "--json"])?;
    let newest = list[0]["id"].as_i64().context("no id")?.to_string();
    gateway.run(&["invite", "revoke", &newest])?.ok()?;
    std::thread::sleep(Duration::from_millis(2100));

    let before = HostState::of(&other.node)?;
    for (link, word) in
        [(&used, "another device has used"), (&late, "expired"), (&revoked, "revoked")]
    {
        let ran = other.run(&["import", link])?;
        assert_says(&ran, REJECTED, &[word, "ask"]);
        before.expect_unchanged(&other.node, "after an invitation that is no good")?;
    }
    let states = json(&gateway, &["invite", "list", "--json"])?;
    let states: Vec<_> = states.as_array().into_iter().flatten().map(|i| &i["state"]).collect();
    assert_eq!(states, ["revoked", "expired", "used"]);
    Ok(())
}

#[test]
fn who_guesses_has_to_wait_and_keeps_nobody_out() -> Result<()> {
    // all clients behind one public address, as at a carrier's
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    gateway.user_add("alice", Some("correct horse"))?;
    let (client, guesser) =
        (ClientNode::new(&lab, 0, &programs)?, ClientNode::new(&lab, 1, &programs)?);
    client.import(&gateway.invite("alice")?.link)?;
    guesser.import(&gateway.invite("mallory")?.link)?;
    let log_in = |client: &ClientNode, password: &str| {
        let words = client.words(&["login", "alice", "--password-stdin"]);
        client.node.run_with(&words, &format!("{password}\n"), Duration::from_secs(20))
    };
    let mut guesses = 0;
    let busy = loop {
        let ran = log_in(&guesser, "guess")?;
        if ran.code() != REJECTED {
            break ran;
        }
        guesses += 1;
        assert!(guesses <= 12, "nobody stops the guessing");
    };
    assert!(guesses >= 10, "only {guesses} tries");
    assert_says(&busy, FAILED, &["try again in", "seconds"]);
    log_in(&client, "correct horse")?.ok().context("alice's own device is let in all the same")?;
    until("the right password to be taken from anywhere", Duration::from_secs(20), || {
        Ok(log_in(&guesser, "correct horse")?.status.success().then_some(()))
    })
}

#[test]
fn the_certificate_is_renewed_while_pings_pass() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let pins = json(&gateway, &["cert", "show", "--json"])?["pins"].clone();
    let certificate = || std::fs::read(gateway.state_dir().join("gateway.crt"));
    let before = certificate()?;
    let pinged = std::thread::scope(|scope| {
        let pinged = scope.spawn(|| Ping::send(&client.node, address::WEB.into(), 150));
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(500));
            gateway.run(&["cert", "renew"])?.ok()?;
        }
        pinged.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_eq!(pinged.received, 150, "no ping was lost");
    assert_ne!(certificate()?, before);
    assert_eq!(json(&gateway, &["cert", "show", "--json"])?["pins"], pins);
    ClientNode::connect_new(&lab, 1, &programs, &gateway, "bob").context("a new client")?;
    client.disconnect()?;
    client.connect(&[]).context("the same client again").map(drop)
}

#[test]
fn a_full_pool_is_named_with_its_size() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::new(&lab, &programs);
    gateway.init(&address::GATEWAY.to_string())?;
    let config_path = gateway.state_dir().join("server.yaml");
    let config = std::fs::read_to_string(&config_path)?;
    std::fs::write(&config_path, config.replace("v4: 10.8.0.0/24", "v4: 10.8.0.0/30"))?;
    gateway.start()?;
    let first = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let second = ClientNode::new(&lab, 1, &programs)?;
    let link = gateway.invite("bob")?.link;
    assert_says(&second.run(&["import", &link])?, FAILED, &["10.8.0.0/30, 1 client", "owner"]);
    drop(first);
    Ok(())
}

#[test]
fn a_full_disk_stops_log_ins_but_no_session_and_loses_nothing() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::new(&lab, &programs);
    let state_dir = gateway.state_dir().display().to_string();
    let node = gateway.node.clone();
    node.ok(&["mkdir", "-p", &state_dir])?;
    node.ok(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", &state_dir])?;
    gateway.init(&address::GATEWAY.to_string())?;
    gateway.start()?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let link = gateway.invite("bob")?.link;
    let filler = format!("{state_dir}/filler");
    node.run(&["sh", "-c", &format!("cat /dev/zero > {filler}")])?;

    let mut refused = None;
    for n in 0..40 {
        // the write-ahead log has room for some more
        let ran = gateway.run(&["user", "add", &format!("user{n}")])?;
        if ran.code() != 0 {
            refused = Some(ran);
            break;
        }
    }
    let refused = refused.context("the disk is not full")?;
    assert_says(&refused, FAILED, &[&format!("file system of {state_dir}"), "full", "free some"]);
    let other = ClientNode::new(&lab, 1, &programs)?;
    assert_says(&other.run(&["import", &link])?, FAILED, &["try again in 15 seconds"]);
    assert_eq!(Ping::send(&client.node, address::WEB.into(), 20)?.received, 20);
    let users = json(&gateway, &["user", "list", "--json"])?;
    assert!(users.as_array().is_some_and(|users| users.len() >= 2), "{users}");

    // a second start on a full disk; the first has made some room by its end
    gateway.stop()?;
    let before = HostState::of(&node)?;
    node.run(&["sh", "-c", &format!("cat /dev/zero >> {filler}")])?;
    assert_says(&gateway.run(&["run"])?, FAILED, &[&state_dir, "free some space"]);
    before.expect_unchanged(&node, "after starting on a full disk")?;
    node.ok(&["rm", &filler])?;
    gateway.start()?;
    other.import(&link)?;
    client.wait_for_state("connected", Duration::from_secs(30))?;
    assert!(client.process()?.is_running());
    let after = json(&gateway, &["user", "list", "--json"])?;
    assert_eq!(after.as_array().map(Vec::len), users.as_array().map(Vec::len));
    Ok(())
}

#[test]
fn a_read_only_state_folder_is_named_and_nothing_is_lost() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    client.disconnect()?;
    gateway.stop()?;
    let before = HostState::of(&gateway.node)?;
    let state_dir = gateway.state_dir().display().to_string();
    gateway.node.ok(&["mount", "--bind", &state_dir, &state_dir])?;
    gateway.node.ok(&["mount", "-o", "remount,bind,ro", &state_dir])?;
    for words in [&["run"][..], &["user", "add", "bob"], &["cert", "renew"]] {
        let ran = gateway.run(words)?;
        assert_says(&ran, FAILED, &[&state_dir, "read-only"]);
    }
    before.expect_unchanged(&gateway.node, "after starting in a read-only folder")?;
    gateway.node.ok(&["umount", &state_dir])?;
    gateway.start()?;
    client.connect(&[]).map(drop)
}

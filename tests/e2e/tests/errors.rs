//! What goes wrong is said clearly, with the remedy and the right exit code, and leaves nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use e2e::{ClientNode, GatewayNode, HostState, Lab, Options, Programs, Ran, address};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_PERMITTED: i32 = 3;
const NOT_REACHABLE: i32 = 4;
const REJECTED: i32 = 5;

/// The exit code, and words of the message in any case of letters.
fn assert_says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code(), code, "exit code of {ran}");
    let message = ran.stderr.to_lowercase();
    for word in words {
        assert!(message.contains(&word.to_lowercase()), "no {word:?} in the message of {ran}");
    }
    assert!(!message.contains("panicked"), "{ran}");
}

/// An ordinary user of the machine.
fn as_nobody<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    [&prefix[..], words].concat()
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_rejected_alike() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    gateway.user_add("alice", Some("correct horse"))?;
    let client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    let before = HostState::of(&client.node)?;
    let log_in = |user: &str, password: &str| {
        let words = client.words(&["login", user, "--password-stdin"]);
        client.node.run_with(&words, &format!("{password}\n"), Duration::from_secs(20))
    };
    assert_says(&log_in("alice", "wrong")?, REJECTED, &["rejected", "password"]);
    assert_says(&log_in("nobody-here", "wrong")?, REJECTED, &["rejected", "password"]);
    before.expect_unchanged(&client.node, "after a rejected log-in")?;
    log_in("alice", "correct horse")?.ok().map(drop)
}

#[test]
fn another_gateway_at_the_same_address_is_refused_by_its_key() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::new(&lab, 0, &programs)?;
    let link = gateway.invite("alice")?.link;
    client.import(&link)?;
    gateway.stop()?;
    std::fs::remove_dir_all(gateway.state_dir())?;
    gateway.init(&address::GATEWAY.to_string())?;
    gateway.start()?;

    let before = HostState::of(&client.node)?;
    let ran = client.run(&["connect", "--foreground"])?;
    assert_says(&ran, FAILED, &["another key", "invitation"]);
    before.expect_unchanged(&client.node, "after the wrong key")
}

#[test]
fn a_gateway_that_is_down_is_named_and_the_invitation_stays_good() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let link = gateway.invite("alice")?.link;
    gateway.stop()?;

    let client = ClientNode::new(&lab, 0, &programs)?;
    let before = HostState::of(&client.node)?;
    let host = address::GATEWAY.to_string();
    let ran = client.run(&["import", &link])?;
    assert_says(&ran, NOT_REACHABLE, &[&host, "8443"]);
    before.expect_unchanged(&client.node, "after a failed import")?;
    gateway.start()?;
    client.import(&link)?;

    gateway.stop()?;
    let ran = client.run(&["connect", "--foreground"])?;
    assert_says(&ran, NOT_REACHABLE, &[&host, "8443"]);
    before.expect_unchanged(&client.node, "after a failed connect")?;

    gateway.start()?;
    let other = ClientNode::new(&lab, 1, &programs)?;
    let ran = other.run(&["import", &link])?;
    assert_says(&ran, REJECTED, &["used", "invit"]);
    Ok(())
}

#[test]
fn a_taken_port_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut first = GatewayNode::new(&lab, &programs);
    first.init(&address::GATEWAY.to_string())?;
    let other = lab.gateway.spawn("other", &["iperf3", "--server", "--port", "8443"])?;
    std::thread::sleep(Duration::from_millis(300));
    let before = HostState::of(&lab.gateway)?;
    let ran = first.run(&["run"])?;
    assert_says(&ran, FAILED, &["8443", "in use"]);
    before.expect_unchanged(&lab.gateway, "after a taken port")?;

    drop(other);
    first.start()?;
    let running = HostState::of(&lab.gateway)?;
    let ran = first.run(&["run"])?;
    assert_says(&ran, FAILED, &["running"]);
    running.expect_unchanged(&lab.gateway, "after a second gateway was refused")?;
    first.stop()
}

#[test]
fn ordinary_users_are_told_to_be_root() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    gateway.stop()?;
    let before = HostState::of(&client.node)?;
    for words in [&["connect", "--foreground"][..], &["repair"]] {
        let ran = client.node.run(&as_nobody(&client.words(words)))?;
        assert_says(&ran, NOT_PERMITTED, &["sudo"]);
    }
    before.expect_unchanged(&client.node, "after an ordinary user's attempt")?;
    for (words, remedy) in [
        (&["run"][..], "root"),
        (&["repair"], "root"),
        (&["init", "--endpoint", "203.0.113.2"], "sudo"),
    ] {
        let ran = gateway.node.run(&as_nobody(&gateway.words(words)))?;
        assert_says(&ran, NOT_PERMITTED, &[remedy]);
    }
    Ok(())
}

#[test]
fn a_missing_tun_device_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    let before = HostState::of(&client.node)?;
    client.node.ok(&["mount", "-t", "tmpfs", "tmpfs", "/dev/net"])?;
    assert_says(&client.run(&["connect", "--foreground"])?, FAILED, &["/dev/net/tun", "tun"]);
    before.expect_unchanged(&client.node, "after connecting without TUN")?;

    gateway.stop()?;
    let before = HostState::of(&gateway.node)?;
    gateway.node.ok(&["mount", "-t", "tmpfs", "tmpfs", "/dev/net"])?;
    assert_says(&gateway.run(&["run"])?, FAILED, &["/dev/net/tun", "tun"]);
    before.expect_unchanged(&gateway.node, "after starting without TUN")
}

#[test]
fn a_wrong_configuration_is_named_by_file_line_and_key() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::new(&lab, &programs);
    let ran = gateway.run(&["run"])?;
    assert_says(&ran, FAILED, &["server.yaml", "init"]);

    gateway.init(&address::GATEWAY.to_string())?;
    let before = HostState::of(&gateway.node)?;
    let config_path = gateway.state_dir().join("server.yaml");
    let good = std::fs::read_to_string(&config_path)?;
    for (from, to, key, hint) in [
        ("mtu: 1420", "mtu: 99", "mtu", "1280"),
        ("mtu: 1420", "mtuu: 1420", "mtuu", "mtu"),
        ("mtu: 1420", "mtu: [", "mtu", ""),
        ("  v4: 10.8.0.0/24", "  v4: 10.8.0.0", "v4", "/"),
    ] {
        let bad = good.replace(from, to);
        let line = bad.lines().position(|line| line == to).map_or(0, |index| index + 1);
        assert_ne!(line, 0, "server.yaml has no line {from:?}");
        std::fs::write(&config_path, bad)?;
        let ran = gateway.run(&["run"])?;
        let file = config_path.display().to_string();
        // an open bracket is only noticed further down
        let line = if hint.is_empty() { String::new() } else { format!("line {line}") };
        assert_says(&ran, FAILED, &[&file, "line", &line, key, hint]);
        before.expect_unchanged(&gateway.node, "after a wrong configuration")?;
    }
    Ok(())
}

#[test]
fn unusable_links_and_calls_at_the_wrong_time_are_explained() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    let before = HostState::of(&client.node)?;

    assert_says(&client.run(&["connect", "--foreground"])?, FAILED, &["import"]);
    assert_says(&client.run(&["import", "https://example.org/"])?, USAGE, &["cipherwall://"]);
    let mut damaged = gateway.invite("alice")?.link;
    damaged.truncate(damaged.len() - 9);
    assert_says(&client.run(&["import", &damaged])?, USAGE, &[]);
    assert_says(&client.run(&["disconnect"])?, NOT_REACHABLE, &["not connected"]);
    assert_says(&client.run(&["status"])?, NOT_REACHABLE, &[]);
    assert_says(&client.run(&["conect"])?, USAGE, &["connect"]);
    assert!(!Path::new("/run/cipherwall").exists(), "tests must not use the host's directories");

    client.import(&gateway.invite("alice")?.link)?;
    assert_says(&client.run(&["connect"])?, NOT_REACHABLE, &["daemon", "--foreground"]);
    before.expect_unchanged(&client.node, "after failed calls")?;
    client.connect(&[])?;
    let connected = HostState::of(&client.node)?;
    let ran = client.run(&["connect", "--foreground"])?;
    assert_says(&ran, FAILED, &["already connected", "disconnect"]);
    connected.expect_unchanged(&client.node, "after a second connect")
}

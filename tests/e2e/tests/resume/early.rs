//! TLS early data (0-RTT): what it gains and shows, and that a replay of it does nothing (A9).

use anyhow::ensure;
use e2e::Node;

use super::*;

/// Type and length of TLS records.
const HEADER: usize = 5;
const HANDSHAKE: u8 = 0x16;
const CHANGE_CIPHER_SPEC: u8 = 0x14;
const APPLICATION_DATA: u8 = 0x17;
/// The extension early_data (RFC 8446, 4.2.10).
const EARLY_DATA: u16 = 42;
/// A hint in a record: with its inner type and the tag.
const HINT: usize = 53 + 1 + 16;

/// A request, but for its last line break.
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";

/// A running gateway whose log tells of hints.
pub(crate) fn gateway(lab: &Lab, programs: &Programs, early_data: bool) -> Result<GatewayNode> {
    let mut gateway = GatewayNode::new(lab, programs);
    gateway.init(&address::GATEWAY.to_string())?;
    let config_path = gateway.state_dir().join("server.yaml");
    let config = std::fs::read_to_string(&config_path)?;
    ensure!(config.contains("\n  early_data: off\n"), "server.yaml has no early_data: off");
    let mut config = config.replace("  level: info", "  level: debug");
    if early_data {
        config = config.replace("  early_data: off", "  early_data: on");
    }
    std::fs::write(&config_path, config)?;
    gateway.start()?;
    Ok(gateway)
}

/// The option of `connect`.
pub(crate) fn option(early_data: bool) -> &'static [&'static str] {
    if early_data { &["--early-data"] } else { &[] }
}

/// How many hints the gateway has taken.
pub(crate) fn hints(gateway: &mut GatewayNode) -> Result<u32> {
    let log = gateway.process()?.stderr();
    Ok(log.lines().filter(|line| line.contains("a client hints at its session")).count() as u32)
}

/// What a client sends before it has heard anything.
pub(crate) struct FirstFlight {
    /// Whether its hello asks for early data.
    pub(crate) early_data: bool,
    /// The record that has the length of a hint, if it is there.
    pub(crate) hint: Option<Vec<u8>>,
    /// Of all of it, in bytes.
    pub(crate) length: usize,
}

/// Takes the first flight out of all that a client has sent.
pub(crate) fn first_flight(sent: &[u8]) -> Result<FirstFlight> {
    let (kind, hello, mut rest) = record(sent).context("no record")?;
    ensure!(kind == HANDSHAKE, "no hello");
    let early_data = extensions(hello).context("no hello")?.contains(&EARLY_DATA);
    let mut length = sent.len() - rest.len();
    let mut hint = None;
    while let Some((kind, body, behind)) = record(rest) {
        // what comes behind a hint of another length is no part of the flight
        match kind {
            CHANGE_CIPHER_SPEC => {}
            APPLICATION_DATA if hint.is_none() && body.len() == HINT && early_data => {
                hint = Some(body.to_vec());
            }
            _ => break,
        }
        rest = behind;
        length = sent.len() - rest.len();
    }
    Ok(FirstFlight { early_data, hint, length })
}

fn record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    let (body, rest) = rest.split_at_checked(length)?;
    Some((header[0], body, rest))
}

/// The types of a ClientHello's extensions.
fn extensions(hello: &[u8]) -> Option<Vec<u16>> {
    let word =
        |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    // type and length, version, random, session id, cipher suites, compression
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(*hello.get(at)?);
    at += 2 + usize::from(word(hello, at)?);
    at += 1 + usize::from(*hello.get(at)?);
    let end = at + 2 + usize::from(word(hello, at)?);
    at += 2;
    let mut found = Vec::new();
    while at < end {
        found.push(word(hello, at)?);
        at += 4 + usize::from(word(hello, at + 2)?);
    }
    Some(found)
}

#[test]
fn with_early_data_the_first_answer_comes_after_as_many_round_trips() -> Result<()> {
    assert_three_round_trips(true)
}

#[test]
fn replayed_early_data_does_nothing_here_or_at_another_gateway() -> Result<()> {
    assert_replay_does_nothing(true)
}

#[test]
fn one_end_alone_with_early_data_is_no_obstacle() -> Result<()> {
    for (gateways, clients) in [(true, false), (false, true)] {
        let lab = Lab::new()?;
        let programs = Programs::find()?;
        let relay = Relay::start(&lab.routers[0])?;
        let mut gateway = gateway(&lab, &programs, gateways)?;
        let mut client = ClientNode::new(&lab, 0, &programs)?;
        client.import(&gateway.invite("alice")?.link)?;
        client.connect(option(clients))?;
        kept_session(&client, "")?;
        break_connection(&relay, &client, Way::Down, Fault::Truncated)?;
        assert!(let_in(&mut gateway)?.ends_with(&[true]));
        assert!(!first_flight(&relay.opening())?.early_data, "nobody asked, or nobody offered");
        assert_eq!(hints(&mut gateway)?, 0);
        works(&lab, &client)?;
    }
    Ok(())
}

/// A stranger with a common TLS client, who comes back with his ticket and asks early for a page.
#[test]
fn a_stranger_is_offered_early_data_only_if_it_is_on_and_it_is_the_web_site_s() -> Result<()> {
    for early_data in [false, true] {
        let lab = Lab::new()?;
        let programs = Programs::find()?;
        let mut gateway = gateway(&lab, &programs, early_data)?;
        let ticket = lab.internet.dir().join("ticket");
        let first = visit(&lab.internet, &ticket, None)?;
        let announced = if early_data { "Max Early Data: 16384" } else { "Max Early Data: 0" };
        assert!(first.contains(announced), "{first}");
        assert!(first.contains("200 OK"), "{first}");

        for (try_, accepted) in [(1, early_data), (2, false)] {
            let page = visit(&lab.internet, &ticket, Some(REQUEST))?;
            assert_eq!(page.contains("Early data was accepted"), accepted, "{try_}: {page}");
            // what was not read early is missing in the request
            assert_eq!(page.contains("200 OK"), accepted, "{try_}: {page}");
        }
        // the same length and beginning as a hint, but nobody's
        let hint = format!("\u{2}{}", "x".repeat(52));
        visit(&lab.internet, &ticket, None)?;
        let answer = visit(&lab.internet, &ticket, Some(&hint))?;
        assert_eq!(answer.contains("Early data was accepted"), early_data, "{answer}");
        assert_eq!(answer.contains("400 Bad Request"), early_data, "the site's: {answer}");
        assert_eq!(hints(&mut gateway)?, 0);
    }
    Ok(())
}

/// A visit with `openssl s_client`: what it says, with the answer. It keeps its ticket, or comes with
/// the one that it has and sends `early` as early data; a header's end follows.
fn visit(node: &Node, ticket: &Path, early: Option<&str>) -> Result<String> {
    let ticket_path = ticket.to_str().context("path is not UTF-8")?;
    let early_path = ticket.with_extension("early");
    std::fs::write(&early_path, early.unwrap_or_default())?;
    let early_path = early_path.to_str().context("path is not UTF-8")?;
    let (request, options) = match early {
        None => (format!("{REQUEST}\r\n"), format!("-sess_out {ticket_path}")),
        Some(_) => ("\r\n".into(), format!("-sess_in {ticket_path} -early_data {early_path}")),
    };
    let gateway = address::GATEWAY;
    let command = format!(
        "(sleep 0.5; printf '%s' '{request}'; sleep 1) | \
         openssl s_client -connect {gateway}:8443 -tls1_3 -ign_eof {options} 2>&1"
    );
    Ok(node.run(&["timeout", "5", "sh", "-c", &command])?.stdout)
}

//! What goes wrong is said clearly, with the remedy, and leaves nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use e2e::{HostState, Lab, address};

use crate::{PATIENCE, Pair, SERVER, assert_says, path};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_PERMITTED: i32 = 3;

#[test]
fn keygen_makes_a_key_for_its_owner_and_never_replaces_one_by_itself() -> Result<()> {
    let lab = Lab::new()?;
    let pair = Pair::new(&lab)?;
    let file_path = pair.client.node.dir().join("other.key");
    let file = path(&file_path);
    let ran = pair.client.run(&["keygen", file])?;
    for words in [file, "cipherwall static --key", "cipherwall-server static --key"] {
        assert!(ran.stdout.contains(words), "what to do next: {ran}");
    }
    let text = fs::read_to_string(&file_path)?;
    assert_eq!(text.len(), 129);
    assert!(!ran.stdout.contains(text.trim()), "the key itself is not shown");
    assert_eq!(fs::metadata(&file_path)?.permissions().mode() & 0o777, 0o600);
    assert_says(&pair.client.run(&["keygen", file])?, FAILED, &[file, "exists", "--force"]);
    assert_says(&pair.gateway.run(&["keygen", file])?, FAILED, &[file, "exists", "--force"]);
    assert_eq!(fs::read_to_string(&file_path)?, text);
    pair.gateway.run(&["keygen", "--force", file])?.ok()?;
    assert_ne!(fs::read_to_string(&file_path)?, text);
    Ok(())
}

#[test]
fn a_key_file_that_is_none_is_refused_by_both() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    let key_path = pair.key_path.clone();
    let key = path(&key_path).to_owned();
    let good = fs::read_to_string(&key_path)?;
    let before = [HostState::of(&lab.gateway)?, HostState::of(&lab.clients[0])?];
    let expect = |code, words: &[&str]| -> Result<()> {
        let words = [words, &[key.as_str()]].concat();
        let ran = pair.gateway.run(&["static", "--key", &key])?;
        assert_says(&ran, code, &words);
        let ran = pair.client.run(&["static", "--key", &key, "--server", SERVER])?;
        assert_says(&ran, code, &words);
        Ok(())
    };
    for (text, reason) in [
        (good[2..].to_owned(), "126 hexadecimal digits"),
        (good.replace('\n', "00\n"), "130 hexadecimal digits"),
        (good.clone() + "\n", "character 129"),
        (String::from("-----BEGIN OpenVPN Static key V1-----"), "character 1 "),
        (String::new(), "0 hexadecimal digits"),
    ] {
        fs::write(&key_path, text)?;
        expect(FAILED, &[reason, "128 hexadecimal digits", "keygen"])?;
    }
    fs::remove_file(&key_path)?;
    expect(FAILED, &["no key file", "keygen"])?;
    for (before, node) in before.iter().zip([&lab.gateway, &lab.clients[0]]) {
        before.expect_unchanged(node, "after a bad key file")?;
    }

    fs::write(&key_path, good)?;
    fs::set_permissions(&key_path, Permissions::from_mode(0o644))?;
    pair.start_gateway(&[])?;
    let said = pair.gateway()?.wait_for_error_line("chmod 600", PATIENCE)?;
    assert!(said.contains(&key), "{said}");
    Ok(())
}

#[test]
fn what_is_wrong_with_the_command_line_or_the_machine_is_said() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    let key = path(&pair.key_path).to_owned();
    let client = |pair: &Pair, server: &str, more: &[&str]| {
        pair.client.run(&[&["static", "--key", &key, "--server", server], more].concat())
    };
    let gateway =
        |pair: &Pair, more: &[&str]| pair.gateway.run(&[&["static", "--key", &key], more].concat());
    let before = [HostState::of(&lab.gateway)?, HostState::of(&lab.clients[0])?];

    let ran = client(&pair, "missing.lab.test", &[])?;
    assert_says(&ran, FAILED, &["cannot find the gateway missing.lab.test", "check"]);
    assert_says(&client(&pair, "host:port", &[])?, USAGE, &["--server", "HOST:PORT"]);
    for net in ["10.8.0.1/32", "fd00::/64", "ten"] {
        assert_says(&client(&pair, SERVER, &["--net", net])?, USAGE, &["--net", "10.8.0.0/24"]);
        assert_says(&gateway(&pair, &["--net", net])?, USAGE, &["--net", "10.8.0.0/24"]);
    }
    assert_says(
        &gateway(&pair, &["--replay", "never"])?,
        USAGE,
        &["auto", "counter", "seen", "off"],
    );
    let ran = gateway(&pair, &["--listen", "192.0.2.77:1194"])?;
    assert_says(&ran, FAILED, &["--listen", "192.0.2.77:1194", "address of this machine"]);
    let words = pair.gateway.words(&["static", "--key", &key]);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    assert_says(&lab.gateway.run(&[&nobody, &words[..]].concat())?, NOT_PERMITTED, &["sudo"]);

    // a network that each of them has already
    let ran = client(&pair, SERVER, &["--net", "192.168.1.0/24"])?;
    assert_says(&ran, FAILED, &["192.168.1.0/24", "eth0", "--net"]);
    let ran = gateway(&pair, &["--net", "10.77.0.0/16"])?;
    assert_says(&ran, FAILED, &["10.77.0.0/16", "eth1", "--net"]);

    // a program has the port
    let taken = "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                 s.bind(('0.0.0.0', 1194))\nprint('bound', flush=True)\ntime.sleep(60)";
    let mut other = lab.gateway.spawn("other", &["/usr/bin/python3", "-c", taken])?;
    other.wait_for_line("bound", PATIENCE)?;
    assert_says(&gateway(&pair, &[])?, FAILED, &["0.0.0.0:1194", "in use"]);
    drop(other);
    for (before, node) in before.iter().zip([&lab.gateway, &lab.clients[0]]) {
        before.expect_unchanged(node, "after what went wrong")?;
    }

    // a second instance of either
    pair.start_gateway(&[])?;
    pair.start_client(&[])?;
    assert_says(
        &gateway(&pair, &["--listen", "0.0.0.0:5000"])?,
        FAILED,
        &["another instance", "stop it"],
    );
    assert_says(&client(&pair, SERVER, &[])?, FAILED, &["already connected", "disconnect"]);
    Ok(())
}

/// Neither learns anything from the other, but the owners of both are told.
#[test]
fn different_keys_are_pointed_out_to_both() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    pair.start_gateway(&[])?;
    let key_path = pair.key_path.clone();
    pair.gateway.run(&["keygen", "--force", path(&key_path)])?.ok()?;
    let client = pair.start_client_without_waiting(&[])?;
    let said = client.wait_for_error_line("nothing has come back", PATIENCE)?;
    assert!(said.contains(SERVER) && said.contains("same key file"), "{said}");
    assert!(!client.stdout().contains("connected"));
    pair.gateway()?.wait_for_error_line("same key file", PATIENCE)?;
    assert_eq!(pair.client.status()?.state, "connecting");
    Ok(())
}

/// A client that insists on IPv6 where the gateway has none does not get anywhere by another way.
#[test]
fn the_other_address_family_works_if_both_sides_have_it() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    pair.start_gateway(&["--listen", "[::]:1194"])?;
    let server = format!("[{}]:1194", address::GATEWAY_V6);
    let line = pair.start_client(&["--server", &server])?;
    assert!(line.contains(&server), "{line}");
    lab.transfer(&pair.client.node, 4 << 20)?;
    let pinged = e2e::Ping::send_with(
        &pair.client.node,
        address::WEB.into(),
        5,
        &["-s", "1372", "-M", "do"],
    )?;
    assert_eq!(pinged.received, 5, "the longest packets that fit in");
    crate::end(pair.client()?)?;
    // and the same gateway over IPv4
    pair.start_client(&[])?;
    crate::assert_flows(&pair.client)
}

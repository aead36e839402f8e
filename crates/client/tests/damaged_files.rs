//! The client's own files as a disk, an editor or another program may have left them: the program says
//! which file is wrong, and goes on or ends in order.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Damaged files of each kind.
const FILES: u64 = 50;

const PROFILE: &str = r#"{
  "name": "home",
  "endpoints": [
    {
      "host": "127.0.0.1",
      "port": 1,
      "transport": "tls",
      "pins": [
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
      ]
    }
  ],
  "user": "alice",
  "salt": "AAAAAAAAAAAAAAAAAAAAAA==",
  "door_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
  "enrol_secret": "AAAAAAAAAAAAAAAAAAAAAA==",
  "sni": ["www.example.net"],
  "device_seed": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
  "last_good_addresses": ["192.0.2.1:8443"]
}
"#;
const SESSION: &str = r#"{
  "user": "alice",
  "token": "AAAAAAAAAAAAAAAAAAAAAA==",
  "id": "AAAAAAAAAAAAAAAAAAAAAA==",
  "version": 1,
  "cipher": 1,
  "datagram": 3
}
"#;
const SETTINGS: &str = "{\n  \"allow_lan\": true\n}\n";

fn run(state_dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cipherwall"));
    command.arg("--state-dir").arg(state_dir).args(args).output().expect("started")
}

fn put(state_dir: &Path, profile: &[u8], session: &[u8], settings: &[u8]) {
    let profiles = state_dir.join("profiles");
    fs::create_dir_all(&profiles).expect("made");
    fs::write(profiles.join("home.json"), profile).expect("written");
    fs::write(profiles.join("home.session"), session).expect("written");
    fs::write(state_dir.join("client.json"), settings).expect("written");
}

/// The text after some accident, another one for each seed.
fn damaged(text: &str, seed: u64) -> Vec<u8> {
    let mut random = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % bound as u64).expect("small")
    };
    let mut bytes = text.as_bytes().to_vec();
    let at = below(bytes.len());
    match seed % 5 {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << below(8),
        2 => bytes[at..].fill(0),
        3 => {
            let length = below(40).min(bytes.len() - at);
            bytes.drain(at..at + length);
        }
        _ => {
            let piece = bytes[at..bytes.len().min(at + 60)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
    bytes
}

fn check(output: &Output, file: &str, json: &[u8]) {
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().expect("it ends by itself");
    assert!(code <= 5 && !said.contains("panicked"), "code {code}: {said}");
    if serde_json::from_slice::<serde_json::Value>(json).is_err() {
        let shown =
            [said.into_owned(), String::from_utf8_lossy(&output.stdout).into_owned()].concat();
        assert!(shown.contains(file), "{file} is not named: {shown}");
    }
}

#[test]
fn a_damaged_file_is_named_and_ends_nothing_else() {
    let dir = TempDir::new().expect("a directory");
    let list = ["profile", "list"];
    put(dir.path(), PROFILE.as_bytes(), SESSION.as_bytes(), SETTINGS.as_bytes());
    let output = run(dir.path(), &list);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("home"));
    let login = ["login", "alice", "--password-stdin"];
    for seed in 0..FILES {
        let (profile, settings) = (damaged(PROFILE, seed), damaged(SETTINGS, seed));
        let session = damaged(SESSION, seed);
        put(dir.path(), &profile, &session, SETTINGS.as_bytes());
        check(&run(dir.path(), &list), "home.json", &profile);
        check(&run(dir.path(), &["profile", "show", "home"]), "home.json", &profile);
        put(dir.path(), PROFILE.as_bytes(), &session, &settings);
        check(&run(dir.path(), &login), "client.json", &settings);
    }
}

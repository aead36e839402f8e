//! The real program, without a running gateway: what an administrator does first, and what he is
//! told when something is wrong.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cipherwall_proto::invitation::Invitation;
use serde_json::Value;
use tempfile::TempDir;

/// A gateway's directory.
struct Gateway {
    dir: TempDir,
}

/// What a program said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Gateway {
    /// Nothing set up yet.
    fn bare() -> Gateway {
        Gateway { dir: tempfile::tempdir().unwrap() }
    }

    fn new() -> Gateway {
        let gateway = Gateway::bare();
        gateway.ok(&["init", "--endpoint", "vpn.example.net"]);
        gateway
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cipherwall-server"));
        command.arg("--state-dir").arg(self.dir.path()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs a command that must succeed, and returns its standard output.
    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// Runs a command that must fail, and returns its complaint.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert_eq!(said.stdout, "", "{arguments:?}");
        said.stderr
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in: {text}");
}

#[test]
fn init_says_what_it_made_and_what_to_do_next() {
    let gateway = Gateway::bare();
    let text = gateway.ok(&["init", "--endpoint", "198.51.100.7:443"]);
    contains(&text, "Endpoint:      198.51.100.7:443\n");
    contains(&text, "Listens on:    [::]:443\n");
    contains(&text, &format!("{}/server.yaml (new)", gateway.dir.path().display()));
    contains(&text, &format!("--state-dir {} invite create NAME", gateway.dir.path().display()));
    for secret in ["gateway.key", "spare.key", "gateway.crt", "server.db"] {
        let mode = fs::metadata(gateway.path(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

#[test]
fn a_second_init_changes_the_endpoint_and_nothing_else() {
    let gateway = Gateway::new();
    gateway.ok(&["user", "add", "ada"]);
    let edited = fs::read_to_string(gateway.path("server.yaml")).unwrap();
    let edited = edited.replace("mtu: 1420", "mtu: 1300 # mine");
    fs::write(gateway.path("server.yaml"), &edited).unwrap();
    let (key, spare) = (gateway.read("gateway.key"), gateway.read("spare.key"));
    let pins = gateway.json(&["cert", "show", "--json"])["pins"].clone();

    let text = gateway.ok(&["init", "--endpoint", "new.example.net:443"]);
    contains(&text, "server.yaml (changed)");
    contains(&text, "spare.key (kept)");
    contains(&text, "does not listen on the endpoint's port 443");
    let config = fs::read_to_string(gateway.path("server.yaml")).unwrap();
    assert_eq!(config, edited.replace("vpn.example.net:8443", "new.example.net:443"));
    assert_eq!((gateway.read("gateway.key"), gateway.read("spare.key")), (key, spare));
    let certificate = gateway.json(&["cert", "show", "--json"]);
    assert_eq!(certificate["pins"], pins);
    assert_eq!(certificate["names"], serde_json::json!(["new.example.net"]));
    assert_eq!(gateway.json(&["user", "list", "--json"])[0]["name"], "ada");

    let again = gateway.ok(&["init", "--endpoint", "new.example.net:443"]);
    contains(&again, "server.yaml (kept)");
}

#[test]
fn init_refuses_what_cannot_be_an_endpoint() {
    let gateway = Gateway::bare();
    for endpoint in ["", "https://a.example", "a.example:0", "0.0.0.0"] {
        contains(&gateway.fails(2, &["init", "--endpoint", endpoint]), "HOST:PORT");
    }
    assert!(!gateway.path("server.yaml").exists(), "nothing is left behind");
}

#[test]
fn users_are_added_once_and_listed() {
    let gateway = Gateway::new();
    assert_eq!(gateway.ok(&["user", "add", "Ada"]), "user ada added\n");
    contains(&gateway.fails(1, &["user", "add", "ADA"]), "user ada exists already");
    contains(&gateway.fails(1, &["user", "add", "two words"]), "user name");

    let mut child = gateway
        .command(&["user", "add", "bob", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    assert_eq!(said(child.wait_with_output().unwrap()).stdout, "user bob added\n");
    contains(&gateway.fails(2, &["user", "add", "eve", "--password-stdin"]), "empty");

    let users = gateway.json(&["user", "list", "--json"]);
    let users: Vec<_> = users.as_array().unwrap().iter().collect();
    let facts = |n: usize| (users[n]["name"].as_str().unwrap(), users[n]["has_password"].clone());
    assert_eq!(users.len(), 2);
    assert_eq!(facts(0), ("ada", false.into()));
    assert_eq!(facts(1), ("bob", true.into()));
    contains(&gateway.ok(&["user", "list"]), "ada   enabled  no        0        never");
}

#[test]
fn an_invitation_holds_what_a_client_needs() {
    let gateway = Gateway::bare();
    gateway.ok(&["init", "--endpoint", "[2001:db8::7]:443"]);
    let made = gateway.json(&["invite", "create", "Ada", "--expires", "2h", "--json"]);
    let invitation = Invitation::from_link(made["link"].as_str().unwrap()).unwrap();
    assert_eq!(invitation.user, "ada");
    assert_eq!(made["user"], "ada");
    assert_eq!(made["expires"], invitation.expires);
    let endpoint = &invitation.endpoints[0];
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("2001:db8::7", 443));
    let hex = |pin: &[u8; 32]| pin.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let pins: Vec<_> = endpoint.pins.iter().map(hex).collect();
    assert_eq!(gateway.json(&["cert", "show", "--json"])["pins"], serde_json::json!(pins));
    let in_two_hours = std::time::SystemTime::now() + std::time::Duration::from_secs(7200);
    let in_two_hours = in_two_hours.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(in_two_hours.abs_diff(invitation.expires) < 60);

    let other = gateway.json(&["invite", "create", "ada", "--json"]);
    let other = Invitation::from_link(other["link"].as_str().unwrap()).unwrap();
    assert_ne!(other.enrol_secret, invitation.enrol_secret);
    assert_eq!((other.door_key, other.salt), (invitation.door_key, invitation.salt));
    assert_eq!(gateway.json(&["user", "list", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_script_gets_the_link_alone() {
    let gateway = Gateway::new();
    let link = gateway.ok(&["invite", "create", "ada"]);
    assert_eq!(link.lines().count(), 1);
    Invitation::from_link(link.trim_end()).unwrap();
    for bad in ["soon", "0s", "900y"] {
        contains(&gateway.fails(2, &["invite", "create", "ada", "--expires", bad]), "--expires");
    }
}

#[test]
fn status_and_sessions_of_a_gateway_that_does_not_run() {
    let gateway = Gateway::new();
    gateway.ok(&["user", "add", "ada"]);
    let status = gateway.json(&["status", "--json"]);
    assert_eq!(status["running"], false);
    assert_eq!(status["users"], 1);
    assert_eq!(status["pool_size"], 253);
    assert_eq!(status["networks"][0], "10.8.0.1/24");
    contains(&gateway.ok(&["status"]), "State:      not running\n");
    assert_eq!(gateway.ok(&["session", "list", "--json"]), "[]\n");
}

#[test]
fn before_init_every_command_says_to_run_it() {
    let gateway = Gateway::bare();
    for command in [
        &["run"][..],
        &["user", "list"],
        &["invite", "create", "ada"],
        &["session", "list"],
        &["status"],
        &["cert", "show"],
    ] {
        let said = gateway.fails(1, command);
        contains(&said, "run `cipherwall-server init --endpoint HOST[:PORT]` first");
    }
    assert_eq!(fs::read_dir(gateway.dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn an_unknown_key_is_named_by_file_line_and_key() {
    let gateway = Gateway::new();
    let path = gateway.path("server.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().position(|line| line.starts_with("mtu:")).unwrap() + 1;
    fs::write(&path, text.replace("mtu:", "mtuu:")).unwrap();
    let expected =
        format!("{}, line {line}: unknown key \"mtuu\"; did you mean \"mtu\"?", path.display());
    contains(&gateway.fails(1, &["run"]), &expected);
    contains(&gateway.fails(1, &["user", "list"]), &expected);
    contains(&gateway.fails(1, &["init", "--endpoint", "a.example"]), &expected);
}

#[test]
fn a_damaged_or_lost_database_is_said_with_the_remedy() {
    let gateway = Gateway::new();
    let path = gateway.path("server.db");
    fs::write(&path, vec![b'x'; 4096]).unwrap();
    for command in [&["run"][..], &["user", "list"], &["status"]] {
        let said = gateway.fails(1, command);
        contains(&said, &format!("{} is damaged", path.display()));
        contains(&said, "restore it from a backup or move it away");
    }
    fs::remove_file(&path).unwrap();
    contains(&gateway.fails(1, &["user", "list"]), "server.db is missing; restore it");
    assert!(!path.exists(), "no empty one in its place");
}

#[test]
fn without_rights_it_says_so() {
    let gateway = Gateway::new();
    if !fs::metadata(gateway.dir.path()).is_ok_and(|dir| dir.uid() == 0) {
        return; // Only root can become somebody else.
    }
    let program = tempfile::Builder::new().prefix("program").tempdir().unwrap();
    open_to_all(program.path());
    let copy = program.path().join("cipherwall-server");
    fs::copy(env!("CARGO_BIN_EXE_cipherwall-server"), &copy).unwrap();
    for arguments in [&["status"][..], &["run"], &["init", "--endpoint", "a.example"], &["repair"]]
    {
        let said = said(as_nobody(&copy, gateway.dir.path(), arguments));
        assert_eq!(said.code, 3, "{arguments:?}: {said:?}");
        assert!(said.stderr.contains("root") || said.stderr.contains("sudo"), "{said:?}");
    }
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

fn as_nobody(program: &Path, state_dir: &Path, arguments: &[&str]) -> Output {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command.arg("--state-dir").arg(state_dir).args(arguments).stdin(Stdio::null());
    command.uid(65534).gid(65534).current_dir("/").output().unwrap()
}

#[test]
fn completions_and_manual_pages_are_made() {
    let gateway = Gateway::bare();
    contains(&gateway.ok(&["completions", "bash"]), "cipherwall-server");
    gateway.ok(&["man", gateway.dir.path().to_str().unwrap()]);
    assert!(gateway.path("cipherwall-server-invite-create.1").exists());
}

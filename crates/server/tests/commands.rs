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
    contains(&gateway.ok(&["user", "list"]), "ada   enabled  no        0        never      never");
}

#[test]
fn a_user_is_shown_changed_and_removed() {
    let gateway = Gateway::new();
    gateway.ok(&["user", "add", "ada", "--expires", "30d"]);
    let expires = gateway.json(&["user", "show", "ADA", "--json"])["expires"].as_u64().unwrap();
    assert!((now() + 30 * 86_400).abs_diff(expires) < 60);
    contains(&gateway.ok(&["user", "set", "ada", "--expires", "2h"]), "the account of ada ends 2");
    contains(&gateway.ok(&["user", "set", "ada", "--expires", "never"]), "does not end");
    let shown = gateway.json(&["user", "show", "ada", "--json"]);
    assert_eq!(shown["expires"], Value::Null);
    assert_eq!(shown["device_list"], serde_json::json!([]));
    contains(&gateway.ok(&["user", "show", "ada"]), "Password:   no, by invitation only\n");

    let passwd = ["user", "passwd", "ada"];
    contains(&gateway.fails(2, &passwd), "--password-stdin");
    let mut child = gateway
        .command(&["user", "passwd", "ada", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    contains(&said(child.wait_with_output().unwrap()).stdout, "the password of ada is changed");
    assert_eq!(gateway.json(&["user", "show", "ada", "--json"])["has_password"], true);

    assert_eq!(gateway.ok(&["user", "disable", "Ada"]), "user ada disabled\n");
    contains(&gateway.ok(&["user", "list"]), "ada   disabled");
    assert_eq!(gateway.ok(&["user", "enable", "ada"]), "user ada enabled\n");
    contains(&gateway.fails(2, &["user", "remove", "ada"]), "add --yes");
    assert_eq!(gateway.ok(&["user", "remove", "ada", "--yes"]), "user ada removed\n");
    assert_eq!(gateway.ok(&["user", "list", "--json"]), "[]\n");
    for words in [&["show"][..], &["passwd"], &["disable"], &["enable"], &["remove", "--yes"]] {
        let words = [&["user"], words, &["ada"]].concat();
        contains(&gateway.fails(1, &words), "there is no user ada; `cipherwall-server user list`");
    }
}

#[test]
fn devices_sessions_and_invitations_that_are_not_there_are_named() {
    let gateway = Gateway::new();
    gateway.ok(&["invite", "create", "ada"]);
    assert_eq!(gateway.ok(&["device", "list", "--json"]), "[]\n");
    contains(&gateway.ok(&["device", "list", "ada"]), "ID  USER  DEVICE");
    contains(&gateway.fails(1, &["device", "list", "bob"]), "no user bob");
    contains(&gateway.fails(1, &["device", "remove", "7"]), "no device 7");
    contains(&gateway.fails(2, &["device", "remove", "phone"]), "ID");
    contains(&gateway.fails(1, &["session", "revoke", "ab12"]), "begins with \"ab12\"");
    assert_eq!(gateway.ok(&["session", "revoke", "--user", "Ada"]), "ada has no session\n");
    contains(&gateway.fails(2, &["session", "revoke"]), "--user");
    contains(&gateway.fails(2, &["session", "revoke", "ab", "--user", "ada"]), "--user");

    let list = gateway.json(&["invite", "list", "--json"]);
    assert_eq!((&list[0]["id"], &list[0]["state"]), (&1.into(), &"open".into()));
    assert_eq!(gateway.ok(&["invite", "revoke", "1"]), "invitation 1 for ada revoked\n");
    contains(&gateway.ok(&["invite", "list"]), "1   ada   revoked");
    contains(&gateway.fails(1, &["invite", "revoke", "2"]), "no invitation 2");
}

#[test]
fn a_renewed_certificate_has_the_same_keys() {
    let gateway = Gateway::new();
    let before = gateway.json(&["cert", "show", "--json"]);
    let (from, to) =
        (before["not_before"].as_i64().unwrap(), before["not_after"].as_i64().unwrap());
    assert_eq!(before["renews"].as_i64().unwrap(), from + (to - from) / 3 * 2);
    let (certificate, key) = (gateway.read("gateway.crt"), gateway.read("gateway.key"));
    contains(&gateway.ok(&["cert", "renew"]), "with the same key; renews 2");
    assert_ne!(gateway.read("gateway.crt"), certificate);
    assert_eq!(gateway.read("gateway.key"), key);
    assert_eq!(gateway.json(&["cert", "show", "--json"])["pins"], before["pins"]);
    contains(&gateway.ok(&["cert", "show"]), "Renews:        2");
}

#[test]
fn a_configuration_is_checked_without_a_gateway() {
    let gateway = Gateway::new();
    assert_eq!(gateway.ok(&["check-config"]), "ok\n");
    let other = gateway.path("other.yaml");
    let text = String::from_utf8(gateway.read("server.yaml")).unwrap();
    fs::write(&other, text.replace("mtu: 1420", "mtu: 99")).unwrap();
    let other = other.to_str().unwrap();
    let complaint = gateway.fails(1, &["check-config", other]);
    contains(&complaint, &format!("{other}, line "));
    contains(&complaint, "mtu: 99 is out of range; write 1280 to 65000 bytes");
    contains(&gateway.fails(1, &["check-config", "/no/such.yaml"]), "/no/such.yaml is missing");
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
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
    assert!((now() + 7200).abs_diff(invitation.expires) < 60);

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
        &["cert", "renew"],
        &["check-config"],
        &["device", "list"],
        &["user", "remove", "ada", "--yes"],
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
fn a_database_that_somebody_else_holds_is_said_with_the_remedy_and_loses_nothing() {
    use sqlx::{Connection as _, Executor as _, SqliteConnection};
    let gateway = Gateway::new();
    let path = gateway.path("server.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let held = runtime.block_on(async {
        let url = format!("sqlite://{}", path.display());
        let mut held = SqliteConnection::connect(&url).await.unwrap();
        held.execute("BEGIN EXCLUSIVE").await.unwrap();
        held
    });
    let complaint = gateway.fails(1, &["user", "add", "ada"]);
    contains(&complaint, &format!("{} is locked by another process", path.display()));
    contains(&complaint, "fuser");
    assert_eq!(gateway.ok(&["user", "list", "--json"]), "[]\n", "reading goes on");
    runtime.block_on(async move {
        let mut held = held;
        held.execute("ROLLBACK").await.unwrap();
        held.close().await.unwrap();
    });
    gateway.ok(&["user", "add", "ada"]);
}

#[test]
fn a_log_that_cannot_be_written_is_named() {
    let gateway = Gateway::new();
    let log = ["--log-file", "/proc/nowhere/gateway.log"];
    contains(&gateway.fails(1, &[&log[..], &["run"]].concat()), "/proc/nowhere/gateway.log");
    contains(&gateway.fails(1, &[&log[..], &["user", "list"]].concat()), "/proc/nowhere");
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

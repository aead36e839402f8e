//! Runs the built program and checks what a person or a script sees: exit codes, messages, files.
//! Nothing here needs root or a network beyond a closed port of this host.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cipherwall_ipc::daemon::fake::FakeDaemon;
use cipherwall_ipc::daemon::{Request, State, Status, socket_path};
use cipherwall_proto::invitation::{Endpoint, Invitation, Transport};
use tempfile::TempDir;

/// A port where nobody listens.
const CLOSED_PORT: u16 = 1;

struct Lab {
    dir: TempDir,
}

struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Lab {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Outcome {
        self.run_with_input(args, "")
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cipherwall"))
            .arg("--state-dir")
            .arg(self.dir.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut stdin = child.stdin.take().expect("piped");
        // A program that ends without reading is no failure of the test.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("ended").into()
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Outcome {
    #[track_caller]
    fn fails(&self, code: i32, expected: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for expected in expected {
            assert!(self.err.contains(expected), "{expected:?} is not in: {}", self.err);
        }
    }

    #[track_caller]
    fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        &self.out
    }
}

fn invitation(expires: u64) -> Invitation {
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port: CLOSED_PORT,
        transport: Transport::Tls,
        pins: [[1; 32], [2; 32]],
    };
    Invitation {
        endpoints: vec![endpoint],
        user: "alice".into(),
        salt: [3; 16],
        door_key: [4; 32],
        enrol_secret: [5; 16],
        expires,
        sni: Vec::new(),
    }
}

fn good_link() -> String {
    invitation(u64::from(u32::MAX)).to_link()
}

fn profile_json(name: &str) -> String {
    let pin = "A".repeat(43);
    let (key_16, key_32) = ("A".repeat(22) + "==", "A".repeat(43) + "=");
    serde_json::json!({
        "name": name,
        "endpoints": [
            {"host": "127.0.0.1", "port": CLOSED_PORT, "transport": "tls", "pins": [pin, pin]}
        ],
        "user": "alice",
        "salt": key_16,
        "door_key": key_32,
        "enrol_secret": key_16,
        "sni": [],
        "device_seed": key_32,
    })
    .to_string()
}

fn put_profile(lab: &Lab, name: &str) {
    fs::create_dir_all(lab.path("profiles")).expect("made");
    fs::write(lab.path("profiles").join(format!("{name}.json")), profile_json(name))
        .expect("written");
}

fn files_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| entry.expect("it").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let lab = Lab::new();
    lab.run(&[]).fails(2, &["Usage: cipherwall"]);
    lab.run(&["fly"]).fails(2, &["unrecognized subcommand 'fly'"]);
    lab.run(&["status", "--jsn"]).fails(2, &["--json"]);
    lab.run(&["connect", "--cipher", "rot13"]).fails(2, &["aes-256-gcm", "chacha20-poly1305"]);
    lab.run(&["import"]).fails(2, &["<LINK>"]);
    lab.run(&["--log-level", "loud", "status"]).fails(2, &["debug"]);
    lab.run(&["import", &good_link(), "--name", "../etc"]).fails(2, &["no profile name"]);
    lab.run(&["login", "two words"]).fails(2, &["white space"]);
}

#[test]
fn help_version_completions_and_manual_pages_are_there() {
    let lab = Lab::new();
    let help = lab.run(&["--help"]);
    for command in ["import", "connect", "disconnect", "status", "login", "profile", "repair"] {
        assert!(help.succeeds().contains(&format!("\n  {command} ")), "{}", help.out);
    }
    assert!(help.out.contains("5 rejected"));
    assert!(lab.run(&["--version"]).succeeds().starts_with("cipherwall 0."));
    assert!(lab.run(&["status", "--help"]).succeeds().contains("exit code 4"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(lab.run(&["completions", shell]).succeeds().contains("disconnect"));
    }
    lab.run(&["man", lab.dir.path().to_str().expect("UTF-8")]).succeeds();
    assert!(files_in(lab.dir.path()).contains(&"cipherwall-connect.1".to_owned()));
}

#[test]
fn a_bad_link_is_refused_with_the_reason_and_nothing_is_written() {
    let lab = Lab::new();
    let mut damaged = good_link();
    let last = damaged.pop().expect("a character");
    damaged.push(if last == 'A' { 'B' } else { 'A' });
    let newer = good_link().replacen("//1/", "//2/", 1);

    lab.run(&["import", "https://example.org/"]).fails(2, &["begins with cipherwall://"]);
    lab.run(&["import", &damaged]).fails(2, &["damaged", "copy the whole link"]);
    lab.run(&["import", &good_link()[..60]]).fails(2, &["damaged"]);
    lab.run(&["import", &newer]).fails(1, &["update this program"]);
    lab.run_with_input(&["import", "-"], "nonsense\n").fails(2, &["cipherwall://"]);
    assert_eq!(files_in(lab.dir.path()), Vec::<String>::new());
}

#[test]
fn an_import_that_cannot_reach_the_gateway_keeps_no_profile() {
    let lab = Lab::new();
    lab.run(&["import", &good_link()]).fails(4, &["error: importing the invitation failed"]);
    // The same from standard input, as a mail program would have broken it.
    let mut link = good_link();
    link.insert_str(40, "\n  ");
    let outcome = lab.run_with_input(&["import", "-"], &link);
    outcome.fails(4, &["error: importing the invitation failed"]);
    assert!(!outcome.err.contains("warning"), "{}", outcome.err);
    assert_eq!(files_in(&lab.path("profiles")), Vec::<String>::new());
    assert!(!lab.path("client.json").exists());
}

#[test]
fn an_expired_link_is_only_a_warning() {
    let lab = Lab::new();
    let link = invitation(1_000_000).to_link();
    lab.run(&["import", &link]).fails(4, &["warning: by this computer's clock", "failed"]);
}

#[test]
fn an_existing_profile_is_not_overwritten_unasked() {
    let lab = Lab::new();
    put_profile(&lab, "127.0.0.1");
    let before = fs::read(lab.path("profiles/127.0.0.1.json")).expect("there");
    lab.run(&["import", &good_link()]).fails(1, &["already", "--name", "--force"]);
    // With --force only a successful import replaces it.
    lab.run(&["import", &good_link(), "--force"]).fails(4, &["importing the invitation failed"]);
    assert_eq!(fs::read(lab.path("profiles/127.0.0.1.json")).expect("there"), before);
}

#[test]
fn a_missing_or_damaged_profile_is_named() {
    let lab = Lab::new();
    let login = |args: &[&str]| {
        lab.run_with_input(&[&["login", "alice", "--password-stdin"], args].concat(), "secret\n")
    };
    login(&[]).fails(1, &["no profile was named", "import LINK"]);
    put_profile(&lab, "home");
    login(&["--profile", "work"]).fails(1, &["no profile \"work\"", "there is: home"]);
    fs::write(lab.path("profiles/home.json"), "{\n\"name\": 5}").expect("written");
    login(&[]).fails(1, &["home.json, line 2: name: invalid type"]);
}

#[test]
fn profiles_are_listed_and_shown_without_their_secrets() {
    let lab = Lab::new();
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(lab.run(args).succeeds()).expect("JSON")
    };
    assert_eq!(json(&["profile", "list", "--json"]), serde_json::json!([]));
    assert_eq!(lab.run(&["profile", "list"]).succeeds(), "PROFILE  USER  GATEWAY\n");
    put_profile(&lab, "home");
    put_profile(&lab, "work");
    lab.run(&["profile", "set", "work", "--default"]).succeeds();
    fs::write(lab.path("profiles/torn.json"), "{").expect("written");

    let list = lab.run(&["profile", "list"]);
    assert!(list.succeeds().contains("\nhome     alice  127.0.0.1:1\n"), "{}", list.out);
    assert!(list.out.contains("\nwork     alice  127.0.0.1:1  default"), "{}", list.out);
    assert!(list.out.contains("torn.json, line 1: EOF"), "{}", list.out);
    let list = json(&["profile", "list", "--json"]);
    assert_eq!((&list[0]["name"], &list[0]["default"]), (&"home".into(), &false.into()));
    assert_eq!(list[1]["name"], "torn");
    assert!(list[1]["error"].as_str().expect("text").contains("line 1"));
    assert_eq!((&list[2]["name"], &list[2]["default"]), (&"work".into(), &true.into()));

    let shown = json(&["profile", "show", "--json"]);
    assert_eq!(shown["name"], "work");
    assert_eq!(shown["login"], "invitation");
    assert_eq!(shown["endpoints"][0]["port"], CLOSED_PORT);
    for secret in ["salt", "door_key", "enrol_secret", "device_seed", "prehash"] {
        assert!(shown.get(secret).is_none(), "{secret} is shown");
    }
    assert!(lab.run(&["profile", "show", "home"]).succeeds().starts_with("Profile:    home\n"));
    lab.run(&["profile", "show", "cabin"]).fails(1, &["no profile \"cabin\"", "home, torn, work"]);
}

#[test]
fn a_profile_is_changed_and_renamed() {
    let lab = Lab::new();
    put_profile(&lab, "home");
    put_profile(&lab, "work");
    let set = |args: &[&str]| lab.run(&[&["profile", "set"], args].concat());
    set(&["home"]).fails(2, &["--name", "--default", "--sni"]);
    set(&["home", "--sni", "not a name"]).fails(2, &["no host name"]);
    set(&["home", "--prefer", "elsewhere:1"]).fails(2, &["127.0.0.1:1"]);
    set(&["home", "--name", "work"]).fails(1, &["\"work\" already"]);
    set(&["home", "--name", "../work"]).fails(2, &["no profile name"]);
    set(&["cabin", "--default"]).fails(1, &["no profile \"cabin\""]);

    set(&["home", "--sni", "a.example", "--sni", "b.example", "--default"]).succeeds();
    set(&["home", "--name", "cabin", "--prefer", "127.0.0.1:1"]).succeeds();
    let shown = lab.run(&["profile", "show"]);
    assert!(shown.succeeds().starts_with("Profile:    cabin (default)\n"), "{}", shown.out);
    assert!(shown.out.contains("TLS name:   a.example\n            b.example\n"), "{}", shown.out);
    assert!(!lab.path("profiles/home.json").exists());
    set(&["cabin", "--no-sni"]).succeeds();
    assert!(!lab.run(&["profile", "show"]).succeeds().contains("TLS name"));
}

#[test]
fn a_removed_profile_leaves_nothing_and_is_no_longer_the_default() {
    let lab = Lab::new();
    put_profile(&lab, "home");
    put_profile(&lab, "work");
    lab.run(&["profile", "set", "home", "--default"]).succeeds();
    lab.run(&["profile", "remove", "cabin", "--yes"]).fails(1, &["no profile \"cabin\""]);
    lab.run(&["profile", "remove", "home"]).fails(2, &["--yes"]);
    assert!(lab.path("profiles/home.json").exists());
    lab.run(&["profile", "remove", "home", "--yes"]).succeeds();
    assert_eq!(files_in(&lab.path("profiles")), ["work.json"]);
    assert!(lab.run(&["profile", "show"]).succeeds().starts_with("Profile:    work\n"));
}

#[test]
fn an_unknown_key_in_the_settings_is_named_with_file_and_line() {
    let lab = Lab::new();
    put_profile(&lab, "home");
    fs::write(lab.path("client.json"), "{\n  \"allow_lam\": false\n}\n").expect("written");
    let expected = ["client.json, line 2: unknown field `allow_lam`", "allow_lan"];
    lab.run_with_input(&["login", "alice", "--password-stdin"], "x\n").fails(1, &expected);
    lab.run(&["import", &good_link()]).fails(1, &expected);
    let elsewhere = lab.path("other.json");
    fs::write(&elsewhere, "{}").expect("written");
    let elsewhere = elsewhere.to_str().expect("UTF-8");
    let login = ["login", "alice", "--password-stdin", "--config", elsewhere];
    let outcome = lab.run_with_input(&login, "x\n");
    assert!(!outcome.err.contains("allow_lam"), "{}", outcome.err);
}

#[test]
fn a_login_without_terminal_names_the_option() {
    let lab = Lab::new();
    put_profile(&lab, "home");
    lab.run(&["login", "alice"]).fails(2, &["--password-stdin"]);
    lab.run_with_input(&["login", "alice", "--password-stdin"], "\n").fails(2, &["empty"]);
}

#[test]
fn without_a_running_process_everything_says_so_with_exit_code_4() {
    let lab = Lab::new();
    put_profile(&lab, "home");
    let status = lab.run(&["status", "--json"]);
    status.fails(4, &["no cipherwall process is running"]);
    assert_eq!(status.out, "{\"state\":\"disconnected\"}\n");
    let status = lab.run(&["status"]);
    status.fails(4, &[]);
    assert_eq!(status.out, "State:      disconnected\n");
    lab.run(&["disconnect"]).fails(4, &["not connected"]);
    lab.run(&["connect"]).fails(4, &["no daemon", "connect --foreground"]);
    lab.run(&["connect", "home"]).fails(4, &["connect --foreground"]);
}

#[test]
fn an_unwritable_log_file_is_an_error_at_once() {
    let lab = Lab::new();
    lab.run(&["status", "--log-file", "/proc/nowhere/log"]).fails(1, &["/proc/nowhere/log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_process_is_asked() {
    let lab = Lab::new();
    let daemon = FakeDaemon::start(&socket_path(lab.dir.path())).await.expect("bound");
    daemon.set_status(Status {
        state: State::Connected,
        profile: Some("home".into()),
        inner_address: Some([10, 8, 0, 2].into()),
        ..Status::default()
    });
    let client = tokio::task::spawn_blocking(move || {
        assert!(lab.run(&["status"]).succeeds().contains("Inside:     10.8.0.2\n"));
        let json: serde_json::Value =
            serde_json::from_str(lab.run(&["status", "--json"]).succeeds()).expect("JSON");
        assert_eq!(json["state"], "connected");
        assert_eq!(json["inner_address"], "10.8.0.2");
        assert_eq!(json["rx_bytes"], 0);
        assert!(json["rtt_ms"].is_null());
        let again = lab.run(&["connect", "--foreground"]);
        again.fails(1, &["already connected with home", "cipherwall disconnect"]);
        let remove = lab.run(&["profile", "remove", "home", "--yes"]);
        remove.fails(1, &["in use", "cipherwall disconnect"]);
        assert!(lab.run(&["profile", "list"]).succeeds().contains("home     alice"));
        lab.run(&["settings", "set", "mtu=1400", "allow_lan=false"]).succeeds();
        assert!(lab.run(&["settings", "show"]).succeeds().contains("mtu              1400\n"));
        assert!(lab.run(&["logs"]).succeeds().contains("the fake daemon has started"));
        daemon.fail_next("the resolver file is locked", 1);
        lab.run(&["disconnect"]).fails(1, &["the resolver file is locked"]);
        assert_eq!(lab.run(&["disconnect"]).succeeds(), "disconnected\n");
        daemon.fail_next("the gateway rejected the log-in", 5);
        lab.run(&["connect"]).fails(5, &["rejected"]);
        assert!(lab.run(&["connect", "home"]).succeeds().starts_with("connected: "));
        let connects = daemon.requests().into_iter().filter_map(|request| {
            if let Request::Connect(connect) = request { Some(connect.profile) } else { None }
        });
        assert_eq!(connects.collect::<Vec<_>>(), [None, Some("home".to_owned())]);
        tokio::runtime::Handle::current().block_on(daemon.stop());
        lab.run(&["disconnect"]).fails(4, &[]);
    });
    client.await.expect("the client's part");
}

#[tokio::test(flavor = "multi_thread")]
async fn lockdown_and_a_portal_are_asked_for_and_shown() {
    let lab = Lab::new();
    let daemon = FakeDaemon::start(&socket_path(lab.dir.path())).await.expect("bound");
    let client = tokio::task::spawn_blocking(move || {
        assert_eq!(lab.run(&["lockdown", "status"]).succeeds(), "lockdown is off\n");
        assert!(lab.run(&["lockdown", "on"]).succeeds().contains("cipherwall lockdown off"));
        assert_eq!(lab.run(&["lockdown", "status", "--json"]).succeeds(), "{\"on\":true}\n");
        let status = lab.run(&["status"]);
        assert!(status.succeeds().contains("State:      blocked\n"), "{}", status.out);
        assert!(status.out.contains("blocked always (lockdown)"), "{}", status.out);
        lab.run(&["portal"]).succeeds();
        assert!(lab.run(&["disconnect"]).succeeds().contains("lockdown is on and stays on"));
        lab.run(&["lockdown", "off"]).succeeds();
        let asked = [Request::Lockdown { on: true }, Request::Portal { open: true }];
        assert!(asked.iter().all(|request| daemon.requests().contains(request)));
        drop(daemon);
    });
    client.await.expect("the client's part");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_version_or_one_that_dies_is_told_apart() {
    let lab = Lab::new();
    let listener = tokio::net::UnixListener::bind(lab.path("client.sock")).expect("bound");
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.expect("accepted");
        stream.write_all(b"\x00\x00\x00\x07{\"v\":2}").await.expect("sent");
        let (stream, _) = listener.accept().await.expect("accepted");
        drop(stream);
    });
    let client = tokio::task::spawn_blocking(move || {
        lab.run(&["status"]).fails(1, &["this program is older", "update it"]);
        lab.run(&["disconnect"]).fails(1, &["error: "]);
    });
    client.await.expect("the client's part");
    server.await.expect("the server's part");
}

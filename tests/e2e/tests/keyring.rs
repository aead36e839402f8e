//! Passwords in a person's own keyring (A31): a real one, on a session bus of an ordinary user, who
//! calls the programs by sudo.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ClientNode, GatewayNode, Lab, Process, Programs, Ran, until};
use serde_json::Value;

const NOBODY: &str = "65534";
const PASSWORD: &str = "correct horse";
const PATIENCE: Duration = Duration::from_secs(20);

/// A session of the user `nobody` on the client's machine.
struct Session {
    client: ClientNode,
    _bus: Process,
    keyring: Option<Process>,
}

impl Session {
    /// With a session bus, and no keyring yet.
    fn start(client: ClientNode) -> Result<Session> {
        let node = &client.node;
        let run_dir = format!("/run/user/{NOBODY}");
        let own = format!("mkdir -p {run_dir} && chown -R {NOBODY}:{NOBODY} {run_dir}");
        node.ok(&["sh", "-c", &own])?;
        let address = format!("--address=unix:path={run_dir}/bus");
        let words = ["dbus-daemon", "--session", "--nofork", "--nopidfile", &address];
        let bus = node.spawn("bus", &[&as_nobody()[..], &words].concat())?;
        let socket = format!("{run_dir}/bus");
        until("the session bus", PATIENCE, || {
            Ok(node.run(&["test", "-S", &socket])?.status.success().then_some(()))
        })?;
        Ok(Session { client, _bus: bus, keyring: None })
    }

    /// Unlocks the keyring, as a graphical log-in does.
    fn unlock(&mut self) -> Result<()> {
        let run_dir = format!("/run/user/{NOBODY}");
        let address = format!("unix:path={run_dir}/bus");
        let bus = format!("DBUS_SESSION_BUS_ADDRESS={address}");
        let data = format!("XDG_DATA_HOME={run_dir}/data");
        let run = format!("XDG_RUNTIME_DIR={run_dir}");
        let daemon = "exec gnome-keyring-daemon --foreground --components=secrets --unlock";
        let script = format!("printf 'of the keyring' | {daemon}");
        let words = ["env", &bus, &data, &run, "sh", "-c", &script];
        let keyring = self.client.node.spawn("keyring", &[&as_nobody()[..], &words].concat())?;
        let keyring = self.keyring.insert(keyring);
        until("the keyring", PATIENCE, || {
            let bus = "org.freedesktop.DBus";
            let ask = ["busctl", "--address", &address, "call", bus, "/org/freedesktop/DBus", bus];
            let ask = [&ask[..], &["NameHasOwner", "s", "org.freedesktop.secrets"]].concat();
            let words = [&as_nobody()[..], &ask].concat();
            let ran = self.client.node.run(&words)?;
            ensure!(ran.stdout.contains("true"), "{ran}{}", keyring.logs());
            Ok(Some(()))
        })
    }

    /// Runs `cipherwall ...` as sudo does it for this user.
    fn sudo(&self, words: &[&str], input: &str) -> Result<Ran> {
        let (uid, gid) = (format!("SUDO_UID={NOBODY}"), format!("SUDO_GID={NOBODY}"));
        let words = [&["env", &uid, &gid], &self.client.words(words)[..]].concat();
        self.client.node.run_with(&words, input, Duration::from_secs(60))
    }

    fn profile(&self, name: &str) -> Result<Value> {
        let path = self.client.node.dir().join(format!("state/profiles/{name}.json"));
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// What the user finds in the keyring for somebody at the gateway.
    fn found(&self, gateway: &str, user: &str) -> Result<String> {
        let found = self.sudo(&["keyring", "find", gateway, user], "")?.ok()?;
        Ok(found.trim().to_owned())
    }
}

fn as_nobody() -> [&'static str; 6] {
    ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
}

#[test]
fn a_password_is_in_the_keyring_until_the_profile_is_removed() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    gateway.user_add("bob", Some(PASSWORD))?;
    let client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    let name = "203.0.113.2";
    let mut session = Session::start(client)?;

    // without a keyring it is with the profile, and the user is told
    let ran = session.sudo(&["login", "bob", "--password-stdin"], PASSWORD)?;
    ensure!(ran.status.success() && ran.stderr.contains("readable by root only"), "{ran}");
    let stored = session.profile(name)?["prehash"].as_str().context("not kept")?.to_owned();

    session.unlock()?;
    let ran = session.sudo(&["login", "bob", "--password-stdin"], PASSWORD)?;
    ensure!(ran.status.success() && ran.stderr.contains("in your keyring"), "{ran}");
    let profile = session.profile(name)?;
    assert_eq!(profile["prehash"], Value::Null, "it is in the keyring only");
    assert!(!profile.to_string().contains(&stored));
    assert_eq!(session.found(name, "bob")?, stored);
    let shown: Value =
        serde_json::from_str(&session.sudo(&["profile", "show", "--json"], "")?.ok()?)?;
    assert_eq!(shown["login"], "keyring");

    connect_and_disconnect(&mut session)?;
    // by the daemon, too, which has it in memory only, and goes on by its token after a crash
    session.client.start_by(&[]);
    session.client.start_daemon()?;
    session.sudo(&["connect"], "")?.ok()?;
    assert_eq!(gateway.session()?["user"], "bob");
    let state_dir = session.client.node.dir().join("state").display().to_string();
    let on_disk = session.client.node.run(&["grep", "-rF", &stored, &state_dir])?;
    ensure!(on_disk.code() == 1, "it is on disk: {on_disk}");
    session.client.kill9()?;
    session.client.start_daemon()?;
    session.client.wait_for_state("connected", PATIENCE)?;
    session.client.run(&["disconnect"])?.ok()?;

    // root alone does not open it
    let ran = session.client.run(&["connect"])?;
    ensure!(ran.code() == 1 && ran.stderr.contains("in the keyring"), "{ran}");

    session.sudo(&["profile", "remove", name, "--yes"], "")?.ok()?;
    assert_eq!(session.found(name, "bob")?, "", "forgotten with the profile");
    Ok(())
}

/// By `sudo cipherwall connect --foreground`.
fn connect_and_disconnect(session: &mut Session) -> Result<()> {
    let (uid, gid) = (format!("SUDO_UID={NOBODY}"), format!("SUDO_GID={NOBODY}"));
    session.client.start_by(&["env", &uid, &gid]);
    session.client.connect(&[])?;
    session.client.disconnect()
}

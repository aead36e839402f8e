//! Who may command the daemon, and what those get who send it nonsense.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::{ClientNode, Ran};

use super::{NOT_PERMITTED, Scene};

/// Where every user of the machine can get at the socket.
const STATE_DIR: &str = "/run/cipherwall-test";
const GROUP: &str = "4711";

/// A scene whose daemon has a group, and a user that is in it or not.
struct Users {
    scene: Scene,
}

impl Users {
    fn new() -> Result<Users> {
        let mut scene = Scene::new()?;
        let client = &mut scene.client;
        client.process()?.terminate(super::PATIENCE)?;
        let group = format!("root:x:0:\ncipherwall:x:{GROUP}:\nnogroup:x:65534:\n");
        client.node.write_file("/etc/group", &group)?;
        let state_dir = client.node.dir().join("state").display().to_string();
        client.node.ok(&["chmod", "755", &state_dir])?;
        client.node.ok(&["mkdir", STATE_DIR])?;
        client.node.ok(&["mount", "--bind", &state_dir, STATE_DIR])?;
        client.start_daemon()?;
        Ok(Users { scene })
    }

    /// Runs the program as user 65534, who is in the group or not.
    fn run(&self, is_member: bool, words: &[&str]) -> Result<Ran> {
        let ClientNode { node, .. } = &self.scene.client;
        let all = self.scene.client.words(words);
        let words = [&[all[0], "--state-dir", STATE_DIR], words].concat();
        let groups = if is_member { format!("--groups={GROUP}") } else { "--clear-groups".into() };
        let prefix = ["setpriv", "--reuid=65534", "--regid=65534", &groups, "--inh-caps=-all"];
        node.run(&[&prefix[..], &words].concat())
    }
}

#[test]
fn members_of_the_group_may_and_others_may_not() -> Result<()> {
    let users = Users::new()?;
    for words in [&["status"][..], &["connect"], &["lockdown", "on"], &["repair"], &["logs"]] {
        let refused = users.run(false, words)?;
        assert_eq!(refused.code(), NOT_PERMITTED, "{refused:?}");
        assert!(refused.stderr.contains("adduser"), "{refused:?}");
    }
    assert_eq!(users.scene.client.status()?.state, "disconnected", "nothing has happened");

    let line = users.run(true, &["connect"])?.ok()?;
    assert!(line.starts_with("connected: "), "{line}");
    assert!(users.run(true, &["status"])?.ok()?.contains("connected"));
    assert!(users.run(true, &["profile", "list"])?.ok()?.contains("alice"));
    assert!(users.run(true, &["logs"])?.ok()?.contains("state=\"connected\""));
    users.run(true, &["settings", "set", "allow_lan=false"])?.ok()?;
    assert!(users.run(true, &["settings", "show"])?.ok()?.contains("allow_lan        false"));
    users.run(true, &["lockdown", "on"])?.ok()?;
    users.run(true, &["disconnect"])?.ok()?;
    users.scene.expect_blocked("in lockdown")?;
    users.run(true, &["lockdown", "off"])?.ok()?;
    users.scene.expect_way(false, "after lockdown off")
}

/// Sends bytes to the socket as root, and gives what comes back.
fn send(scene: &Scene, python: &str) -> Result<Ran> {
    let socket_path = scene.client.node.dir().join("state").join("client.sock");
    let script = format!(
        "import socket, struct, time\ns = socket.socket(socket.AF_UNIX)\n\
         s.connect({:?})\ns.settimeout(20)\n{python}\n",
        socket_path.display().to_string()
    );
    scene.client.node.run(&["python3", "-c", &script])
}

#[test]
fn malformed_huge_and_slow_messages_harm_nobody() -> Result<()> {
    let scene = Scene::connected()?;
    for nonsense in [
        "s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); print(s.recv(1000))",
        "s.sendall(struct.pack('>I', 2**32 - 1) + b'x' * 100000)",
        "s.sendall(struct.pack('>I', 2) + b'{}'); print(s.recv(1000))",
        "m = b'[' * 60000; s.sendall(struct.pack('>I', len(m)) + m); print(s.recv(1000))",
        "m = b'\\xff' * 1000; s.sendall(struct.pack('>I', len(m)) + m); print(s.recv(1000))",
    ] {
        send(&scene, nonsense)?;
        assert_eq!(scene.client.status()?.state, "connected", "{nonsense}");
    }
    let unknown = "m = b'{\"v\":1,\"m\":\"fly\"}'; s.sendall(struct.pack('>I', len(m)) + m)\n\
                   print(s.recv(1000))";
    let answer = send(&scene, unknown)?.ok()?;
    assert!(answer.contains("does not know this request"), "{answer}");

    // one that begins and never ends is cut off, and so is one that reads nothing
    let slow = "s.sendall(b'\\x00\\x00'); t = time.time(); print(s.recv(10), time.time() - t)";
    assert!(send(&scene, slow)?.ok()?.starts_with("b'' 1"), "cut off after 10 s");
    let flood = "m = b'{\"v\":1,\"m\":\"status\"}'; m = struct.pack('>I', len(m)) + m\n\
                 s.settimeout(2)\ntry:\n while True: s.sendall(m * 1000)\nexcept OSError: pass";
    send(&scene, flood)?;

    // many at a time wait for one another, and the others are served when they are gone
    let many = "import sys\nall = []\n\
                for i in range(200):\n c = socket.socket(socket.AF_UNIX); c.settimeout(2)\n \
                try:\n  c.connect(s.getpeername())\n except OSError: break\n all.append(c)\n\
                print(len(all))";
    send(&scene, many)?.ok()?;
    let started = Instant::now();
    assert_eq!(scene.client.status()?.state, "connected");
    assert!(started.elapsed() < Duration::from_secs(5));
    scene.expect_way(true, "after all that")
}

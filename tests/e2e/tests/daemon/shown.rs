//! What the user is shown: status as it changes, logs, settings and profiles.

use anyhow::{Context, Result};
use e2e::until;

use super::{PATIENCE, Scene};

#[test]
fn status_watch_tells_each_change_as_it_happens() -> Result<()> {
    let scene = Scene::new()?;
    let words = scene.client.words(&["status", "--watch", "--json"]);
    let mut watch = scene.client.node.spawn("watch", &words)?;
    watch.wait_for_line(r#"{"state":"disconnected""#, PATIENCE)?;
    scene.client.connect_by_daemon(&[])?;
    watch.wait_for_line(r#"{"state":"connecting""#, PATIENCE)?;
    let line = watch.wait_for_line(r#"{"state":"connected""#, PATIENCE)?;
    let status: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!(status["protected"], true);
    // figures follow while there is traffic, without being asked for
    let page = e2e::Page::open(&scene.client.node, "http://www.lab.test/")?;
    until("the figures of a page", PATIENCE, || {
        let stdout = watch.stdout();
        let last = stdout.lines().last().context("a line")?;
        let status: serde_json::Value = serde_json::from_str(last)?;
        let enough = u64::try_from(page.body.len())?;
        Ok(status["rx_bytes"].as_u64().filter(|bytes| *bytes > enough).map(drop))
    })?;
    scene.client.run(&["disconnect"])?.ok()?;
    until("the end to be told", PATIENCE, || {
        let stdout = watch.stdout();
        let last = stdout.lines().last().context("a line")?;
        Ok(last.starts_with(r#"{"state":"disconnected""#).then_some(()))
    })
}

/// Asks the daemon for the quality since `after`, as a desktop client does.
const QUALITY: &str = "
import json, socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
m = json.dumps({'v': 1, 'm': {'quality': {'after': int(sys.argv[2])}}}).encode()
s.sendall(struct.pack('>I', len(m)) + m)
length, = struct.unpack('>I', s.recv(4, socket.MSG_WAITALL))
print(json.dumps(json.loads(s.recv(length, socket.MSG_WAITALL))['m']['quality']['samples']))
";

fn quality(scene: &Scene, after: u64) -> Result<Vec<serde_json::Value>> {
    let socket_path = scene.client.node.dir().join("state").join("client.sock");
    let (path, after) = (socket_path.display().to_string(), after.to_string());
    let samples = scene.client.node.ok(&["python3", "-c", QUALITY, &path, &after])?;
    Ok(serde_json::from_str(&samples)?)
}

#[test]
fn the_quality_of_each_second_is_kept_and_given() -> Result<()> {
    let scene = Scene::connected()?;
    let download = scene.lab.make_download("file", 8 * 1024 * 1024)?;
    let samples = until("seconds with a latency", PATIENCE, || {
        let samples = quality(&scene, 0)?;
        let measured = samples.iter().filter(|sample| sample["latency_ms"].is_number()).count();
        Ok((measured >= 4).then_some(samples))
    })?;
    let last = samples.last().context("a sample")?;
    assert!(last["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 1_000.0), "{last}");
    assert!(last["jitter_ms"].is_number() && last["loss"] == 0.0, "{last}");
    let times: Vec<u64> = samples.iter().filter_map(|sample| sample["at"].as_u64()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let after = *times.last().context("a time")?;

    let (_, received) = e2e::Page::download(&scene.client.node, "http://www.lab.test/file")?;
    assert_eq!(received, download);
    until("the download to show in the rates", PATIENCE, || {
        let later = quality(&scene, after)?;
        let bytes: u64 = later.iter().filter_map(|sample| sample["rx_bytes"].as_u64()).sum();
        Ok((bytes > 8 * 1024 * 1024).then_some(()))
    })?;
    // the gateway is silent: pings get lost
    scene.lab.internet.nft(
        "table inet cut {\n chain everything {\n type filter hook forward priority -10;\n drop\n }\n }\n",
    )?;
    until("lost pings to show", PATIENCE, || {
        let lost = quality(&scene, after)?;
        let is_lost = |sample: &serde_json::Value| sample["loss"].as_f64() > Some(0.0);
        Ok(lost.iter().any(is_lost).then_some(()))
    })
}

#[test]
fn the_log_is_shown_and_followed() -> Result<()> {
    let scene = Scene::connected()?;
    let log = scene.client.run(&["logs"])?.ok()?;
    assert!(log.contains("state=\"connecting\"") && log.contains("state=\"connected\""), "{log}");
    assert_eq!(scene.client.run(&["logs", "--lines", "1"])?.ok()?.lines().count(), 1);
    let words = scene.client.words(&["logs", "--follow"]);
    let mut follow = scene.client.node.spawn("logs", &words)?;
    follow.wait_for_line("", PATIENCE)?;
    scene.client.run(&["disconnect"])?.ok()?;
    until("the log of disconnecting", PATIENCE, || {
        Ok(follow.stdout().contains("state=\"disconnecting\"").then_some(()))
    })
}

#[test]
fn profiles_are_changed_through_the_daemon_but_not_the_one_in_use() -> Result<()> {
    let scene = Scene::connected()?;
    let client = &scene.client;
    let link = scene.gateway.invite("bob")?.link;
    client.run(&["import", &link, "--name", "second"])?.ok()?;
    let listed = client.run(&["profile", "list", "--json"])?.ok()?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    assert!(!listed.to_string().contains("device_seed"), "{listed}");
    let in_use = listed[0]["name"].as_str().context("a name")?;
    for words in
        [&["profile", "remove", in_use, "--yes"][..], &["profile", "set", in_use, "--name", "x"]]
    {
        let refused = client.run(words)?;
        assert!(refused.stderr.contains("is in use"), "{refused:?}");
    }
    client.run(&["profile", "set", "second", "--name", "third", "--default"])?.ok()?;
    client.run(&["profile", "remove", "third", "--yes"])?.ok()?;
    assert_eq!(client.run(&["profile", "list"])?.ok()?.lines().count(), 2, "a head and one");
    Ok(())
}

#[test]
fn a_front_end_of_a_foreground_connection_is_told_what_it_cannot_do() -> Result<()> {
    let mut scene = Scene::new()?;
    let running = scene.client.run(&["connect", "--foreground"])?;
    assert_eq!(running.code(), super::FAILED);
    assert!(running.stderr.contains("without --foreground"), "{running:?}");
    scene.client.process()?.terminate(PATIENCE)?;
    scene.client.connect(&[])?;
    let again = scene.client.run(&["connect"])?;
    assert!(again.stderr.contains("already connected"), "{again:?}");
    scene.client.run(&["lockdown", "on"])?.ok()?;
    scene.client.disconnect()?;
    scene.expect_blocked("lockdown was switched on meanwhile")?;
    scene.client.run(&["lockdown", "off"])?.ok()?;
    scene.expect_way(false, "after lockdown off")
}

/// As systemd listens to its services.
const LISTENER: &str = "
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('listening', flush=True)
while True: print(s.recv(1000).decode(), flush=True)
";

#[test]
fn systemd_is_told_that_it_is_ready_that_it_lives_and_that_it_stops() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.client.process()?.terminate(PATIENCE)?;
    let path = scene.client.node.dir().join("notify.sock").display().to_string();
    let mut systemd = scene.client.node.spawn("systemd", &["python3", "-c", LISTENER, &path])?;
    systemd.wait_for_line("listening", PATIENCE)?;
    scene.client.start_by(&["env", &format!("NOTIFY_SOCKET={path}"), "WATCHDOG_USEC=900000"]);
    scene.client.start_daemon()?;
    systemd.wait_for_line("READY=1", PATIENCE)?;
    let barks = |systemd: &e2e::Process| systemd.stdout().matches("WATCHDOG=1").count();
    until("signs of life", PATIENCE, || Ok((barks(&systemd) >= 4).then_some(())))?;
    // a daemon that hangs is silent, which is what systemd kills it for
    scene.client.process()?.suspend(|| {
        let before = barks(&systemd);
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(barks(&systemd) <= before + 1, "it hangs, and says that it lives");
        Ok(())
    })?;
    scene.client.process()?.terminate(PATIENCE)?;
    systemd.wait_for_line("STOPPING=1", PATIENCE).map(drop)
}

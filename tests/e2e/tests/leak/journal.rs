//! A crash at each step of the journal, whenever the client syncs it, and between any two changes of the
//! host, which it makes by messages to the kernel.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use e2e::{ClientNode, Programs, figure, full_or_short, until};

use crate::scene::{Mode, Scene};

const SIGKILL: i32 = 9;
/// More than there are.
const STEPS_MAX: usize = 400;
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client is killed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It is about to sync a journal.
    Sync,
    /// It is about to send something, to the kernel or to the gateway, before it is connected.
    Message,
}

/// How far the client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Connecting,
    Disconnecting,
    No,
}

#[test]
fn after_a_crash_at_each_step_repair_gives_the_host_back() -> Result<()> {
    at_each_step(|scene, when| {
        scene.client.run(&["repair"])?.ok()?;
        scene.expect_former_host(&format!("{when} and repair"))
    })
}

#[test]
fn after_a_crash_at_each_step_the_next_connection_comes_up_and_gives_the_host_back() -> Result<()> {
    at_each_step(|scene, when| {
        scene.client.start_by(&[]);
        scene.connect().with_context(|| format!("{when}, connecting"))?;
        scene.disconnect(&format!("{when}, connecting and disconnecting"))
    })
}

/// It goes on where it was, and in lockdown nothing leaks, whatever happens.
#[test]
fn a_daemon_that_crashes_at_any_step_in_lockdown_goes_on_behind_the_policy() -> Result<()> {
    let mut scene = Scene::new(&Programs::find()?, Mode::Lockdown)?;
    let mut crashes = 0_u32;
    for step in (1..STEPS_MAX).step_by(full_or_short(1, 2)) {
        let when = format!("after a crash of the daemon at step {step} of the journal");
        scene.client.kill9()?;
        crash_at(&mut scene.client, Moment::Sync, step);
        // each of these may be when it dies
        let dead = scene.client.start_daemon().is_err()
            || scene.client.connect_by_daemon(&[]).is_err()
            || scene.client.run(&["disconnect"])?.code() != 0;
        scene.expect_closed(&when)?;
        if !dead {
            end_traced(&mut scene.client)?;
        }
        scene.client.start_by(&[]);
        scene.client.start_daemon().context(when.clone())?;
        if scene.client.status()?.state == "blocked" {
            scene.connect().context(when.clone())?;
        }
        scene.client.wait_for_state("connected", PATIENCE).context(when.clone())?;
        scene.expect_tunnel()?;
        scene.client.run(&["disconnect"])?.ok()?;
        if !dead {
            break;
        }
        crashes += 1;
    }
    figure("crashes of the daemon", crashes.into(), "");
    assert!(crashes >= 2, "{crashes} crashes");
    scene.end("after crashes of the daemon in lockdown")
}

/// Connects and disconnects with a crash at the first moment, at the second, and so on, until there is
/// none; nothing leaks before the user wants to disconnect. `after` puts the host in order.
fn at_each_step(after: impl Fn(&mut Scene, &str) -> Result<()>) -> Result<()> {
    let mut scene = Scene::new(&Programs::find()?, Mode::Foreground)?;
    let syncs = at_each(&mut scene, Moment::Sync, 1..STEPS_MAX, &after)?;
    figure("steps of the journal", syncs.into(), "");
    assert!(syncs >= 6, "{syncs} steps of the journal");
    let steps = (1..STEPS_MAX).step_by(full_or_short(1, 6));
    let messages = at_each(&mut scene, Moment::Message, steps, &after)?;
    figure("other moments", messages.into(), "");
    assert!(messages >= 4, "{messages} moments");
    scene.expect_former_host("without a crash")?;
    scene.watch.finish()
}

/// Crashes at these steps (from 1) until there are no more; returns how many there were.
pub(crate) fn at_each(
    scene: &mut Scene,
    moment: Moment,
    steps: impl IntoIterator<Item = usize>,
    after: impl Fn(&mut Scene, &str) -> Result<()>,
) -> Result<u32> {
    let mut crashes = 0;
    for step in steps {
        let when = format!("after a crash at {moment:?} {step}");
        crash_at(&mut scene.client, moment, step);
        let crash = crash(scene).with_context(|| when.clone())?;
        if crash == Crash::No {
            break;
        }
        after(scene, &when)?;
        crashes += 1;
        // what it sends from then on is traffic
        if crash == Crash::Disconnecting && moment == Moment::Message {
            break;
        }
    }
    Ok(crashes)
}

/// From now on `connect` is killed as it enters this step (from 1).
fn crash_at(client: &mut ClientNode, moment: Moment, step: usize) {
    if moment == Moment::Message {
        let inject = format!("inject=sendto:signal=KILL:when={step}");
        return client.start_by(&[
            "strace",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=sendto",
            "-e",
            &inject,
        ]);
    }
    let state_dir = client.node.dir().join("state").display().to_string();
    let journals = ["netcfg-client.json", "netcfg-policy.json"];
    let new = journals.map(|journal| format!("{state_dir}/{journal}.new"));
    let journals = journals.map(|journal| format!("{state_dir}/{journal}"));
    let inject = format!("inject=fsync,fdatasync:signal=KILL:when={step}");
    let mut words = vec!["strace", "--follow-forks", "-qq", "-o", "/dev/null"];
    for path in journals.iter().chain(&new).chain([&state_dir]) {
        words.extend(["-P", path]);
    }
    words.extend(["-e", "trace=fsync,fdatasync", "-e", &inject]);
    client.start_by(&words);
}

fn crash(scene: &mut Scene) -> Result<Crash> {
    let begin = SystemTime::now();
    scene.client.start_connecting(&[])?;
    let process = scene.client.process()?;
    let ended = until("connecting or a crash", PATIENCE, || {
        let connected = process.stdout().contains("connected");
        Ok((connected || !process.is_running()).then_some(!connected))
    })?;
    if ended {
        expect_killed(process.wait(PATIENCE)?, scene)?;
    }
    // a crash may come before the first packet
    if let Ok(since) = scene.watch.first_own_packet(begin) {
        scene.watch.expect_closed(since, "before disconnecting")?;
    }
    if ended {
        return Ok(Crash::Connecting);
    }
    // its answer does not come if there is a crash
    scene.client.run(&["disconnect"])?;
    let status = scene.client.process()?.wait(PATIENCE)?;
    if status.success() {
        return Ok(Crash::No);
    }
    expect_killed(status, scene)?;
    Ok(Crash::Disconnecting)
}

/// SIGKILL for what strace runs; it would go on without strace.
fn end_traced(client: &mut ClientNode) -> Result<()> {
    let strace = client.process()?.pid();
    let traced = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"))?;
    client.node.ok(&["kill", "-9", traced.trim()])?;
    client.process()?.wait(PATIENCE).map(drop)
}

fn expect_killed(status: ExitStatus, scene: &mut Scene) -> Result<()> {
    ensure!(status.signal() == Some(SIGKILL), "the client: {status}{}", scene.logs());
    Ok(())
}

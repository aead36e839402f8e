//! Power cuts: files stay as far as they were synced, the kernel forgets everything.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use e2e::{Lab, LeakWatch, Options, Programs, figure, full_or_short};

use crate::journal::{Moment, at_each};
use crate::scene::{Mode, Scene};

fn scene_with_disk(mode: Mode) -> Result<Scene> {
    let lab = Lab::with(Options { client_disk: true, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut scene = Scene::watched(lab, &programs, mode, &[], |lab| LeakWatch::start(lab))?;
    // the installation is older than the power cut
    scene.client.node.ok(&["sync"])?;
    scene.start()?;
    Ok(scene)
}

#[test]
fn after_a_power_cut_at_each_step_repair_gives_the_host_back() -> Result<()> {
    at_steps(|scene, when| {
        scene.client.run(&["repair"])?.ok()?;
        scene.expect_former_host(&format!("{when} and repair"))
    })
}

#[test]
fn after_a_power_cut_at_each_step_the_next_connection_gives_the_host_back() -> Result<()> {
    at_steps(|scene, when| {
        scene.client.start_by(&[]);
        scene.connect().with_context(|| format!("{when}, connecting"))?;
        scene.disconnect(&format!("{when}, connecting and disconnecting"))
    })
}

/// A power cut at each sync of a journal, and at some moments between.
fn at_steps(after: impl Fn(&mut Scene, &str) -> Result<()>) -> Result<()> {
    let mut scene = scene_with_disk(Mode::Foreground)?;
    let after = |scene: &mut Scene, when: &str| {
        scene.cut_power(|_| Ok(()))?;
        // a new start ends protect
        scene.watch.expect_open(when).context("nothing holds the packets")?;
        after(scene, when)
    };
    let syncs = at_each(&mut scene, Moment::Sync, 1.., after)?;
    assert!(syncs >= 6, "{syncs} steps of the journal");
    let some = (1..).step_by(full_or_short(3, 20));
    let messages = at_each(&mut scene, Moment::Message, some, after)?;
    figure("power cuts", (syncs + messages).into(), "");
    scene.expect_former_host("without a power cut")?;
    scene.watch.finish()
}

#[test]
fn lockdown_holds_from_before_the_link_is_up() -> Result<()> {
    let mut scene = scene_with_disk(Mode::Lockdown)?;
    scene.connect()?;
    for connected in [true, false] {
        if !connected {
            scene.disconnect("in lockdown")?;
        }
        scene.expect_closed("before the power cut")?;
        let since = SystemTime::now();
        // as cipherwall-lockdown.service does
        scene.cut_power(|client| client.run(&["lockdown", "enforce"])?.ok().map(drop))?;
        scene.closed_from(since);
        sleep(Duration::from_secs(2));
        scene.expect_closed("after the power cut, before the daemon")?;
        scene.client.start_daemon()?;
        scene.client.wait_for_state("blocked", Duration::from_secs(10))?;
        sleep(Duration::from_secs(2));
        scene.expect_closed("after the power cut")?;
        scene.connect()?;
    }
    scene.end("after power cuts in lockdown")
}

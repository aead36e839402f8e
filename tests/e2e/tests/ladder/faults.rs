//! A network that lets less and less through, and then everything.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{LeakWatch, figure, full_or_short};

use crate::scene::{BAR, BEST, Fault, KCP, OTHER_PORT, Scene};

/// From the beginning of a fault to the next one.
const LASTS: Duration = Duration::from_secs(4);
/// Until the best rung is in use again, once it works.
const CLIMB: Duration = Duration::from_secs(120);

/// What is in use during each.
const FAULTS: [(Fault, &str); 4] = [
    (Fault::Udp, BEST),
    (Fault::Tcp, KCP),
    (Fault::AllButOnePort, OTHER_PORT),
    (Fault::LongTcp, KCP),
];

/// In the full run the client is back on the best rung before each fault.
#[test]
fn traffic_goes_on_whatever_is_dropped_and_comes_back_to_the_best_way() -> Result<()> {
    let mut scene = Scene::connected()?;
    let climbs_between = full_or_short(true, false);
    let (download, sent) = scene.download(full_or_short(250, 52))?;
    let beat = scene.beat()?;
    for (fault, rung) in FAULTS {
        let since = scene.suffer(fault)?;
        sleep(LASTS);
        scene.check_back(&format!("{fault:?} dropped"), &beat, since)?;
        scene.wait_for(rung, BAR).with_context(|| format!("{fault:?} dropped"))?;
        if climbs_between {
            scene.recover()?;
            scene.wait_for(BEST, CLIMB)?;
            sleep(Duration::from_secs(21));
        }
    }
    if !climbs_between {
        scene.recover()?;
        scene.wait_for(BEST, CLIMB)?;
    }
    let received = download.finish(Duration::from_secs(150)).with_context(|| scene.logs())?;
    assert_eq!(received, sent, "SHA-256 of the download");
    assert!(scene.client.process()?.is_running(), "the client ended{}", scene.logs());
    Ok(())
}

/// From a worse rung to a better one no datagram is lost for longer than a moment.
#[test]
fn a_climb_is_no_break() -> Result<()> {
    let mut scene = Scene::connected()?;
    scene.suffer(Fault::Tcp)?;
    scene.wait_for(KCP, BAR)?;
    let why = scene.ladder()?[0].clone();
    assert_eq!(why["why"], "no answer", "{why}");
    assert!(why["next_try"].as_u64().is_some(), "{why}");
    let shown = scene.client.run(&["status"])?.ok()?;
    assert!(shown.contains("over kcp: in use") && shown.contains("no answer"), "{shown}");
    assert_eq!(scene.client.status()?.transport.as_deref(), Some("kcp"), "{shown}");
    scene.recover()?;
    let beat = scene.beat()?;
    scene.wait_for(BEST, CLIMB)?;
    sleep(Duration::from_secs(2));
    let pause = beat.longest_pause().context("no datagram came back")?;
    figure("climb: longest time without a datagram", pause.as_secs_f64() * 1e3, "ms");
    assert!(pause < Duration::from_millis(500), "{pause:?}{}", scene.logs());
    Ok(())
}

#[test]
fn nothing_leaks_on_any_rung_nor_between_them() -> Result<()> {
    let mut scene = Scene::new()?;
    let watch = LeakWatch::start(&scene.lab)?;
    let asked = std::time::SystemTime::now();
    scene.client.connect(&[])?;
    let closed = watch.first_own_packet(asked)?;
    // of the last one nothing is noticed without much traffic
    for (fault, rung) in &FAULTS[..3] {
        scene.suffer(*fault)?;
        sleep(LASTS);
        scene.wait_for(rung, BAR)?;
    }
    scene.recover()?;
    watch.expect_closed(closed, "while rungs change").with_context(|| scene.logs())?;
    scene.client.disconnect()?;
    watch.expect_open("after disconnecting")?;
    watch.finish()
}

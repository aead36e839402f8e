//! Many sessions at once on one gateway.

use std::time::Duration;

use anyhow::Result;
use e2e::{Bulk, Lab, Load, Programs, figure, full_or_short, many_sessions};

/// What an idle session may take of the gateway's memory, in bytes.
const MEMORY_EACH: f64 = 65_536.0;

#[test]
fn many_sessions_share_the_gateway_fairly_and_take_little_memory() -> Result<()> {
    let load = full_or_short(
        Load { sessions: 1000, active: 50, time: Duration::from_secs(10) },
        Load { sessions: 100, active: 20, time: Duration::from_secs(3) },
    );
    // in a short time, beside other tests, chance has its share
    let fairness_min = full_or_short(0.9, 0.7);
    let lab = Lab::new()?;
    let measured = many_sessions(&lab, &Programs::find()?, load)?;
    figure("log-ins a second", measured.log_in_rate, "");
    figure("gateway's memory with idle sessions", measured.memory as f64 / 1e6, "MB");
    figure("memory of an idle session", measured.memory_each / 1024.0, "KiB");
    for (way, bulk) in [("up", &measured.up), ("down", &measured.down)] {
        report(way, bulk);
        let fairness = bulk.fairness();
        assert!(fairness > fairness_min, "{way}: Jain's index {fairness:.3}: {:?}", bulk.each);
    }
    assert!(measured.memory_each < MEMORY_EACH, "{} bytes a session", measured.memory_each);
    Ok(())
}

fn report(way: &str, bulk: &Bulk) {
    figure(&format!("one session {way}, the others idle"), bulk.alone / 1e6, "Mbit/s");
    figure(&format!("all active sessions {way}"), bulk.total() / 1e6, "Mbit/s");
    figure(&format!("Jain's index {way}, in percent"), bulk.fairness() * 100.0, "%");
    figure(&format!("dropped by the gateway's device {way}"), bulk.device_drops as f64, "packets");
    figure(&format!("dropped by its sessions' queues {way}"), bulk.queue_drops as f64, "packets");
}

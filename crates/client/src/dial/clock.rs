//! The gateway's time, which KCP's datagrams carry: reckoned from what it said last by a clock that
//! nobody sets and that goes on during sleep, since this host's own may be set meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};

use super::now_s;

/// The clock of the gateways of one profile, as far as is known. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct GatewayClock(Arc<Mutex<Option<i64>>>);

impl GatewayClock {
    /// A gateway says that it is this time now, in Unix seconds.
    pub(super) fn learn(&self, gateway_s: u64) {
        self.learn_at(gateway_s, boot_s());
    }

    /// By how many seconds it is ahead of this host's clock now; 0 if that is not known.
    pub(super) fn ahead_s(&self) -> i64 {
        self.ahead_at(now_s(), boot_s())
    }

    fn learn_at(&self, gateway_s: u64, boot_s: i64) {
        // no gateway lives so long
        let Ok(gateway_s) = i64::try_from(gateway_s) else { return };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gateway_s.checked_sub(boot_s);
    }

    fn ahead_at(&self, now_s: u64, boot_s: i64) -> i64 {
        let at_boot = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gateway_s = at_boot.and_then(|at_boot| at_boot.checked_add(boot_s));
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        gateway_s.map_or(0, |gateway_s| gateway_s.saturating_sub(now_s))
    }
}

/// Seconds since this host was started, those asleep included.
fn boot_s() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_also_when_this_hosts_clock_is_set() {
        let clock = GatewayClock::default();
        assert_eq!(clock.ahead_at(1_000, 5), 0, "not known");
        clock.learn_at(10_000, 50);
        assert_eq!(clock.ahead_at(4_000, 50), 6_000, "this host's clock is behind");
        assert_eq!(clock.ahead_at(4_030, 80), 6_000);
        assert_eq!(clock.ahead_at(10_060, 110), 0, "and has been set");
        assert_eq!(clock.clone().ahead_at(10_070, 110), -10);
        clock.learn_at(u64::MAX, 50);
        assert_eq!(clock.ahead_at(10_060, 110), 0, "nonsense");
        clock.learn(now_s() + 300);
        assert!((299..=301).contains(&clock.ahead_s()));
    }
}

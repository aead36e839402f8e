//! Notices that this computer, or only this program, was asleep: connections are likely to be dead
//! then, and nobody has told.
//!
//! Three clocks are read once a second. Which of them has jumped tells what happened:
//!
//! | clock | suspended | stopped (SIGSTOP, a debugger) | set to another time |
//! | --- | --- | --- | --- |
//! | monotonic | stands still | jumps | |
//! | boot | jumps | jumps | |
//! | wall | jumps | jumps | jumps |

use std::{
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    thread::{NanosleepRelativeResult, clock_nanosleep_relative},
    time::{ClockId, Timespec, clock_gettime},
};
use tokio::sync::mpsc;

const TICK: Duration = Duration::from_secs(1);
/// A jump by less is a busy computer or a clock that is being adjusted.
const JUMP: Duration = Duration::from_secs(5);

/// Times since some moment of each clock's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clocks {
    monotonic: Duration,
    boot: Duration,
    wall: Duration,
}

/// Decides whether there was a sleep between two ticks.
#[derive(Debug)]
struct Sleeps {
    last: Clocks,
}

impl Sleeps {
    fn new(now: Clocks) -> Self {
        Self { last: now }
    }

    /// A tick: for how long there was a sleep, if there was one.
    fn tick(&mut self, now: Clocks) -> Option<Duration> {
        let last = std::mem::replace(&mut self.last, now);
        let monotonic = now.monotonic.saturating_sub(last.monotonic);
        let asleep = [
            now.boot.saturating_sub(last.boot).saturating_sub(monotonic),
            now.wall.saturating_sub(last.wall).saturating_sub(monotonic),
            monotonic.saturating_sub(TICK),
        ];
        asleep.into_iter().max().filter(|asleep| *asleep > JUMP)
    }
}

/// Watches the clocks.
#[derive(Debug)]
pub(super) struct WakeWatch {
    woke: mpsc::Receiver<Duration>,
}

impl WakeWatch {
    /// Watches from now on, in a thread that ends within a second after this value.
    pub(super) fn start() -> io::Result<Self> {
        let (tell, woke) = mpsc::channel(1);
        std::thread::Builder::new().name("wake-watch".to_owned()).spawn(move || watch(&tell))?;
        Ok(Self { woke })
    }

    /// Waits for the end of a sleep; returns how long it was. May be dropped and called again.
    pub(super) async fn woke(&mut self) -> Duration {
        match self.woke.recv().await {
            Some(asleep) => asleep,
            None => std::future::pending().await,
        }
    }
}

fn watch(tell: &mpsc::Sender<Duration>) {
    let started = Instant::now();
    let mut sleeps = Sleeps::new(clocks(started));
    let tick = Timespec { tv_sec: TICK.as_secs().cast_signed(), tv_nsec: 0 };
    while !tell.is_closed() {
        // this clock goes on while the computer sleeps, so that the tick comes at once afterwards;
        // tokio's would have to be waited for
        match clock_nanosleep_relative(ClockId::Boottime, &tick) {
            NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) => {}
            NanosleepRelativeResult::Err(error) => {
                return tracing::warn!(%error, "the end of a sleep will be noticed late");
            }
        }
        if let Some(asleep) = sleeps.tick(clocks(started)) {
            // one that was not heard of yet is as good
            let _ = tell.try_send(asleep);
        }
    }
}

fn clocks(started: Instant) -> Clocks {
    let boot = clock_gettime(ClockId::Boottime);
    Clocks {
        monotonic: started.elapsed(),
        boot: Duration::try_from(boot).unwrap_or_default(),
        wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// A second passes, and each clock goes by so much more.
    fn tick(monotonic: Duration, boot: Duration, wall: Duration) -> Option<Duration> {
        let start = Clocks { monotonic: 10 * S, boot: HOUR, wall: 400_000 * HOUR };
        let now = Clocks {
            monotonic: start.monotonic + S + monotonic,
            boot: start.boot + S + boot,
            wall: start.wall + S + wall,
        };
        let mut sleeps = Sleeps::new(start);
        let asleep = sleeps.tick(now);
        assert_eq!(sleeps.tick(now), None, "told once");
        asleep
    }

    #[test]
    fn every_kind_of_sleep_is_noticed_with_its_length() {
        let none = Duration::ZERO;
        assert_eq!(tick(none, HOUR, HOUR), Some(HOUR), "suspended");
        assert_eq!(tick(20 * S, 20 * S, 20 * S), Some(20 * S), "stopped");
        assert_eq!(tick(none, none, HOUR), Some(HOUR), "only the wall clock tells");
        assert_eq!(tick(none, 6 * S, none), Some(6 * S), "only the boot clock tells");
    }

    #[test]
    fn a_busy_computer_and_an_adjusted_clock_are_no_sleep() {
        let none = Duration::ZERO;
        assert_eq!(tick(none, none, none), None);
        assert_eq!(tick(4 * S, 4 * S, 4 * S), None);
        assert_eq!(tick(none, none, 2 * S), None);
        // set back by a day
        let mut sleeps = Sleeps::new(Clocks { monotonic: S, boot: S, wall: 24 * HOUR });
        assert_eq!(sleeps.tick(Clocks { monotonic: 2 * S, boot: 2 * S, wall: S }), None);
    }

    #[tokio::test]
    async fn nothing_is_told_while_time_passes_as_usual() {
        let mut watch = WakeWatch::start().unwrap();
        assert!(tokio::time::timeout(S * 5 / 2, watch.woke()).await.is_err());
    }
}

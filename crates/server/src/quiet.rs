//! Log lines that strangers can cause, without their filling the disk.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many lines ...
const LINES: u32 = 60;
/// ... in so long.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts lines of one kind.
#[derive(Default)]
pub struct Quiet {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Quiet {
    /// Whether one more line may be written now; with how many were not since the last one.
    pub fn may_say(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= WINDOW) {
            state.begun = Some(now);
            state.said = 0;
        }
        if state.said >= LINES {
            state.unsaid += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_sixty_lines_a_minute_and_a_count() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let said = (0..1_000).filter(|_| quiet.may_say(start).is_some()).count();
        assert_eq!(said, 60);
        assert_eq!(quiet.may_say(start + WINDOW), Some(940));
        assert_eq!(quiet.may_say(start + WINDOW), Some(0));
    }
}

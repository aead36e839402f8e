//! The replay window: which counters of a peer may still come (B4; RFC 4303, 3.4.3).
//!
//! Used by static mode for each run of the peer, and by session mode for each epoch.

/// How many counters below the highest one are told apart; what is older is refused.
pub const WINDOW_LEN: u64 = 8_192;

const WORD_BITS: u64 = u64::BITS as u64;
/// One more than the window needs, so that a word can be emptied as a whole when it is reached.
const WORDS: usize = (WINDOW_LEN / WORD_BITS) as usize + 1;

/// Which counters have been seen. Checked before a packet's authentication if that saves work, and
/// marked only after it.
#[derive(Clone)]
pub struct Window {
    /// The next counter after the highest; 0 before the first.
    end: u64,
    /// The highest possible counter was seen, behind which there is none.
    full: bool,
    /// A ring: the bit of a counter is at counter modulo the ring's length.
    seen: Box<[u64; WORDS]>,
}

impl Default for Window {
    fn default() -> Self {
        Self { end: 0, full: false, seen: Box::new([0; WORDS]) }
    }
}

impl Window {
    /// A window whose counters up to and with `highest` count as seen.
    pub fn after(highest: u64) -> Self {
        let mut window = Self { seen: Box::new([u64::MAX; WORDS]), ..Self::default() };
        window.end = highest.saturating_add(1);
        window.full = highest == u64::MAX;
        // the bits behind `highest` belong to counters to come
        let (word, bit) = place(highest);
        window.seen[word] &= u64::MAX >> (WORD_BITS - 1 - bit);
        window
    }

    /// Whether this counter is new and not too old.
    pub fn accepts(&self, counter: u64) -> bool {
        if self.is_ahead(counter) {
            return true;
        }
        let age = self.highest().map_or(0, |highest| highest - counter);
        let (word, bit) = place(counter);
        age < WINDOW_LEN && self.seen[word] & (1 << bit) == 0
    }

    /// Notes a counter whose packet was authentic. One that is not accepted changes nothing.
    pub fn mark(&mut self, counter: u64) {
        if !self.accepts(counter) {
            return;
        }
        if self.is_ahead(counter) {
            self.advance(counter);
        }
        let (word, bit) = place(counter);
        self.seen[word] |= 1 << bit;
    }

    /// The highest counter so far.
    pub fn highest(&self) -> Option<u64> {
        if self.full { Some(u64::MAX) } else { self.end.checked_sub(1) }
    }

    fn is_ahead(&self, counter: u64) -> bool {
        !self.full && counter >= self.end
    }

    /// Empties the words between the highest counter and this one.
    fn advance(&mut self, counter: u64) {
        let (old, new) = (self.end.saturating_sub(1) / WORD_BITS, counter / WORD_BITS);
        for word in 1..=(new - old).min(WORDS as u64) {
            self.seen[((old + word) % WORDS as u64) as usize] = 0;
        }
        (self.end, self.full) = (counter.saturating_add(1), counter == u64::MAX);
    }
}

/// Word and bit of a counter.
fn place(counter: u64) -> (usize, u64) {
    ((counter / WORD_BITS % WORDS as u64) as usize, counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_is_taken_once() {
        let mut window = Window::default();
        assert_eq!(window.highest(), None);
        for counter in [0, 1, 5, 3, 2] {
            assert!(window.accepts(counter), "{counter}");
            window.mark(counter);
            assert!(!window.accepts(counter), "{counter}");
        }
        assert!(window.accepts(4));
        assert_eq!(window.highest(), Some(5));
    }

    #[test]
    fn the_window_holds_8192_counters_and_not_one_more() {
        for highest in [8_191, 8_192, 10_000, 1 << 40, u64::MAX] {
            let mut window = Window::default();
            window.mark(highest);
            assert!(window.accepts(highest - 8_191), "{highest}");
            assert!(highest < 8_192 || !window.accepts(highest - 8_192), "{highest}");
        }
    }

    #[test]
    fn the_last_counter_of_all_can_be_used_once() {
        let mut window = Window::default();
        window.mark(u64::MAX);
        assert!(!window.accepts(u64::MAX) && window.accepts(u64::MAX - 1));
        assert_eq!(window.highest(), Some(u64::MAX));
        window.mark(u64::MAX - 1);
        assert!(!window.accepts(u64::MAX - 1));
    }

    #[test]
    fn a_window_after_a_counter_takes_only_higher_ones() {
        for highest in [0, 63, 64, 70_000, u64::MAX - 1] {
            let window = Window::after(highest);
            assert_eq!(window.highest(), Some(highest));
            assert!(!window.accepts(highest) && window.accepts(highest + 1), "{highest}");
            assert!(!window.accepts(highest.saturating_sub(8_000)), "{highest}");
        }
        assert!(!Window::after(u64::MAX).accepts(u64::MAX));
        let mut window = Window::after(1_000);
        window.mark(1_030);
        assert!(window.accepts(1_029) && window.accepts(1_001) && !window.accepts(1_000));
    }

    proptest! {
        /// Against a set of all counters ever marked.
        #[test]
        fn it_agrees_with_a_list(steps in prop::collection::vec((0u8..4, 0u64..20_000), 1..300)) {
            let (mut window, mut seen) = (Window::default(), BTreeSet::new());
            for (kind, value) in steps {
                let highest: u64 = seen.last().copied().unwrap_or(0);
                let counter = match kind {
                    0 => highest.saturating_sub(value),
                    1 => highest + value,
                    2 => highest + value % 70,
                    _ => highest.saturating_sub(value % 70),
                };
                let new = !seen.contains(&counter) && counter + WINDOW_LEN > highest;
                prop_assert_eq!(window.accepts(counter), new, "{} below {}", counter, highest);
                window.mark(counter);
                if new {
                    seen.insert(counter);
                }
                prop_assert_eq!(window.highest(), seen.last().copied());
            }
        }
    }
}

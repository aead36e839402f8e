//! Which segments have come. The library looks for the place of each one from the last one on, so that
//! few that belong far before others would keep it busy for long, again and again if they repeat.

use super::gate::Segment;

/// Segments that are received ahead of what was read, at most.
pub(super) const WINDOW: u16 = 8_192;
const WORDS: usize = WINDOW as usize / 64;
/// What the places of one datagram's segments may cost, in segments that are looked at; one is always
/// put in its place.
const WORK_MAX: u32 = WINDOW as u32;

/// A segment with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The library gets it.
    New,
    /// It has come before, and is acknowledged once more.
    Again,
    /// It is as if it were lost.
    TooMuch,
}

/// The segments that are ahead of what was read.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// A bit for each number, modulo the window.
    come: Box<[u64; WORDS]>,
    /// The number behind the highest one so far.
    end: u32,
    /// Numbers and times of what has come again.
    again: Vec<(u32, u32)>,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { come: Box::new([0; WORDS]), end: 0, again: Vec::new() }
    }

    /// A segment with data has come, less than the window ahead of `next_read`. `work`: what this
    /// datagram has cost so far.
    pub(super) fn take(&mut self, next_read: u32, segment: &Segment, work: &mut u32) -> Arrival {
        let number = segment.number;
        if number.wrapping_sub(next_read).cast_signed() < 0 {
            // the library only acknowledges it
            return Arrival::New;
        }
        let (word, bit) = place(number);
        if self.come[word] & bit != 0 {
            self.again.push((number, segment.time));
            return Arrival::Again;
        }
        let behind = self.end.wrapping_sub(number).cast_signed().max(0).cast_unsigned();
        if *work > 0 && *work + behind > WORK_MAX {
            return Arrival::TooMuch;
        }
        *work += behind;
        self.come[word] |= bit;
        if behind == 0 {
            self.end = number.wrapping_add(1);
        }
        Arrival::New
    }

    /// The segment with this number has been read.
    pub(super) fn on_read(&mut self, number: u32) {
        let (word, bit) = place(number);
        self.come[word] &= !bit;
    }

    /// What is to be acknowledged once more.
    pub(super) fn take_again(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.again)
    }
}

/// Where the bit of a number is.
fn place(number: u32) -> (usize, u64) {
    let place = number % u32::from(WINDOW);
    (place as usize / 64, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::gate::PUSH;

    fn push(number: u32) -> Segment {
        Segment { command: PUSH, window: 9, time: 7, number, unacknowledged: 0, len: 0 }
    }

    #[test]
    fn each_is_new_once_also_where_numbers_begin_anew() {
        let mut arrivals = Arrivals::new();
        let mut next_read = u32::MAX - 20_000;
        arrivals.end = next_read;
        for _ in 0..5 {
            for ahead in (0..u32::from(WINDOW)).rev() {
                let number = next_read.wrapping_add(ahead);
                assert_eq!(arrivals.take(next_read, &push(number), &mut 0), Arrival::New);
                assert_eq!(arrivals.take(next_read, &push(number), &mut 0), Arrival::Again);
            }
            assert_eq!(arrivals.take_again().len(), usize::from(WINDOW));
            for _ in 0..WINDOW {
                arrivals.on_read(next_read);
                next_read = next_read.wrapping_add(1);
            }
            let old = next_read.wrapping_sub(1);
            assert_eq!(arrivals.take(next_read, &push(old), &mut 0), Arrival::New);
        }
    }

    #[test]
    fn a_datagram_costs_no_more_than_one_segment_may() {
        let mut arrivals = Arrivals::new();
        let mut take = |number, work: &mut u32| arrivals.take(0, &push(number), work);
        assert_eq!(take(8_191, &mut 0), Arrival::New);
        let work = &mut 0;
        assert_eq!(take(0, work), Arrival::New);
        assert_eq!(take(1, work), Arrival::TooMuch);
        assert_eq!(take(1, &mut 0), Arrival::New, "it comes again");
        let work = &mut 0;
        let new = (2..50).rev().filter(|number| take(*number, work) == Arrival::New).count();
        assert_eq!(new, 1);
        let work = &mut 0;
        assert!((8_100..8_191).all(|number| take(number, work) == Arrival::New));
    }
}

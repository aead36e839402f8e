//! The last lines of the log, in memory, for front ends that may not read the system's log.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tracing_subscriber::fmt::MakeWriter;

/// Longer lines are cut, in bytes.
const LINE_MAX: usize = 1_024;

/// Keeps the last lines that were logged. Clones share them.
#[derive(Debug, Clone)]
pub struct RecentLog {
    kept: Arc<Mutex<Kept>>,
    count: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    lines: VecDeque<String>,
    room: usize,
    /// Lines so far, those that are forgotten included.
    count: u64,
}

impl RecentLog {
    /// Room for so many lines.
    #[must_use]
    pub fn new(room: usize) -> RecentLog {
        let kept = Kept { lines: VecDeque::new(), room, count: 0 };
        RecentLog { kept: Arc::new(Mutex::new(kept)), count: watch::Sender::new(0) }
    }

    /// The last `lines` lines at most, oldest first, and where they end.
    #[must_use]
    pub fn last(&self, lines: usize) -> (Vec<String>, u64) {
        let kept = self.kept();
        let skipped = kept.lines.len().saturating_sub(lines);
        (kept.lines.iter().skip(skipped).cloned().collect(), kept.count)
    }

    /// The lines behind that place, as far as they are still there, and where they end.
    #[must_use]
    pub fn since(&self, place: u64) -> (Vec<String>, u64) {
        let new = self.kept().count.saturating_sub(place);
        self.last(usize::try_from(new).unwrap_or(usize::MAX))
    }

    /// Changes with each line.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    fn add(&self, line: &str) {
        let mut kept = self.kept();
        if kept.lines.len() >= kept.room {
            kept.lines.pop_front();
        }
        let end = line.floor_char_boundary(LINE_MAX);
        kept.lines.push_back(line[..end].replace(char::is_control, " "));
        kept.count += 1;
        self.count.send_replace(kept.count);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for RecentLog {
    type Writer = Lines<'a>;

    fn make_writer(&'a self) -> Lines<'a> {
        Lines(self)
    }
}

/// Takes whole lines, as the log writes them.
#[derive(Debug)]
pub struct Lines<'a>(&'a RecentLog);

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        String::from_utf8_lossy(bytes).lines().for_each(|line| self.0.add(line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_each_is_told_once() {
        let log = RecentLog::new(3);
        for line in ["one\n", "two\n", "three\nfour\n"] {
            log.make_writer().write_all(line.as_bytes()).expect("written");
        }
        assert_eq!(log.last(10).0, ["two", "three", "four"]);
        let (last, place) = log.last(1);
        assert_eq!(last, ["four"]);
        assert_eq!(log.since(place).0, [""; 0]);
        log.make_writer().write_all("five\n".as_bytes()).expect("written");
        assert_eq!(log.since(place).0, ["five"]);
        assert_eq!(log.since(0).0, ["three", "four", "five"], "what is gone is gone");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let log = RecentLog::new(1);
        log.make_writer().write_all("é".repeat(2_000).as_bytes()).expect("written");
        assert_eq!(log.last(1).0[0].len(), LINE_MAX);
    }
}

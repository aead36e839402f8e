//! Users at work: each downloads at a rate of their own, over and over.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{ClientNode, Node, address};

/// What is read between two looks at the clock.
const PIECE: usize = 64 * 1024;
const REQUEST: &[u8] = b"GET /file HTTP/1.0\r\n\r\n";

/// The users; they go home when dropped.
pub(crate) struct Work {
    received: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Work {
    /// Each reads so many bytes a second of the web host's `file`, if they come.
    pub(crate) fn start(users: &[ClientNode], rate: u64) -> Work {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut received, mut threads) = (Vec::new(), Vec::new());
        for user in users {
            let counter = Arc::new(AtomicU64::new(0));
            received.push(counter.clone());
            let (node, stop) = (user.node.clone(), stop.clone());
            threads.push(thread::spawn(move || work(&node, rate, &counter, &stop)));
        }
        Work { received, stop, threads }
    }

    /// What each of them gets from now on until `until` returns, in bytes a second.
    pub(crate) fn rates<T>(&self, until: impl FnOnce() -> Result<T>) -> Result<(Vec<f64>, T)> {
        let read = || -> Vec<u64> {
            self.received.iter().map(|counter| counter.load(Ordering::Relaxed)).collect()
        };
        let (start, before) = (Instant::now(), read());
        let value = until()?;
        let (took, after) = (start.elapsed().as_secs_f64(), read());
        let rates = before.iter().zip(&after).map(|(before, after)| (after - before) as f64 / took);
        Ok((rates.collect(), value))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

fn work(node: &Node, rate: u64, received: &AtomicU64, stop: &AtomicBool) {
    if node.enter_network().is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        // what does not come is what is measured
        if download(rate, received, stop).is_err() {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn download(rate: u64, received: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let patience = Duration::from_secs(2);
    let mut tcp = TcpStream::connect_timeout(&(address::WEB, 80).into(), patience)?;
    tcp.set_read_timeout(Some(patience))?;
    tcp.write_all(REQUEST)?;
    let (start, mut count) = (Instant::now(), 0);
    let mut piece = vec![0; PIECE];
    while !stop.load(Ordering::Relaxed) {
        let size = tcp.read(&mut piece)?;
        if size == 0 {
            ensure!(count > 0, "that is no web server");
            return Ok(());
        }
        received.fetch_add(size as u64, Ordering::Relaxed);
        count += size as u64;
        let due = Duration::from_secs_f64(count as f64 / rate as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(())
}

//! The I/O of one direction: a TUN device in the laboratory, and the thread behind it. What goes
//! into the device comes out of it again, when and if the shaper says so.

use std::io::{self, IoSliceMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cipherwall_packet::ip;
use cipherwall_packet::offload::{self, HEADER_LEN, OffloadHeader};
use cipherwall_tun::{Device, MAX_PACKET_LEN};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::link::Link;
use super::shaper::Shaper;
use crate::node::Node;

/// The shortest sleep, which is also how late a packet may be: it bounds the number of wake-ups.
const TICK: Duration = Duration::from_micros(100);
const NICE: i32 = -20;
/// How many packets are read before those are sent that are due.
const BATCH: usize = 32;
/// Packets that wait for the thread; it must not be this queue that drops.
const DEVICE_QUEUE: &str = "20000";

/// A device with its thread. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Detour {
    shaper: Arc<Mutex<Shaper>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Detour {
    /// Makes the device `name` in `node`, up, without addresses and routes. The thread is called
    /// `LAB-NAME`.
    pub(super) fn start(node: &Node, name: &'static str, link: Link, seed: u64) -> Result<Detour> {
        let shaper = Arc::new(Mutex::new(Shaper::new(link, seed, Instant::now())));
        let (stop, stopped) = oneshot::channel();
        let (report, made) = mpsc::channel();
        let thread = {
            let (node, shaper) = (node.clone(), shaper.clone());
            move || {
                let runtime = enter(&node);
                let outcome = runtime
                    .and_then(|runtime| runtime.block_on(run(name, &shaper, &report, stopped)));
                if let Err(error) = outcome
                    && let Err(mpsc::SendError(Err(error))) = report.send(Err(error))
                {
                    say(name, &error);
                }
            }
        };
        let lab = node.namespace().split('-').next().unwrap_or_default();
        let thread = std::thread::Builder::new().name(format!("{lab}-{name}")).spawn(thread)?;
        let detour = Detour { shaper, stop: Some(stop), thread: Some(thread) };
        made.recv().context("the thread ended")??;
        node.ip(&["link", "set", name, "addrgenmode", "none"])?;
        node.ip(&["link", "set", name, "mtu", "1500", "txqueuelen", DEVICE_QUEUE, "up"])?;
        Ok(detour)
    }

    pub(super) fn shaper(&self) -> MutexGuard<'_, Shaper> {
        lock(&self.shaper)
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[expect(clippy::print_stderr, reason = "tests and benches then show why nothing passes any more")]
fn say(name: &str, error: &anyhow::Error) {
    eprintln!("emulated link {name} is broken: {error:#}");
}

fn lock(shaper: &Mutex<Shaper>) -> MutexGuard<'_, Shaper> {
    shaper.lock().unwrap_or_else(PoisonError::into_inner)
}

fn enter(node: &Node) -> Result<tokio::runtime::Runtime> {
    node.enter_network()?;
    // this thread's alone: a link does not get slower because its ends are busy
    rustix::process::setpriority_process(None, NICE).context("priority")?;
    Ok(tokio::runtime::Builder::new_current_thread().enable_io().build()?)
}

/// Moves packets until `stopped`.
async fn run(
    name: &str,
    shaper: &Mutex<Shaper>,
    report: &mpsc::Sender<Result<()>>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let mut reader = Reader {
        device: Device::open(name)?,
        read: vec![0; HEADER_LEN + MAX_PACKET_LEN],
        scratch: Vec::new(),
    };
    let timer = Timer::new()?;
    report.send(Ok(())).context("nobody waits")?;
    loop {
        let mut more = true;
        for _ in 0..BATCH {
            more = more && reader.take_in(shaper)?;
        }
        let next = let_out(&reader.device, shaper)?;
        timer.set(next, Instant::now())?;
        tokio::select! {
            _ = &mut stopped => return Ok(()),
            ready = reader.device.readable() => ready.context("waiting for packets")?,
            expired = timer.expired() => expired.context("waiting for the time")?,
        }
    }
}

struct Reader {
    device: Device,
    read: Vec<u8>,
    scratch: Vec<u8>,
}

impl Reader {
    /// One packet into the link; one of many segments as what it stands for. `false` if there is
    /// none.
    fn take_in(&mut self, shaper: &Mutex<Shaper>) -> Result<bool> {
        let len = match self.device.try_read(&mut [IoSliceMut::new(&mut self.read)]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            read => read.context("reading")?,
        };
        let (header, packet) =
            self.read[..len].split_first_chunk::<HEADER_LEN>().context("short packet")?;
        // what the kernel says to its neighbours by itself stays out of the figures
        if ip::addresses(packet)?.1.is_multicast() {
            return Ok(true);
        }
        let mut shaper = lock(shaper);
        let now = Instant::now();
        let mut push = |piece: &[u8]| shaper.push(now, piece);
        offload::split(&OffloadHeader::parse(header), packet, &mut self.scratch, &mut push)?;
        Ok(true)
    }
}

/// Sends what is due; returns when the next packet will be.
fn let_out(device: &Device, shaper: &Mutex<Shaper>) -> Result<Option<Instant>> {
    let now = Instant::now();
    loop {
        let mut waiting = lock(shaper);
        let Some(packet) = waiting.pop(now) else { return Ok(waiting.next_arrival()) };
        // not locked while the packet goes its way through the kernel
        drop(waiting);
        match device.write(&OffloadHeader::NONE, &packet) {
            // not up yet, or not any more
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {}
            written => written.context("writing")?,
        }
    }
}

/// tokio's own timers count in milliseconds. This is the kernel's, which tokio takes for a pipe: it
/// becomes readable as one does.
struct Timer(pipe::Receiver);

impl Timer {
    fn new() -> Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).context("timer")?;
        Ok(Timer(pipe::Receiver::from_owned_fd_unchecked(fd)?))
    }

    /// Never, without a time.
    fn set(&self, at: Option<Instant>, now: Instant) -> Result<()> {
        let sleep = at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now).max(TICK));
        let it_value = Timespec::try_from(sleep).context("time")?;
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval, it_value };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    async fn expired(&self) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

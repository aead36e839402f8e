//! Many sessions at once: a load generator that speaks the real protocol, without TUN devices and
//! without the client program.
//!
//! ```text
//!  generator, in a client's network            gateway             peer, on the web host
//!  1,000 tunnels ([`session`])        ──────>  the real one  ───>  TCP: takes or gives what it can
//!  some of them with TCP of their own ([`stack`])                  and counts ([`peer`])
//! ```
//!
//! Each session is a device of its own with an invitation of its own ([`dial`]), and stays alive as
//! a client does. Active ones move bulk data over one TCP connection each, in packets with
//! segmentation offload, as a Linux client would.

mod dial;
mod peer;
mod session;
mod stack;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use cipherwall_proto::invitation::Invitation;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::address;
use crate::lab::Lab;
use crate::programs::{GatewayNode, Programs};
use crate::tools::until;
use peer::Peer;
use session::{Order, Session};

/// Sessions that are there before memory is measured first: what the gateway takes once does not
/// count as theirs.
const WARM_UP: usize = 10;
/// Log-ins at a time; the gateway takes 256 from one address.
const LOG_INS: usize = 16;
/// How many `invite create` run at a time.
const INVITERS: usize = 4;
/// How long transfers run before they are measured.
const SETTLE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Sessions in all.
    pub sessions: usize,
    /// How many of them move bulk data at the same time.
    pub active: usize,
    /// How long each transfer is measured.
    pub time: Duration,
}

/// What [`many_sessions`] measured.
#[derive(Clone, Debug, Serialize)]
pub struct ManySessions {
    /// Sessions in all.
    pub sessions: usize,
    /// Log-ins a second, 16 at a time.
    pub log_in_rate: f64,
    /// Resident memory of the gateway with all sessions, all idle, in bytes.
    pub memory: u64,
    /// What an idle session takes of it, in bytes.
    pub memory_each: f64,
    /// From the clients.
    pub up: Bulk,
    /// To the clients.
    pub down: Bulk,
}

/// Bulk transfers in one direction, in bits of payload per second.
#[derive(Clone, Debug, Serialize)]
pub struct Bulk {
    /// One active session, while all others are idle.
    pub alone: f64,
    /// The active sessions, all at once.
    pub each: Vec<f64>,
    /// Packets that the gateway's TUN device dropped meanwhile, because nobody read them in time.
    pub device_drops: u64,
    /// Packets that the gateway dropped meanwhile, because a session's connection was full.
    pub queue_drops: u64,
}

impl Bulk {
    /// All active sessions together.
    pub fn total(&self) -> f64 {
        self.each.iter().sum()
    }

    /// Jain's index: 1 if all get the same, 1/n if one gets everything.
    pub fn fairness(&self) -> f64 {
        let squares: f64 = self.each.iter().map(|rate| rate * rate).sum();
        self.total().powi(2) / (squares * self.each.len() as f64)
    }
}

/// Sets up the gateway of `lab`, lets `load.sessions` devices log in from the first client's
/// network, and measures memory and bulk transfers. The gateway is stopped in the end.
pub fn many_sessions(lab: &Lab, programs: &Programs, load: Load) -> Result<ManySessions> {
    ensure!(WARM_UP < load.sessions && load.active <= load.sessions, "not enough sessions");
    let mut gateway = start_gateway(lab, programs)?;
    let invitations = invite(&gateway, load.sessions)?;
    let peer = Peer::start(&lab.web, load.sessions)?;
    let mut fleet = Fleet::new(lab, peer)?;

    fleet.log_in(&invitations[..WARM_UP])?;
    let before = settled_memory(&mut gateway)?;
    let start = Instant::now();
    fleet.log_in(&invitations[WARM_UP..])?;
    let late = (load.sessions - WARM_UP) as f64;
    let log_in_rate = late / start.elapsed().as_secs_f64();
    let memory = settled_memory(&mut gateway)?;
    let connected = &gateway.status()?["sessions"];
    ensure!(*connected == load.sessions, "the gateway has {connected} sessions");

    let bulk = |way| -> Result<Bulk> {
        let alone = fleet.transfer(way, 1, load.time)?.iter().sum();
        let before = drops(&gateway)?;
        let each = fleet.transfer(way, load.active, load.time)?;
        let [device_drops, queue_drops] = drops(&gateway)?;
        Ok(Bulk {
            alone,
            each,
            device_drops: device_drops - before[0],
            queue_drops: queue_drops - before[1],
        })
    };
    let (up, down) = (bulk(Way::Up)?, bulk(Way::Down)?);
    fleet.close()?;
    gateway.stop()?;
    let memory_each = memory.saturating_sub(before) as f64 / late;
    Ok(ManySessions { sessions: load.sessions, log_in_rate, memory, memory_each, up, down })
}

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// A gateway as `init` makes it, but with room for 4,093 clients.
fn start_gateway(lab: &Lab, programs: &Programs) -> Result<GatewayNode> {
    let mut gateway = GatewayNode::new(lab, programs);
    gateway.init(&address::GATEWAY.to_string())?;
    let config_path = gateway.state_dir().join("server.yaml");
    let config = fs::read_to_string(&config_path)?;
    let roomy = config.replace("v4: 10.8.0.0/24", "v4: 10.8.0.0/20");
    ensure!(roomy != config, "server.yaml has another pool than expected");
    fs::write(&config_path, roomy)?;
    gateway.start()?;
    Ok(gateway)
}

/// An invitation for each session, every one for a user of its own.
fn invite(gateway: &GatewayNode, count: usize) -> Result<Vec<Invitation>> {
    let one = |index: usize| -> Result<Invitation> {
        let link = gateway.invite(&format!("user{index}"))?.link;
        Invitation::from_link(&link).context("an invitation of the gateway")
    };
    let invited = thread::scope(|scope| {
        let inviters: Vec<_> = (0..INVITERS)
            .map(|first| {
                let mine = (first..count).step_by(INVITERS);
                scope.spawn(move || mine.map(one).collect::<Result<Vec<_>>>())
            })
            .collect();
        inviters
            .into_iter()
            .map(|inviter| inviter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
    });
    Ok(invited?.into_iter().flatten().collect())
}

/// The gateway's resident memory once it has given back what it does not need: its allocator does
/// so within some seconds.
fn settled_memory(gateway: &mut GatewayNode) -> Result<u64> {
    let mut lowest = u64::MAX;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        thread::sleep(Duration::from_millis(500));
        let memory = gateway.process()?.memory("VmRSS")?;
        if memory < lowest {
            (lowest, since) = (memory, Instant::now());
        }
    }
    Ok(lowest)
}

/// What the gateway has dropped so far on the way to the clients: in its TUN device, and in the
/// queues of its sessions.
fn drops(gateway: &GatewayNode) -> Result<[u64; 2]> {
    let device = gateway.node.read_file("/sys/class/net/cw0/statistics/tx_dropped")?;
    let queues = gateway.status()?["drops"]["congested"].as_u64().context("no figure")?;
    Ok([device.trim().parse()?, queues])
}

/// The sessions.
struct Fleet {
    // before the runtime: they end in it
    sessions: Vec<Session>,
    peer: Peer,
    runtime: Runtime,
}

impl Fleet {
    /// Sessions come from the first client's network.
    fn new(lab: &Lab, peer: Peer) -> Result<Fleet> {
        let node = lab.clients[0].clone();
        // the runtime's thread is where the one is that makes it; with several, sessions on the less
        // busy one would have an advantage that has nothing to do with the gateway
        let make = move || -> Result<Runtime> {
            node.enter_network()?;
            Ok(tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?)
        };
        let Ok(runtime) = thread::spawn(make).join() else { bail!("no runtime") };
        Ok(Fleet { sessions: Vec::new(), peer, runtime: runtime? })
    }

    /// One more session for each invitation.
    fn log_in(&mut self, invitations: &[Invitation]) -> Result<()> {
        let todo = Arc::new(Mutex::new(invitations.to_vec()));
        let tasks: Vec<_> = (0..LOG_INS)
            .map(|_| {
                let todo = todo.clone();
                self.runtime.spawn(async move {
                    let mut dialed = Vec::new();
                    loop {
                        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).pop();
                        let Some(invitation) = next else { return anyhow::Ok(dialed) };
                        dialed.push(Session::start(dial::dial(&invitation).await?));
                    }
                })
            })
            .collect();
        for task in tasks {
            let dialed = self.runtime.block_on(task).context("a task of the generator")?;
            self.sessions.extend(dialed?);
        }
        Ok(())
    }

    /// Bulk data over the first `count` sessions at once; payload bits per second of each.
    fn transfer(&self, way: Way, count: usize, time: Duration) -> Result<Vec<f64>> {
        let active = &self.sessions[..count];
        let arrived = self.peer.arrived();
        arrived.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        for (index, session) in active.iter().enumerate() {
            session.order(Order::Start {
                way,
                index: u32::try_from(index)?,
                arrived: arrived.clone(),
            })?;
        }
        let read = || -> Vec<u64> {
            arrived[..count].iter().map(|counter| counter.load(Ordering::Relaxed)).collect()
        };
        until("data over all active sessions", PATIENCE, || {
            Ok(read().iter().all(|count| *count > 0).then_some(()))
        })?;
        thread::sleep(SETTLE);
        let (start, before) = (Instant::now(), read());
        thread::sleep(time);
        let (took, after) = (start.elapsed().as_secs_f64(), read());
        active.iter().try_for_each(|session| session.order(Order::Stop))?;
        let moved = before.iter().zip(&after).map(|(before, after)| after - before);
        Ok(moved.map(|bytes| bytes as f64 * 8.0 / took).collect())
    }

    /// Everybody says farewell; an error if a session has ended before that.
    fn close(self) -> Result<()> {
        self.sessions.iter().try_for_each(|session| session.order(Order::Close))?;
        for session in self.sessions {
            self.runtime.block_on(session.end())?;
        }
        Ok(())
    }
}

/// Bytes that have arrived, by session.
type Arrived = Arc<[AtomicU64]>;

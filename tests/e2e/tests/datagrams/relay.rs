//! A man in the middle of a client's datagrams: he carries them as they are, remembers the newest,
//! and lets out of his own socket, which is the client's address to the gateway, what a test wants.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Node, address};

/// Where the gateway takes datagrams.
pub(crate) const PORT: u16 = 1194;
const HERE: u16 = 9194;
const REMEMBERED: usize = 2_000;

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the gateway.
    Up,
    /// To the client.
    Down,
}

/// Carries the datagrams of the client behind one router until dropped.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Where the client's datagrams come to.
    inner: UdpSocket,
    /// Where they leave.
    outer: UdpSocket,
    client: Mutex<Option<SocketAddr>>,
    up: Mutex<VecDeque<Vec<u8>>>,
    down: Mutex<VecDeque<Vec<u8>>>,
    stop: AtomicBool,
}

impl Relay {
    /// Diverts what the client behind `router` sends to the gateway's port of datagrams.
    pub(crate) fn start(router: &Node) -> Result<Relay> {
        let shared = Arc::new(open(router)?);
        let threads = [Way::Up, Way::Down].map(|way| {
            let shared = shared.clone();
            std::thread::spawn(move || carry(&shared, way))
        });
        router.nft(&format!(
            "table ip relay {{\n chain divert {{\n type nat hook prerouting priority dstnat;\n\
             iifname \"lan0\" ip daddr {} udp dport {PORT} redirect to :{HERE}\n }}\n }}\n",
            address::GATEWAY
        ))?;
        Ok(Relay { shared, threads: threads.into() })
    }

    /// What has gone this way last, the oldest first.
    pub(crate) fn remembered(&self, way: Way) -> Vec<Vec<u8>> {
        lock(self.shared.log(way)).iter().cloned().collect()
    }

    /// Sends this instead of the one whose datagrams these usually are.
    pub(crate) fn inject(&self, way: Way, datagram: &[u8]) {
        self.shared.send(way, datagram);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn log(&self, way: Way) -> &Mutex<VecDeque<Vec<u8>>> {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// What cannot be sent is lost, as datagrams are.
    fn send(&self, way: Way, datagram: &[u8]) {
        let _ = match (way, *lock(&self.client)) {
            (Way::Up, _) => self.outer.send_to(datagram, (address::GATEWAY, PORT)),
            (Way::Down, Some(client)) => self.inner.send_to(datagram, client),
            (Way::Down, None) => Ok(0),
        };
    }
}

/// The sockets, in the router's network; a thread of its own goes there to make them.
fn open(router: &Node) -> Result<Shared> {
    let bind = || -> Result<Shared> {
        router.enter_network()?;
        let socket = |port| -> Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        };
        Ok(Shared {
            inner: socket(HERE)?,
            outer: socket(0)?,
            client: Mutex::default(),
            up: Mutex::default(),
            down: Mutex::default(),
            stop: AtomicBool::new(false),
        })
    };
    std::thread::scope(|scope| scope.spawn(bind).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .context("the relay cannot listen")
}

fn carry(shared: &Shared, way: Way) {
    let mut datagram = vec![0; 65_535];
    while !shared.stop.load(Ordering::Relaxed) {
        let from = match way {
            Way::Up => &shared.inner,
            Way::Down => &shared.outer,
        };
        let (size, peer) = match from.recv_from(&mut datagram) {
            Ok(received) => received,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => panic!("the relay fails: {error}"),
        };
        if way == Way::Up {
            *lock(&shared.client) = Some(peer);
        }
        let mut log = lock(shared.log(way));
        if log.len() == REMEMBERED {
            log.pop_front();
        }
        log.push_back(datagram[..size].to_vec());
        drop(log);
        shared.send(way, &datagram[..size]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

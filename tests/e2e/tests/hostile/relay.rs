//! A man in the middle between a client and the gateway: he carries TLS and tunnel records as they
//! are, and spoils one when told to.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Node, address};

const PORT: u16 = 9443;
/// Type, version and length, of TLS records and of tunnel records alike.
const HEADER: usize = 5;
/// How much of each connection's beginning is remembered.
const REMEMBERED: usize = 64 * 1024;

/// What happens to a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// One bit in its middle is flipped.
    FlippedBit,
    /// It arrives twice.
    Repeated,
    /// It ends in its middle, and the connection with it.
    Truncated,
}

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the gateway.
    Up,
    /// To the client.
    Down,
}

/// Carries all connections of the clients behind one router until dropped.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    order: Mutex<Option<(Way, Fault)>>,
    /// What the client sent first on the newest connection.
    opening: Mutex<Vec<u8>>,
    connections: AtomicUsize,
    stop: AtomicBool,
}

impl Relay {
    /// Diverts what the client behind `router` sends to the gateway.
    pub(crate) fn start(router: &Node) -> Result<Relay> {
        let shared = Arc::new(Shared::default());
        let listener = listen(router)?;
        let accepting = {
            let (shared, router) = (shared.clone(), router.clone());
            std::thread::spawn(move || {
                let entered = router.enter_network();
                entered.and_then(|()| accept(&listener, &shared)).unwrap_or_else(|error| {
                    panic!("the relay fails: {error:#}");
                });
            })
        };
        router.nft(&format!(
            "table ip relay {{\n chain divert {{\n type nat hook prerouting priority dstnat;\n\
             iifname \"lan0\" ip daddr {} tcp dport 8443 redirect to :{PORT}\n }}\n }}\n",
            address::GATEWAY
        ))?;
        Ok(Relay { shared, accepting: Some(accepting) })
    }

    /// Spoils the next record that goes this way.
    pub(crate) fn spoil(&self, way: Way, fault: Fault) {
        *lock(&self.shared.order) = Some((way, fault));
    }

    /// Whether a record was spoilt since.
    pub(crate) fn has_spoilt(&self) -> bool {
        lock(&self.shared.order).is_none()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What the client sent on its newest connection, from the first byte; 64 KiB at most.
    pub(crate) fn opening(&self) -> Vec<u8> {
        lock(&self.shared.opening).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// A listener in the router's network; a thread of its own goes there to make it.
fn listen(router: &Node) -> Result<TcpListener> {
    let bind = || -> Result<TcpListener> {
        router.enter_network()?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    std::thread::scope(|scope| scope.spawn(bind).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .context("the relay cannot listen")
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => {
                client.set_nonblocking(false)?;
                let shared = shared.clone();
                // the gateway may be down: then this connection just ends
                std::thread::spawn(move || serve(client, &shared));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn serve(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let gateway = TcpStream::connect(SocketAddr::from((address::GATEWAY, 8443)))?;
    for stream in [&client, &gateway] {
        stream.set_nodelay(true)?;
    }
    shared.connections.fetch_add(1, Ordering::Relaxed);
    lock(&shared.opening).clear();
    let up = {
        let (shared, client, gateway) = (shared.clone(), client.try_clone()?, gateway.try_clone()?);
        std::thread::spawn(move || carry(Way::Up, &client, &gateway, &shared))
    };
    let down = carry(Way::Down, &gateway, &client, shared);
    let _ = up.join();
    down
}

/// Carries one direction to its end.
fn carry(way: Way, from: &TcpStream, to: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, from);
    let ended = loop {
        let record = match read_record(&mut reader) {
            Ok(record) => record,
            Err(error) => break Err(error),
        };
        if way == Way::Up {
            shared.remember(&record);
        }
        let sent = match shared.take_order(way) {
            None => (&*to).write_all(&record),
            Some(Fault::FlippedBit) => (&*to).write_all(&flipped(record)),
            Some(Fault::Repeated) => (&*to).write_all(&record.repeat(2)),
            Some(Fault::Truncated) => {
                (&*to).write_all(&record[..record.len() / 2])?;
                // whatever else is on its way is lost too
                let _ = from.shutdown(Shutdown::Both);
                return to.shutdown(Shutdown::Both);
            }
        };
        if sent.is_err() {
            break sent;
        }
    };
    let _ = to.shutdown(Shutdown::Write);
    ended
}

fn read_record(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut record = vec![0; HEADER];
    reader.read_exact(&mut record)?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(HEADER + length, 0);
    reader.read_exact(&mut record[HEADER..])?;
    Ok(record)
}

fn flipped(mut record: Vec<u8>) -> Vec<u8> {
    let middle = HEADER + (record.len() - HEADER) / 2;
    record[middle] ^= 0x10;
    record
}

impl Shared {
    fn take_order(&self, way: Way) -> Option<Fault> {
        lock(&self.order).take_if(|order| order.0 == way).map(|(_, fault)| fault)
    }

    fn remember(&self, record: &[u8]) {
        let mut opening = lock(&self.opening);
        if opening.len() + record.len() <= REMEMBERED {
            opening.extend(record);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

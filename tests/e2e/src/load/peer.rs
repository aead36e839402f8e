//! The other end of the transfers, on the web host: it takes or gives as much as TCP allows.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{Arrived, Way};
use crate::node::Node;

/// Where it listens.
pub(super) const PORT: u16 = 7007;
const BUFFER_LEN: usize = 256 * 1024;
const GREETING_LEN: usize = 5;
const UP: u8 = 0;
const DOWN: u8 = 1;

/// What a connection begins with: its direction, and the session's number.
pub(super) fn greeting(way: Way, index: u32) -> Vec<u8> {
    let way = match way {
        Way::Up => UP,
        Way::Down => DOWN,
    };
    [&[way], &index.to_be_bytes()[..]].concat()
}

/// The running peer; dropping it ends all its connections.
pub(super) struct Peer {
    arrived: Arrived,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Starts it on `node`, for this many sessions.
    pub(super) fn start(node: &Node, sessions: usize) -> Result<Peer> {
        let arrived: Arrived = (0..sessions).map(|_| AtomicU64::new(0)).collect();
        let (stop, stopped) = oneshot::channel();
        let (report, listening) = mpsc::channel();
        let thread = {
            let (node, arrived) = (node.clone(), arrived.clone());
            thread::spawn(move || {
                let outcome = enter(&node).map(|(runtime, listener)| {
                    let _ = report.send(Ok(()));
                    // dropping the runtime drops the connections
                    runtime.block_on(async {
                        tokio::select! {
                            _ = stopped => {}
                            () = serve(listener, arrived) => {}
                        }
                    });
                });
                if let Err(error) = outcome {
                    let _ = report.send(Err(error));
                }
            })
        };
        let peer = Peer { arrived, stop: Some(stop), thread: Some(thread) };
        listening.recv().context("the thread ended")?.context("the peer on the web host")?;
        Ok(peer)
    }

    /// What has arrived, in either direction; those who receive count.
    pub(super) fn arrived(&self) -> &Arrived {
        &self.arrived
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn enter(node: &Node) -> Result<(tokio::runtime::Runtime, TcpListener)> {
    node.enter_network()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    Ok((runtime, listener))
}

async fn serve(listener: TcpListener, arrived: Arrived) {
    // an error of one connection is its end, and the generator sees that nothing comes any more
    while let Ok((connection, _)) = listener.accept().await {
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let _ = transfer(connection, arrived).await;
        });
    }
}

async fn transfer(mut connection: TcpStream, arrived: Arrived) -> io::Result<()> {
    // CUBIC's guess when to end its slow start (HyStart) would be measured instead of the gateway
    SockRef::from(&connection).set_tcp_congestion(b"reno")?;
    let mut greeting = [0; GREETING_LEN];
    connection.read_exact(&mut greeting).await?;
    let [way, index @ ..] = greeting;
    let counter =
        arrived.get(u32::from_be_bytes(index) as usize).ok_or(io::ErrorKind::InvalidData)?;
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        if way == UP {
            match connection.read(&mut buffer).await? {
                0 => return Ok(()),
                count => counter.fetch_add(count as u64, Ordering::Relaxed),
            };
        } else {
            connection.write_all(&buffer).await?;
        }
    }
}

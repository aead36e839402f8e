//! The internet's part: a server that keeps connections busy, and a stranger who pings the client.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LASTING_PORT, TICK};
use crate::{node::Node, until};

/// An echo request (RFC 4443); the kernel fills in the checksum.
const ECHO_REQUEST: [u8; 12] = *b"\x80\0\0\0FS\0\0ping";

const PATIENCE: Duration = Duration::from_secs(10);

/// The server on the web host.
pub(super) struct FarSide {
    listener: TcpListener,
    /// Who is pinged, and by what.
    pinged: Option<(SocketAddr, Socket)>,
    connections: Vec<TcpStream>,
}

impl FarSide {
    /// Listens on `node`, ready to ping this address.
    pub(super) fn listen(node: &Node, pinged: Option<Ipv6Addr>) -> Result<FarSide> {
        let node = node.clone();
        let open = move || -> Result<FarSide> {
            node.enter_network()?;
            // an earlier one's lives on in a process that is just being started, until that is
            let listener =
                until("the port of the far side", PATIENCE, || {
                    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, LASTING_PORT)) {
                        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
                        bound => Ok(Some(bound?)),
                    }
                })?;
            listener.set_nonblocking(true)?;
            let ping = |address| -> Result<(SocketAddr, Socket)> {
                let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
                socket.set_nonblocking(true)?;
                Ok((SocketAddr::new(IpAddr::V6(address), 0), socket))
            };
            let pinged = pinged.map(ping).transpose()?;
            Ok(FarSide { listener, pinged, connections: Vec::new() })
        };
        // a thread of its own: it stays where it went
        let opened = thread::spawn(open).join();
        opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("far side")
    }

    /// Sends on each connection and pings, every 10 ms.
    pub(super) fn serve(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            while let Ok((connection, _)) = self.listener.accept() {
                connection.set_nonblocking(true)?;
                connection.set_nodelay(true)?;
                self.connections.push(connection);
            }
            self.connections.retain_mut(keep_busy);
            if let Some((address, socket)) = &self.pinged {
                // unreachable now and then, as is to be expected
                let _ = socket.send_to(&ECHO_REQUEST, &(*address).into());
            }
            thread::sleep(TICK);
        }
        Ok(())
    }
}

/// Whether the connection is of use any longer.
fn keep_busy(connection: &mut TcpStream) -> bool {
    let mut received = [0; 64];
    let is_open = match connection.read(&mut received) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    is_open
        && connection
            .write_all(b"y")
            .map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |()| true)
}

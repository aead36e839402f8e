//! A UDP socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::Socket;
use tokio::io::Interest;

use super::Received;

/// The most datagrams that the kernel takes at once (`UDP_MAX_SEGMENTS` of older kernels).
pub(super) const SEGMENTS_MAX: usize = 64;
/// The most bytes of a datagram, or of several at once: 65,535 less the headers of UDP and IPv4.
pub(super) const BYTES_MAX: usize = 65_507;
/// What wireguard-go has, too: some 100 messages of 64 KiB, so that a receiver that waits for its
/// turn loses none. Nothing is allocated for it in advance.
const RECEIVE_BUFFER: usize = 7 * 1024 * 1024;
/// What waits here can no longer be dropped, and delays all that comes behind it on a slow path
/// (A21); at 10 Gb/s it is half a millisecond, long enough for the sender to be woken up.
const SEND_BUFFER: usize = 512 * 1024;

/// A UDP socket without a fixed peer. It never fragments (DF is set, whatever the kernel believes
/// about the path), so that the path's MTU can be searched.
#[derive(Debug)]
pub struct UdpSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// How many datagrams are sent at once: one only, if a driver has refused more.
    at_once: AtomicUsize,
}

impl UdpSocket {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        enlarge_buffers(&socket);
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let at_once = AtomicUsize::new(state.max_gso_segments().min(SEGMENTS_MAX));
        Ok(Self { io, state, at_once })
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Waits until [`UdpSocket::try_receive`] may have something to give; may return although there
    /// is nothing. Dropping the future loses nothing.
    pub async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Waits until the socket may take more; may return although it does not.
    pub async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Receives what is there, up to the size of `received`, whose earlier contents are gone.
    /// ICMP errors, which anybody can send, are left out.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; only then does [`UdpSocket::readable`] wait again.
    pub fn try_receive(&self, received: &mut Received) -> io::Result<()> {
        loop {
            let result = self.io.try_io(Interest::READABLE, || {
                received.fill(|buffers, meta| {
                    self.state.recv(UdpSockRef::from(&self.io), buffers, meta)
                })
            });
            match result {
                Err(error) if is_from_icmp(&error) => {}
                result => return result,
            }
        }
    }

    /// Sends `bytes`: datagrams of `datagram_len` bytes each, the last of which may be shorter.
    /// `from`: the own address to send from, for an answer; the system chooses otherwise.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full and nothing has been sent. Should it become full
    /// half-way, the rest is lost, as datagrams are ([`OutBatch::send`](super::OutBatch::send)
    /// keeps it). [`is_too_long`] when the interface does not take datagrams of that length. Any
    /// other error means that there is no way to that address at the moment.
    pub fn try_send(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        datagram_len: usize,
        bytes: &[u8],
    ) -> io::Result<()> {
        match self.send_some(to, from, datagram_len, bytes) {
            (1.., Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            (_, result) => result,
        }
    }

    /// How many bytes were sent, and what kept the others from being sent.
    pub(super) fn send_some(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        datagram_len: usize,
        bytes: &[u8],
    ) -> (usize, io::Result<()>) {
        let datagram_len = datagram_len.max(1);
        let most = (BYTES_MAX / datagram_len).max(1);
        let (mut sent, mut was_refused) = (0, false);
        while sent < bytes.len() {
            let at_once =
                if was_refused { 1 } else { self.at_once.load(Ordering::Relaxed).min(most) };
            let rest = &bytes[sent..];
            let part = &rest[..rest.len().min(at_once * datagram_len)];
            match self.send_at_once(to, from, datagram_len, part) {
                Ok(()) => {
                    // not because of their length, then
                    if std::mem::take(&mut was_refused) {
                        tracing::debug!(%to, "datagrams have to be sent one by one");
                        self.at_once.store(1, Ordering::Relaxed);
                    }
                    sent += part.len();
                }
                Err(error) if part.len() > datagram_len && is_refusal(&error) => was_refused = true,
                Err(error) => return (sent, Err(error)),
            }
        }
        (sent, Ok(()))
    }

    fn send_at_once(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        datagram_len: usize,
        bytes: &[u8],
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > datagram_len).then_some(datagram_len),
            src_ip: from,
        };
        let send = || self.state.try_send(UdpSockRef::from(&self.io), &transmit);
        // Tokio learns only later that a new socket takes datagrams; it has to learn at once that one
        // takes no more.
        match send() {
            Err(error) if is_from_icmp(&error) => send(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.io.try_io(Interest::WRITABLE, send)
            }
            result => result,
        }
    }
}

/// Whether a datagram was too long for the interface that it was to leave by (`EMSGSIZE`).
pub fn is_too_long(error: &io::Error) -> bool {
    quinn_udp::is_msg_size_err(error)
}

/// What the kernel says to several datagrams at once that a device cannot take (`EIO`), and older
/// ones also to those that are too long for it (`EINVAL`).
fn is_refusal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::IO))
}

/// An error that somebody's ICMP message has left at the socket; nothing is wrong with this call.
fn is_from_icmp(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// Beyond the limits of the system where the process may; as far as they go otherwise.
fn enlarge_buffers(socket: &Socket) {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, SEND_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
}

#[cfg(test)]
impl UdpSocket {
    /// How many datagrams are sent at once.
    pub(super) fn at_once(&self) -> &AtomicUsize {
        &self.at_once
    }
}

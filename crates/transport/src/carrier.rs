//! What carries a TLS stream, and afterwards the records of a tunnel, from end to end.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    kcp::KcpStream,
    socket::{self, PathLength},
};

/// An ordered, reliable stream of bytes: TCP, or KCP over UDP where that does not get through. Clones
/// are the same connection, which ends when the last one is gone.
#[derive(Debug, Clone)]
pub enum Carrier {
    /// TCP, set up by a [`crate::socket::SocketFactory`].
    Tcp(Arc<TcpStream>),
    /// KCP, from [`crate::kcp`].
    Kcp(Arc<KcpStream>),
}

impl From<TcpStream> for Carrier {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(Arc::new(tcp))
    }
}

impl From<KcpStream> for Carrier {
    fn from(kcp: KcpStream) -> Self {
        Self::Kcp(Arc::new(kcp))
    }
}

impl Carrier {
    /// Whether it is KCP over UDP.
    pub fn is_kcp(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Kcp(_) => true,
        }
    }

    /// Where the other end is now, if it may have moved since the beginning.
    pub fn moving_peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_) => None,
            Self::Kcp(kcp) => Some(kcp.peer()),
        }
    }

    /// Waits until there is something to read, an end or an error among it. May be dropped at any time.
    ///
    /// # Errors
    /// The connection has failed.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
            Self::Kcp(kcp) => {
                kcp.readable().await;
                Ok(())
            }
        }
    }

    /// Waits until there is room to write, or an error. May be dropped at any time.
    ///
    /// # Errors
    /// The connection has failed.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.writable().await,
            Self::Kcp(kcp) => {
                kcp.writable().await;
                Ok(())
            }
        }
    }

    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is nothing; others if the connection has failed.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(bytes),
            Self::Kcp(kcp) => kcp.try_read(bytes),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none; others if the connection has failed.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Kcp(kcp) => kcp.try_write(bytes),
        }
    }

    /// As [`Carrier::try_read`], waiting. One task at a time.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn poll_read(&self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Tcp(tcp) => ready!(tcp.poll_read_ready(cx))?,
                Self::Kcp(kcp) => ready!(kcp.poll_readable(cx)),
            }
            match self.try_read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// As [`Carrier::try_write`], waiting. One task at a time.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Tcp(tcp) => ready!(tcp.poll_write_ready(cx))?,
                Self::Kcp(kcp) => ready!(kcp.poll_writable(cx)),
            }
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Ends the direction outwards once what was written has left, or everything at once.
    ///
    /// # Errors
    /// The connection is over already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => SockRef::from(&**tcp).shutdown(how),
            Self::Kcp(kcp) => {
                kcp.shutdown(how);
                Ok(())
            }
        }
    }

    /// Closing it tells the other end that something was not read, as far as the transport can.
    pub(crate) fn reset_when_closed(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.set_zero_linger(),
            Self::Kcp(_) => Ok(()),
        }
    }

    /// So many unsent bytes, and [`Carrier::writable`] waits.
    pub(crate) fn set_unsent_max(&self, bytes: usize) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => {
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                SockRef::from(&**tcp).set_tcp_notsent_lowat(bytes)
            }
            Self::Kcp(kcp) => {
                kcp.set_unsent_max(bytes);
                Ok(())
            }
        }
    }

    /// The other end has logged in, and a tunnel begins: it gets all the room that it may need.
    pub(crate) fn admit(&self) {
        match self {
            Self::Tcp(_) => {}
            Self::Kcp(kcp) => kcp.admit(),
        }
    }

    /// Chooses what suits a path with this round trip (A21).
    pub(crate) fn suit_path(&self, round_trip: Duration) -> PathLength {
        match self {
            Self::Tcp(tcp) => socket::suit_path(&SockRef::from(&**tcp), round_trip),
            // learns it by itself
            Self::Kcp(_) => PathLength::Short,
        }
    }
}

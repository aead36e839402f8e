//! The one factory of sockets that face the outside (A11, A21).
//!
//! A client's sockets carry a mark, so that its own packets do not loop through its tunnel. All
//! get the settings that keep TCP in TCP bearable: BBR on long paths where the kernel has it, no
//! delay, and little unsent data in the kernel, where nothing can be dropped any more.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::udp::UdpSocket;

/// Unsent bytes in the kernel above which a socket counts as full, to begin with; later on the
/// sender sets it by the path's rate.
const NOTSENT_LOWAT: u32 = 16 * 1024;
/// From this round trip on, BBR: on a shorter path losses cost little, while BBR's timers cost a
/// third of the throughput (docs/benchmarks.md).
const LONG_PATH: Duration = Duration::from_millis(5);
/// Sent data that nobody acknowledges for so long ends a connection (RFC 5482). Longer than the
/// tunnel's own 30 s of silence, which decide. Nothing else shortens a recovery here: what the
/// kernel's growing pauses between retransmissions cost (`TCP_RTO_MAX_MS`, Linux 6.15), a second
/// connection saves, and one that is not accepted is given up after 3 s, whatever `TCP_SYNCNT`.
const USER_TIMEOUT: Duration = Duration::from_secs(40);
/// Connections that wait to be accepted, as far as `net.core.somaxconn` allows.
const BACKLOG: u32 = 4_096;

/// What the sockets of a process have in common.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketFactory {
    /// The mark that keeps a client's own packets outside the tunnel.
    pub mark: Option<u32>,
}

/// Why a listening socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port is taken.
    #[error(
        "{address} is in use by another program; stop it, or give another port in `listen` \
         (find it with: ss -ltnp 'sport = :{port}')", port = address.port()
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The UDP port is taken.
    #[error(
        "UDP {address} is in use by another program; stop it, or choose another port \
         (find it with: ss -lunp 'sport = :{port}')", port = address.port()
    )]
    UdpInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The port needs privileges.
    #[error("no permission to listen on {address}; run as root, or choose a port above 1023")]
    NotPermitted {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}; is it an address of this machine?")]
    Other {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl SocketFactory {
    /// Connects to a gateway. The caller sets a time limit.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.tcp(address)?;
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }

    /// The same, with segments of at most `mss` bytes in both directions, which get through where
    /// longer packets vanish on the way. For `doctor`.
    pub async fn connect_short(&self, address: SocketAddr, mss: u32) -> io::Result<TcpStream> {
        let socket = self.tcp(address)?;
        socket.set_tcp_mss(mss)?;
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }

    fn tcp(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        tune(&SockRef::from(&socket))?;
        Ok(socket)
    }

    /// Listens for clients. An IPv6 wildcard address takes IPv4 too.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener, ListenError> {
        let listen = || -> io::Result<TcpListener> {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            tune(&SockRef::from(&socket))?;
            socket.bind(&address.into())?;
            TcpSocket::from_std_stream(socket.into()).listen(BACKLOG)
        };
        listen().map_err(|source| listen_error(source, address, ListenError::InUse { address }))
    }

    /// Receives datagrams of clients. An IPv6 wildcard address takes IPv4 too.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn udp_listen(&self, address: SocketAddr) -> Result<UdpSocket, ListenError> {
        self.udp(address)
            .map_err(|source| listen_error(source, address, ListenError::UdpInUse { address }))
    }

    /// A socket for datagrams to and from this peer, and to other addresses that it may have: it is
    /// bound to a free port of any own address.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn udp_for(&self, peer: SocketAddr) -> io::Result<UdpSocket> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.udp(SocketAddr::new(any, 0))
    }

    /// A plain socket for datagrams to and from this peer only.
    pub(crate) fn udp_to(&self, peer: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        self.plain(peer, Type::DGRAM, Protocol::UDP)
    }

    /// A raw socket for ICMP messages to and from this peer only.
    pub(crate) fn icmp_to(&self, peer: IpAddr) -> io::Result<tokio::net::UdpSocket> {
        let protocol = if peer.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        self.plain(SocketAddr::new(peer, 0), Type::RAW, protocol)
    }

    fn plain(
        &self,
        peer: SocketAddr,
        kind: Type,
        protocol: Protocol,
    ) -> io::Result<tokio::net::UdpSocket> {
        let socket = Socket::new(Domain::for_address(peer), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        socket.connect(&peer.into())?;
        tokio::net::UdpSocket::from_std(socket.into())
    }

    fn udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        UdpSocket::new(socket)
    }
}

fn listen_error(source: io::Error, address: SocketAddr, in_use: ListenError) -> ListenError {
    if source.kind() == io::ErrorKind::AddrInUse {
        in_use
    } else if source.kind() == io::ErrorKind::PermissionDenied {
        ListenError::NotPermitted { address }
    } else {
        ListenError::Other { address, source }
    }
}

/// Settings of a connection; an accepted one has them from its listener.
fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// What a path is to congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathLength {
    /// A local network.
    Short,
    /// Anything else.
    Long,
}

/// Chooses the congestion control of a connection whose round trip has been learned (A21).
pub(crate) fn suit_path(socket: &SockRef<'_>, round_trip: Duration) -> PathLength {
    let (length, name) = if round_trip < LONG_PATH {
        (PathLength::Short, "cubic")
    } else {
        (PathLength::Long, "bbr")
    };
    // not every kernel has both: its default then
    if let Err(error) = socket.set_tcp_congestion(name.as_bytes()) {
        tracing::debug!(%error, "no congestion control {name}");
    }
    length
}

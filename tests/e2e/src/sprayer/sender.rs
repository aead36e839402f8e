//! The sockets of the spray. Nothing that goes wrong here is an error: a host without a network
//! refuses to send, too.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cipherwall_packet::checksum::Sum;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Binding, Kind, Means, SOURCE_PORT, STRANGE_PROTOCOL, Source};

/// How old a socket for datagrams may become: it keeps the way and the address that it began with.
const SOCKET_TIME: Duration = Duration::from_secs(1);
/// How long a connection that stays may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// A DNS question for the A record of `spray.lab.test` (RFC 1035, 4).
const QUESTION: &[u8] = b"\x53\x50\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
                          \x05spray\x03lab\x04test\x00\x00\x01\x00\x01";
/// The payload of everything else.
const PAYLOAD: &[u8] = b"spray";

/// What sends packets of one kind.
pub(super) struct Sender {
    kind: Kind,
    source: Source,
    socket: Option<(Socket, Instant)>,
    stream: Option<TcpStream>,
    sequence: u16,
}

impl Sender {
    pub(super) fn new(kind: Kind, source: &Source) -> Sender {
        Sender { kind, source: source.clone(), socket: None, stream: None, sequence: 0 }
    }

    /// Sends one, or tries to.
    pub(super) fn send(&mut self) {
        // what cannot be sent is what a leak test is about
        let _ = match self.kind.means {
            Means::Connect => self.connect(),
            Means::Lasting => self.go_on(),
            Means::Datagram | Means::Question | Means::Echo | Means::Bare => self.send_datagram(),
            Means::Answer => Ok(()),
        };
    }

    /// The first packet of a new connection leaves at once; nobody waits for an answer.
    fn connect(&self) -> io::Result<()> {
        let socket = self.open(Type::STREAM, Protocol::TCP)?;
        socket.connect(&self.target())
    }

    fn go_on(&mut self) -> io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let target = SocketAddr::new(self.kind.destination, self.kind.port);
                let stream = TcpStream::connect_timeout(&target, CONNECT_TIME)?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        let mut answer = [0; 64];
        let outcome = match stream.read(&mut answer) {
            Ok(0) => Err(ErrorKind::ConnectionReset.into()),
            Ok(_) => stream.write_all(b"x"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stream.write_all(b"x"),
            Err(error) => Err(error),
        };
        if outcome.as_ref().is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            self.stream = None;
        }
        outcome
    }

    fn send_datagram(&mut self) -> io::Result<()> {
        let packet = self.packet();
        let target = self.target();
        let (socket, _) = match self.socket.take_if(|(_, since)| since.elapsed() < SOCKET_TIME) {
            Some(young) => self.socket.insert(young),
            None => {
                self.socket = None;
                let socket = self.open_for_datagrams()?;
                self.socket.insert((socket, Instant::now()))
            }
        };
        let sent = match self.kind.means {
            // connected: it keeps its address when the way changes
            Means::Datagram => socket.send(&packet),
            Means::Question | Means::Echo | Means::Bare => socket.send_to(&packet, &target),
            Means::Connect | Means::Lasting | Means::Answer => Ok(0),
        };
        sent.map(drop)
    }

    fn open_for_datagrams(&self) -> io::Result<Socket> {
        let is_ipv6 = self.kind.is_ipv6();
        let (of, protocol) = match self.kind.means {
            Means::Echo if is_ipv6 => (Type::RAW, Protocol::ICMPV6),
            Means::Echo => (Type::RAW, Protocol::ICMPV4),
            Means::Bare => (Type::RAW, Protocol::from(i32::from(STRANGE_PROTOCOL))),
            Means::Datagram | Means::Question | Means::Connect | Means::Lasting | Means::Answer => {
                (Type::DGRAM, Protocol::UDP)
            }
        };
        let socket = self.open(of, protocol)?;
        if self.kind.means == Means::Datagram {
            socket.connect(&self.target())?;
        }
        Ok(socket)
    }

    fn open(&self, of: Type, protocol: Protocol) -> io::Result<Socket> {
        let domain = if self.kind.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, of, Some(protocol))?;
        socket.set_nonblocking(true)?;
        match self.kind.binding {
            Binding::Nothing => {}
            Binding::Device => socket.bind_device(Some(self.source.device.as_bytes()))?,
            Binding::Address => socket.bind(&SocketAddr::new(self.own_address()?, 0).into())?,
            Binding::Port => {
                let any = IpAddr::from([0, 0, 0, 0]);
                socket.bind(&SocketAddr::new(any, SOURCE_PORT).into())?;
            }
        }
        Ok(socket)
    }

    fn own_address(&self) -> io::Result<IpAddr> {
        if !self.kind.is_ipv6() {
            return Ok(self.source.address.into());
        }
        self.source.address_v6.map(IpAddr::from).ok_or(ErrorKind::AddrNotAvailable.into())
    }

    fn target(&self) -> SockAddr {
        // raw sockets over IPv6 know no ports
        let has_ports = !matches!(self.kind.means, Means::Echo | Means::Bare);
        let port = if has_ports { self.kind.port } else { 0 };
        SocketAddr::new(self.kind.destination, port).into()
    }

    fn packet(&mut self) -> Vec<u8> {
        match self.kind.means {
            Means::Question => QUESTION.to_vec(),
            Means::Echo => {
                self.sequence = self.sequence.wrapping_add(1);
                self.echo_request()
            }
            Means::Datagram | Means::Bare | Means::Connect | Means::Lasting | Means::Answer => {
                PAYLOAD.to_vec()
            }
        }
    }

    /// RFC 792, RFC 4443. Over IPv6 the kernel fills in the checksum.
    fn echo_request(&self) -> Vec<u8> {
        let [high, low] = self.sequence.to_be_bytes();
        let of = if self.kind.is_ipv6() { 128 } else { 8 };
        let mut packet = [&[of, 0, 0, 0, b'S', b'P', high, low], PAYLOAD].concat();
        let sum = Sum::ZERO.bytes(&packet).finish();
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

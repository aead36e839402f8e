//! A host between a local network, the internet and a tunnel, and what programs on it may try: each
//! attempt is answered, or not even seen on the wires.

use std::{
    collections::HashMap,
    io::Read,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    client::UPLINK,
    sandbox::{in_namespace, sh, works},
};
use crate::MARK_DEFAULT;

/// The internet, with a gateway and a resolver, and the router of the local network are one
/// namespace, the inner side of the tunnel another; veth pairs stand for cables and the TUN device.
const LAB: &str = "
    ip -6 addr add fd50::2/64 dev up0 nodad; ip -6 addr add fe80::2/64 dev up0 nodad
    ip -6 route add default via fd50::1 dev up0
    ip netns add world; ip link set w0 netns world
    ip -n world link set lo up; ip -n world link set w0 up
    ip -n world addr add 192.168.50.1/24 dev w0; ip -n world -6 addr add fd50::1/64 dev w0 nodad
    ip -n world -6 addr add fe80::1/64 dev w0 nodad
    for public in 198.51.100.9/32 198.51.100.53/32 203.0.113.7/32 192.0.2.5/32 \
                  2001:db8:7::7/128 2001:db8:9::9/128; do
        ip -n world addr add $public dev lo
    done
    ip -n world route add default via 192.168.50.2; ip -n world -6 route add default via fd50::2
    ip netns add exit; ip link add cw0 type veth peer name t0 netns exit
    ip link set cw0 addrgenmode none; ip link set cw0 up; ip addr add 10.66.0.2/24 dev cw0
    ip -n exit link set lo up; ip -n exit link set t0 up; ip -n exit addr add 10.66.0.1/24 dev t0
    ip -n exit route add default via 10.66.0.2";

/// Long enough for an answer here; a refusal is told at once.
const PATIENCE: Duration = Duration::from_millis(300);

/// The far side: it answers wherever something is tried, and captures what arrives.
pub(super) struct Far {
    udp: HashMap<SocketAddr, UdpSocket>,
    _tcp: Vec<TcpListener>,
    wires: Vec<Socket>,
}

impl Far {
    /// Sets all up for these attempts, written as for [`Far::open`].
    pub(super) fn set_up(attempts: &[&str]) -> Far {
        sh(UPLINK);
        sh(LAB);
        let (mut udp, mut tcp) = (HashMap::new(), Vec::new());
        for attempt in attempts.iter().map(|text| Attempt::parse(text)) {
            let Some(port) = attempt.port else { continue };
            let to = SocketAddr::new(attempt.to, port);
            let namespace = if attempt.to == INNER { "exit" } else { "world" };
            // what is bound already serves the next attempt too
            match attempt.how {
                "tcp" => tcp.extend(in_namespace(namespace, || TcpListener::bind(to)).ok()),
                "udp" => {
                    udp.extend(
                        in_namespace(namespace, || UdpSocket::bind(to)).ok().map(|s| (to, s)),
                    );
                }
                _ => {}
            }
        }
        Far { udp, _tcp: tcp, wires: ["world", "exit"].map(capture).into() }
    }

    /// Makes all attempts and returns those that were let through. `tcp`, `udp`, `ping`, or `send`,
    /// a datagram that nobody answers; with a star from a socket with the client's mark; to an
    /// address and port; `from PORT` chooses the own port.
    pub(super) fn open<'a>(&self, attempts: &[&'a str]) -> Vec<&'a str> {
        let goes = |attempt: &&&str| self.goes(&Attempt::parse(attempt));
        attempts.iter().filter(goes).copied().collect()
    }

    fn goes(&self, attempt: &Attempt<'_>) -> bool {
        self.arrives(attempt.to);
        let answered = match attempt.how {
            "ping" => works(&format!("ping -c 1 -W 1 {}", attempt.to)),
            "tcp" => {
                attempt.socket(Type::STREAM).connect_timeout(&attempt.place(), PATIENCE).is_ok()
            }
            "udp" => self.udp_is_answered(attempt),
            "send" => attempt.socket(Type::DGRAM).send_to(b"?", &attempt.place()).is_ok(),
            other => panic!("{other}"),
        };
        let arrived = self.arrives(attempt.to);
        if attempt.how != "send" {
            assert_eq!(answered, arrived, "{attempt:?}: (left) an answer, (right) it arrived");
        }
        arrived
    }

    fn udp_is_answered(&self, attempt: &Attempt<'_>) -> bool {
        let program: UdpSocket = attempt.socket(Type::DGRAM).into();
        let mut buffer = [0; 9];
        let place = attempt.place().as_socket().unwrap();
        if program.connect(place).and_then(|()| program.send(b"?")).is_err() {
            return false;
        }
        let server = &self.udp[&place];
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let Ok((_, from)) = server.recv_from(&mut buffer) else { return false };
        server.send_to(b"!", from).unwrap();
        program.set_read_timeout(Some(PATIENCE)).unwrap();
        program.recv(&mut buffer).is_ok()
    }

    /// Whether packets to this address were captured since the last call.
    pub(super) fn arrives(&self, to: IpAddr) -> bool {
        let mut frame = [0; 2048];
        let mut seen = false;
        for mut wire in &self.wires {
            while let Ok(length) = wire.read(&mut frame) {
                seen |= destination(&frame[..length]) == Some(to);
            }
        }
        seen
    }
}

/// The inner side of the tunnel.
const INNER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 66, 0, 1));

#[derive(Debug)]
struct Attempt<'a> {
    how: &'a str,
    marked: bool,
    to: IpAddr,
    port: Option<u16>,
    from: Option<u16>,
}

impl Attempt<'_> {
    fn parse(text: &str) -> Attempt<'_> {
        let words: Vec<&str> = text.split(' ').collect();
        let place = words[1].parse::<SocketAddr>().ok();
        Attempt {
            how: words[0].trim_end_matches('*'),
            marked: words[0].ends_with('*'),
            to: place.map_or_else(|| words[1].parse().unwrap(), |place| place.ip()),
            port: place.map(|place| place.port()),
            from: words.get(3).map(|port| port.parse().unwrap()),
        }
    }

    /// A program that does not care for routes: to the internet there is no other way here.
    fn socket(&self, kind: Type) -> Socket {
        let domain = if self.to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, kind, None).unwrap();
        if self.marked {
            socket.set_mark(MARK_DEFAULT).unwrap();
        }
        if self.to != INNER {
            socket.bind_device(Some(b"up0")).unwrap();
        }
        if self.to.is_ipv4() && kind == Type::DGRAM {
            socket.set_broadcast(true).unwrap();
        }
        if let Some(port) = self.from {
            let any = if self.to.is_ipv4() { "0.0.0.0" } else { "::" };
            socket.bind(&SocketAddr::new(any.parse().unwrap(), port).into()).unwrap();
        }
        socket
    }

    fn place(&self) -> socket2::SockAddr {
        SocketAddr::new(self.to, self.port.unwrap()).into()
    }
}

/// Everything that arrives in a namespace or leaves it.
fn capture(namespace: &str) -> Socket {
    const ALL: u16 = 3;
    let wire = in_namespace(namespace, || {
        let all = Protocol::from(i32::from(ALL.to_be()));
        Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap()
    });
    wire.set_nonblocking(true).unwrap();
    wire
}

fn destination(frame: &[u8]) -> Option<IpAddr> {
    const IPV4: &[u8] = &[0x08, 0x00];
    const IPV6: &[u8] = &[0x86, 0xdd];
    match frame.get(12..14)? {
        IPV4 => Some(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?.into()),
        IPV6 => Some(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?.into()),
        _ => None,
    }
}

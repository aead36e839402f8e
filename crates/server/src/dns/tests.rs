//! The forwarder on loopback addresses, between real sockets.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use super::*;

const NAME: &[u8] = b"\x03www\x07example\x00";

#[path = "../../../../fuzz/bodies/dns_message.rs"]
mod body;

#[test]
fn the_corpus_of_the_fuzz_target() {
    crate::replay::replay("dns_message", body::run);
}

#[tokio::test]
async fn a_question_passes_with_another_id_and_port_each_time() {
    let upstream = Upstream::start(Behaviour::Answer);
    let forwarder = Lab::start(&[upstream.address]);
    let client = forwarder.udp().await;
    let sent = question(0x1234, b"padding and options");
    for _ in 0..4 {
        assert_eq!(client.ask(&sent).await, answer_to(&sent));
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|(_, message)| message[2..] == sent[2..]));
    // Four equal ones of 65,536 IDs, or of some 28,000 ports, come once in 10^13.
    assert!(seen.iter().any(|(_, message)| message[..2] != seen[0].1[..2]), "IDs");
    assert!(seen.iter().any(|(_, message)| message[..2] != sent[..2]), "the client's ID");
    assert!(seen.iter().any(|(from, _)| from.port() != seen[0].0.port()), "ports");
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let upstream = Upstream::start(Behaviour::ForgeThenAnswer);
    let forwarder = Lab::start(&[upstream.address]);
    let sent = question(1, b"");
    assert_eq!(forwarder.udp().await.ask(&sent).await, answer_to(&sent));
}

#[tokio::test]
async fn a_silent_upstream_is_left_after_two_seconds() {
    let (silent, good) = (Upstream::start(Behaviour::Silence), Upstream::start(Behaviour::Answer));
    let forwarder = Lab::start(&[silent.address, good.address]);
    let sent = question(1, b"");
    let start = Instant::now();
    let (by_udp, by_tcp) = tokio::join!(async { forwarder.udp().await.ask(&sent).await }, async {
        forwarder.tcp().await.ask(&sent).await
    },);
    assert_eq!((by_udp, by_tcp), (answer_to(&sent), answer_to(&sent)));
    assert!((2..4).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_absent_upstream_is_left_at_once_and_the_last_is_a_server_failure() {
    let (absent, good) = (free_address(), Upstream::start(Behaviour::Answer));
    let sent = question(0x4321, b"");
    let start = Instant::now();
    let forwarder = Lab::start(&[absent, good.address]);
    assert_eq!(forwarder.udp().await.ask(&sent).await, answer_to(&sent));
    assert_eq!(forwarder.tcp().await.ask(&sent).await, answer_to(&sent));
    let forwarder = Lab::start(&[absent]);
    for answer in [forwarder.udp().await.ask(&sent).await, forwarder.tcp().await.ask(&sent).await] {
        assert_eq!(answer[..4], [0x43, 0x21, 0x81, 0x82], "SERVFAIL with the client's ID");
        assert_eq!(answer[12..], sent[12..]);
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_cut_answer_is_passed_on_and_the_whole_comes_by_tcp() {
    let upstream = Upstream::start(Behaviour::CutOverUdp);
    let forwarder = Lab::start(&[upstream.address]);
    let sent = question(5, b"");
    let cut = forwarder.udp().await.ask(&sent).await;
    assert_eq!((cut[2] & 0x02, cut.len()), (0x02, sent.len()));
    let mut connection = forwarder.tcp().await;
    for id in [6, 7, 8] {
        let sent = question(id, b"");
        assert_eq!(connection.ask(&sent).await, answer_to(&sent), "on the same connection");
    }
}

#[tokio::test]
async fn rubbish_is_refused_and_does_no_harm() {
    let upstream = Upstream::start(Behaviour::Answer);
    let forwarder = Lab::start(&[upstream.address]);
    let client = forwarder.udp().await;
    for rubbish in [&b""[..], b"short", &answer_to(&question(1, b""))] {
        client.socket.send(rubbish).await.unwrap();
    }
    let mut two_questions = question(2, b"");
    two_questions[5] = 2;
    assert_eq!(client.ask(&two_questions).await[..4], [0, 2, 0x81, 0x81], "FORMERR");
    let mut update = question(3, b"");
    update[2] = 0x28;
    assert_eq!(client.ask(&update).await[..4], [0, 3, 0xa8, 0x84], "NOTIMP");
    let sent = question(4, b"");
    assert_eq!(client.ask(&sent).await, answer_to(&sent));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let upstream = Upstream::start(Behaviour::Answer);
    let forwarder = Lab::start(&[upstream.address]);
    let sent = question(1, b"");
    let mut open = Vec::new();
    for n in 0..MAX_CONNECTIONS {
        let mut connection = forwarder.tcp_of((n / MAX_CONNECTIONS_EACH) as u8).await;
        connection.ask(&sent).await;
        open.push(connection);
    }
    let mut last = forwarder.tcp_of(99).await;
    let early = timeout(Duration::from_millis(300), last.ask(&sent)).await;
    assert!(early.is_err(), "answered beyond the limit");
    open.pop();
    let answer = timeout(Duration::from_secs(5), read_message(&mut last.stream)).await;
    assert_eq!(answer.unwrap().unwrap(), Some(answer_to(&sent)));
}

#[tokio::test]
async fn one_client_has_so_many_connections_and_others_are_served() {
    let upstream = Upstream::start(Behaviour::Answer);
    let forwarder = Lab::start(&[upstream.address]);
    let sent = question(1, b"");
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS_EACH {
        let mut connection = forwarder.tcp_of(1).await;
        connection.ask(&sent).await;
        open.push(connection);
    }
    let mut more = forwarder.tcp_of(1).await;
    let closed = timeout(Duration::from_secs(5), read_message(&mut more.stream)).await.unwrap();
    assert!(matches!(closed, Ok(None) | Err(_)), "{closed:?}");
    assert_eq!(forwarder.tcp_of(2).await.ask(&sent).await, answer_to(&sent));
}

#[tokio::test]
async fn one_client_cannot_take_all_questions() {
    let upstream = Upstream::start(Behaviour::Silence);
    let forwarder = Lab::start(&[upstream.address]);
    let greedy = forwarder.udp().await;
    for id in 0..2 * MAX_QUESTIONS_EACH as u16 {
        greedy.socket.send(&question(id, b"")).await.unwrap();
        // not faster than the forwarder reads, or the kernel drops some
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(upstream.seen().len(), MAX_QUESTIONS_EACH);
    let other = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, 3), 0)).await.unwrap();
    other.send_to(&question(1, b""), forwarder.address).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(upstream.seen().len(), MAX_QUESTIONS_EACH + 1);
}

#[tokio::test]
async fn dropping_the_forwarder_frees_its_addresses() {
    let upstream = Upstream::start(Behaviour::Answer);
    let Lab { forwarder, address } = Lab::start(&[upstream.address]);
    let taken = Forwarder::start_on(&[address], vec![upstream.address]).unwrap_err();
    assert!(taken.to_string().contains(&address.to_string()), "{taken}");
    assert!(taken.to_string().contains("stop it"), "{taken}");
    drop(forwarder);
    let mut again = Forwarder::start_on(&[address], vec![upstream.address]);
    for _ in 0..50 {
        if again.is_ok() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
        again = Forwarder::start_on(&[address], vec![upstream.address]);
    }
    again.unwrap();
}

#[tokio::test]
async fn the_forwarder_does_not_ask_itself() {
    let address = free_address();
    let error = Forwarder::start_on(&[address], vec![address]).unwrap_err();
    assert!(error.to_string().contains("resolv.conf"), "{error}");
}

#[test]
fn reads_resolv_conf() {
    let text = "# comment\nsearch example.org\n nameserver\t192.0.2.1  # first\n;nameserver 9.9.9.9\n\
                nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver\nnameserver nonsense\n\
                nameservers 1.1.1.1\nnameserver 127.0.0.53\nnameserver 192.0.2.4\n";
    let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.53:53"];
    assert_eq!(host_resolvers(text), expected.map(|a| a.parse::<SocketAddr>().unwrap()));
    assert_eq!(host_resolvers(""), []);
}

/// A forwarder on an address of its own.
struct Lab {
    forwarder: Forwarder,
    address: SocketAddr,
}

struct UdpClient {
    socket: UdpSocket,
}

struct TcpClient {
    stream: TcpStream,
}

impl Lab {
    fn start(upstreams: &[SocketAddr]) -> Lab {
        let address = free_address();
        let forwarder = Forwarder::start_on(&[address], upstreams.to_vec()).unwrap();
        Lab { forwarder, address }
    }

    async fn udp(&self) -> UdpClient {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        UdpClient { socket }
    }

    async fn tcp(&self) -> TcpClient {
        TcpClient { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    /// From a client's address of its own.
    async fn tcp_of(&self, client: u8) -> TcpClient {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 1, client], 0))).unwrap();
        TcpClient { stream: socket.connect(self.address).await.unwrap() }
    }
}

impl UdpClient {
    async fn ask(&self, message: &[u8]) -> Vec<u8> {
        self.socket.send(message).await.unwrap();
        let mut buf = vec![0; MAX_MESSAGE_LEN];
        let len = timeout(IDLE, self.socket.recv(&mut buf)).await.unwrap().unwrap();
        buf.truncate(len);
        buf
    }
}

impl TcpClient {
    async fn ask(&mut self, message: &[u8]) -> Vec<u8> {
        write_message(&mut self.stream, message).await.unwrap();
        timeout(IDLE, read_message(&mut self.stream)).await.unwrap().unwrap().unwrap()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Answer,
    /// Takes questions and connections, and says nothing.
    Silence,
    /// First an answer with another ID, then one to another question, then the true one.
    ForgeThenAnswer,
    /// Over UDP only the question and the mark that more is to be had by TCP.
    CutOverUdp,
}

/// Where the questions over UDP came from, and what they were.
type Seen = Vec<(SocketAddr, Vec<u8>)>;

/// A resolver that answers every question with the same record.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    fn start(behaviour: Behaviour) -> Upstream {
        let address = free_address();
        let (udp, tcp) = bind(address).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_by_udp(udp, behaviour, Arc::clone(&seen)));
        tasks.spawn(answer_by_tcp(tcp, behaviour));
        Upstream { address, seen, _tasks: tasks }
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer_by_udp(socket: UdpSocket, behaviour: Behaviour, seen: Arc<Mutex<Seen>>) {
    let mut buf = vec![0; MAX_MESSAGE_LEN];
    loop {
        let (len, client) = socket.recv_from(&mut buf).await.unwrap();
        let message = &buf[..len];
        seen.lock().unwrap().push((client, message.to_vec()));
        let truth = answer_to(message);
        let answers = match behaviour {
            Behaviour::Silence => vec![],
            Behaviour::Answer => vec![truth],
            Behaviour::CutOverUdp => {
                let mut cut = message.to_vec();
                cut[2] |= 0x82;
                vec![cut]
            }
            Behaviour::ForgeThenAnswer => {
                let (mut other_id, mut other_name) = (truth.clone(), truth.clone());
                other_id[1] ^= 1;
                other_name[13] = b'x';
                for forged in [&mut other_id, &mut other_name] {
                    *forged.last_mut().unwrap() = 66;
                }
                vec![other_id, other_name, b"x".to_vec(), truth]
            }
        };
        for answer in answers {
            socket.send_to(&answer, client).await.unwrap();
        }
    }
}

async fn answer_by_tcp(listener: TcpListener, behaviour: Behaviour) {
    let mut open = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if behaviour != Behaviour::Silence {
            let message = read_message(&mut stream).await.unwrap().unwrap();
            write_message(&mut stream, &answer_to(&message)).await.unwrap();
        }
        open.push(stream);
    }
}

fn question(id: u16, rest: &[u8]) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(NAME);
    message.extend([0, 1, 0, 1]);
    message.extend(rest);
    message
}

/// The question, and an address record.
fn answer_to(message: &[u8]) -> Vec<u8> {
    let mut answer = message[..HEADER_AND_QUESTION].to_vec();
    answer[2] |= 0x80;
    answer[7] = 1;
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80]);
    answer
}

const HEADER_AND_QUESTION: usize = 12 + NAME.len() + 4;

/// An address that no other test of this or another run has.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(64);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, next, high, low.clamp(1, 254)], 5_353))
}

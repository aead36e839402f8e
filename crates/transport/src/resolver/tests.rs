//! Against servers on the loopback interface.

use std::{collections::VecDeque, net::Ipv4Addr};

use hickory_proto::{
    op::{Message, MessageType},
    rr::{RData, Record},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::*;

const V4: [u8; 4] = [192, 0, 2, 7];
const V6: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7];

/// The answer with the addresses that the tests expect.
fn right(question: &Message) -> Message {
    let query = &question.queries[0];
    let data = match query.query_type() == RecordType::AAAA {
        true => RData::AAAA(std::net::Ipv6Addr::from(V6).into()),
        false => RData::A(Ipv4Addr::from(V4).into()),
    };
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    answer
}

fn failing(question: &Message, code: ResponseCode) -> Message {
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.response_code = code;
    answer
}

/// A server that answers each datagram by these messages.
async fn server(mut answers: impl FnMut(&Message) -> Vec<Message> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
            for answer in answers(&Message::from_vec(&datagram[..len]).unwrap()) {
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    address
}

fn resolver(servers: &[SocketAddr]) -> Resolver {
    let hosts_path = "/nowhere/hosts".into();
    Resolver { hosts_path, ..Resolver::new(SocketFactory::default(), servers.to_vec()) }
}

async fn found(servers: &[SocketAddr]) -> Vec<IpAddr> {
    resolver(servers).addresses("gw.example").await.unwrap()
}

async fn not_found(servers: &[SocketAddr]) -> ResolveError {
    resolver(servers).addresses("gw.example").await.unwrap_err()
}

fn both() -> [IpAddr; 2] {
    [V6.into(), V4.into()]
}

#[tokio::test]
async fn both_families_are_found_and_addresses_need_no_server() {
    let server = server(|question| vec![right(question)]).await;
    assert_eq!(found(&[server]).await, both());
    let resolver = resolver(&[]);
    let address: IpAddr = V6.into();
    assert_eq!(resolver.addresses(&address.to_string()).await.unwrap(), [address]);
    let error = resolver.addresses("gw.example").await.unwrap_err();
    assert!(matches!(error, ResolveError::NoServers), "{error}");
    for bad in ["", ".", "a..b", &"a".repeat(64)] {
        let error = resolver.addresses(bad).await.unwrap_err();
        assert!(matches!(error, ResolveError::NotAName(_)), "{bad:?}: {error}");
    }
}

#[tokio::test]
async fn a_silent_server_holds_nothing_up() {
    let silent = server(|_| Vec::new()).await;
    let good = server(|question| vec![right(question)]).await;
    let began = Instant::now();
    assert_eq!(found(&[silent, good]).await, both());
    assert!(began.elapsed() < STAGGER * 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn servers_that_know_nothing_do_not_keep_others_from_being_asked() {
    let good = server(|question| vec![right(question)]).await;
    for code in [ResponseCode::NXDomain, ResponseCode::ServFail, ResponseCode::Refused] {
        let bad = server(move |question| vec![failing(question, code)]).await;
        assert_eq!(found(&[bad, good]).await, both(), "{code}");
    }
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(found(&[closed, good]).await, both());
}

#[tokio::test]
async fn a_lost_question_is_asked_again() {
    let mut asked = VecDeque::new();
    let server = server(move |question| {
        let query = question.queries.clone();
        let again = asked.contains(&query);
        asked.push_back(query);
        if again { vec![right(question)] } else { Vec::new() }
    })
    .await;
    assert_eq!(found(&[server]).await, both());
}

#[tokio::test]
async fn one_family_is_enough() {
    let no_v6 = server(|question| match question.queries[0].query_type() == RecordType::A {
        true => vec![right(question)],
        false => Vec::new(),
    })
    .await;
    assert_eq!(found(&[no_v6]).await, [IpAddr::from(V4)]);
}

#[tokio::test]
async fn what_does_not_answer_the_question_is_passed_by() {
    let server = server(|question| {
        let mut other_id = failing(question, ResponseCode::NXDomain);
        other_id.metadata.id ^= 1;
        let mut other_name = failing(question, ResponseCode::NXDomain);
        let query = &mut other_name.queries[0];
        query.set_name(name("other.example").unwrap());
        vec![other_id, other_name, question.clone(), right(question)]
    })
    .await;
    assert_eq!(found(&[server]).await, both());
}

/// The port that is free for one may not be for the other.
async fn both_on_one_port() -> (TcpListener, UdpSocket) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            return (listener, socket);
        }
    }
}

#[tokio::test]
async fn long_answers_come_over_tcp() {
    let (listener, socket) = both_on_one_port().await;
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
            let question = Message::from_vec(&datagram[..len]).unwrap();
            let mut cut = failing(&question, ResponseCode::NoError);
            cut.metadata.truncation = true;
            socket.send_to(&cut.to_vec().unwrap(), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut question).await.unwrap();
            let answer = right(&Message::from_vec(&question).unwrap()).to_vec().unwrap();
            stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    assert_eq!(found(&[address]).await, both());
}

#[test]
fn of_many_addresses_the_first_ones_are_taken() {
    let mut question = Message::query();
    question.add_query(hickory_proto::op::Query::query(name("gw.example").unwrap(), RecordType::A));
    let mut answer = right(&question);
    for last in 0..200 {
        let data = RData::A(Ipv4Addr::new(198, 51, 100, last).into());
        answer.add_answer(Record::from_rdata(name("gw.example").unwrap(), 60, data));
    }
    let found = ask::addresses_in(&answer, RecordType::A).unwrap();
    assert_eq!((found.len(), found[0]), (ask::ADDRESSES_MAX, IpAddr::from(V4)));
}

#[tokio::test]
async fn errors_say_which_server_and_what() {
    let unknown = server(|question| vec![failing(question, ResponseCode::NXDomain)]).await;
    let empty = server(|question| vec![failing(question, ResponseCode::NoError)]).await;
    let failing = server(|question| vec![failing(question, ResponseCode::ServFail)]).await;
    for server in [unknown, empty] {
        let error = not_found(&[server, failing]).await.to_string();
        assert_eq!(error, format!("the DNS server {server} knows no address of that name"));
    }
    let error = not_found(&[failing]).await.to_string();
    assert_eq!(error, format!("the DNS server {failing} answered: Server Failure"));

    let silent = server(|_| Vec::new()).await;
    let began = Instant::now();
    let error = not_found(&[silent, failing]).await.to_string();
    assert!(error.contains(&format!("{silent} did not answer within 5 s")), "{error}");
    assert!(error.contains(&format!("{failing} answered: Server Failure")), "{error}");
    assert!(began.elapsed() < TIME + Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn each_server_has_an_opinion() {
    let good = server(|question| vec![right(question)]).await;
    let bad = server(|question| vec![failing(question, ResponseCode::NXDomain)]).await;
    let opinions = resolver(&[bad, good]).opinions("gw.example").await.unwrap();
    let [first, second] = opinions.as_slice() else { panic!("{opinions:?}") };
    assert_eq!((first.server, second.server), (bad, good));
    assert!(matches!(first.addresses, Err(ServerError::NotFound)), "{first:?}");
    assert_eq!(second.addresses.as_ref().unwrap(), &both());
}

#[tokio::test]
async fn names_of_the_hosts_file_are_not_asked_for() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text =
        "# gw.example\n192.0.2.7 other GW.example # mine\n2001:db8::7\tgw.example\nx gw.example\n";
    std::fs::write(file.path(), text).unwrap();
    let resolver = Resolver { hosts_path: file.path().into(), ..resolver(&[]) };
    for host in ["gw.example", "gw.example."] {
        let mut addresses = resolver.addresses(host).await.unwrap();
        addresses.sort();
        assert_eq!(addresses, [IpAddr::from(V4), IpAddr::from(V6)]);
    }
    assert!(resolver.addresses("mine").await.is_err());
}

use cipherwall_proto::invitation::{Invitation, Transport};
use cipherwall_transport::{resolver::Resolver, socket::SocketFactory};
use tokio::net::UdpSocket;

use super::*;
use crate::profile::Profile;

const GOOD: [u8; 4] = [192, 0, 2, 1];
const WRONG: [u8; 4] = [10, 10, 34, 35];

fn endpoint(host: &str, port: u16, gateway: u8) -> Endpoint {
    Endpoint { host: host.into(), port, transport: Transport::Tls, pins: [[gateway; 32]; 2] }
}

fn dialer(endpoints: Vec<Endpoint>, last_good: &[([u8; 4], u16)]) -> Dialer {
    let invitation = Invitation {
        endpoints,
        user: "alice".into(),
        salt: [3; 16],
        door_key: [4; 32],
        enrol_secret: [5; 16],
        expires: 0,
        sni: vec![],
    };
    let profile = Profile::from_invitation("home".into(), invitation).expect("random bytes");
    let last_good_addresses = last_good.iter().map(|at| (*at).into()).collect();
    Dialer::unmarked(&Profile { last_good_addresses, ..profile })
}

fn answers(all: &[(&str, &[[u8; 4]])]) -> Answers {
    let answer = |(host, ips): &(&str, &[[u8; 4]])| {
        ((*host).to_owned(), Ok(ips.iter().map(|ip| (*ip).into()).collect()))
    };
    all.iter().map(answer).collect()
}

/// Ends of addresses and ports.
fn short(addresses: &[Address]) -> Vec<(String, u16)> {
    addresses.iter().map(|(_, address)| (address.ip().to_string(), address.port())).collect()
}

fn at(ip: [u8; 4], port: u16) -> (String, u16) {
    (IpAddr::from(ip).to_string(), port)
}

#[test]
fn addresses_that_worked_are_tried_beside_an_answer_that_leads_elsewhere() {
    let ports = [8443, 443].map(|port| endpoint("gw.example", port, 1));
    let dialer = dialer(ports.to_vec(), &[(GOOD, 8443)]);
    let found = dialer.found(answers(&[("gw.example", &[WRONG])]));
    let known = dialer.known(found, &[], None).expect("some");
    let expected = [at(WRONG, 8443), at(WRONG, 443), at(GOOD, 8443), at(GOOD, 443)];
    assert_eq!(short(&known), expected, "whatever the port");
}

#[test]
fn what_one_gateway_has_is_not_tried_for_another_one() {
    let two = vec![endpoint("a.example", 8443, 1), endpoint("b.example", 8443, 2)];
    let dialer = dialer(two, &[([192, 0, 2, 2], 8443), (GOOD, 8443)]);
    let both = answers(&[("a.example", &[GOOD]), ("b.example", &[[192, 0, 2, 2]])]);
    let known = dialer.known(dialer.found(both), &[], None).expect("some");
    assert_eq!(short(&known), [at(GOOD, 8443), at([192, 0, 2, 2], 8443)]);
}

#[test]
fn addresses_are_forgotten_once_a_name_has_others() {
    let dialer = dialer(vec![endpoint("gw.example", 8443, 1)], &[(GOOD, 8443)]);
    let mut known = Vec::new();
    for last in 10..200 {
        let found = dialer.found(answers(&[("gw.example", &[[198, 51, 100, last]])]));
        known = dialer.known(found, &known, Some((WRONG, 8443).into())).expect("some");
    }
    assert_eq!(short(&known), [at([198, 51, 100, 199], 8443), at(WRONG, 8443), at(GOOD, 8443)]);
    let nothing = dialer.found(Answers::new());
    let still = dialer.known(nothing, &known, None).expect("some");
    assert_eq!(short(&still), short(&known), "no answer");
}

#[test]
fn it_is_told_why_a_rung_has_no_address() {
    let two = vec![endpoint("a.example", 8443, 1), endpoint("192.0.2.9", 8443, 1)];
    let dialer = dialer(two, &[]);
    let found = dialer.found(Answers::new());
    assert_eq!(short(&dialer.known(found, &[], None).expect("one")), [at([192, 0, 2, 9], 8443)]);
    let why = dialer.rungs().shown()[0].why.clone().expect("a reason");
    assert!(why.contains("no address"), "{why}");
    assert_eq!(dialer.rungs().shown()[1].why, None);
}

#[tokio::test]
async fn silent_servers_are_waited_for_once_and_not_for_each_name() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let server = silent.local_addr().expect("an address");
    let mut all = vec![endpoint("192.0.2.9", 8443, 1)];
    all.extend((0..8).map(|name| endpoint(&format!("n{name}.example"), 8443, 1)));
    let resolver = Some(Resolver::new(SocketFactory::default(), vec![server]));
    let dialer = Dialer { resolver, ..dialer(all, &[]) };
    let since = Instant::now();
    let found = dialer.look_up(Duration::from_millis(300)).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(found.is_cut_short);
    assert_eq!((found.addresses.len(), found.unknown.len()), (1, 8));
    let mut asked = BTreeSet::new();
    let mut question = [0; 512];
    while let Ok(len) = silent.try_recv(&mut question) {
        asked.insert(question[12..len.min(16)].to_vec());
    }
    assert_eq!(asked.len(), 8, "all at once");
}

//! Both ends over a real TCP connection on loopback: TLS, the opening, the switch, packets.

#![allow(clippy::unwrap_used)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use cipherwall_packet::offload::OffloadHeader;
use cipherwall_proto::{
    cipher::CipherId,
    client::{self, Answer, Credential},
    device::DeviceKey,
    frame::{Control, KickReason},
    gateway::{self, Demand},
    keys::DoorKey,
    knock::{Verdict, Watch},
    liveness::Keepalive,
    message::{Text, Welcome},
    record::Batch,
    rekey::{Limits, Policy, Side},
    tunnel::Event,
};
use cipherwall_transport::{
    socket::SocketFactory,
    tls::{Agreed, ClientConfig, ServerConfig, TlsStream, spki_pin},
    tunnel::{Link, LinkError, Sender, Start, Taken},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    config: ServerConfig,
    pin: [u8; 32],
}

fn gateway() -> Gateway {
    let signed = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
    let certificate = CertificateDer::from(signed.cert.der().to_vec());
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let listener = SocketFactory::default().listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    Gateway {
        address: listener.local_addr().unwrap(),
        listener,
        pin: spki_pin(&certificate).unwrap(),
        config: ServerConfig::new(certificate, key).unwrap(),
    }
}

async fn tls_client(address: SocketAddr, pin: [u8; 32]) -> (TlsStream, Agreed) {
    let tcp = SocketFactory::default().connect(address).await.unwrap();
    let config = ClientConfig::new(vec![[0; 32], pin]).unwrap();
    config.handshake(tcp, "gateway.test").await.unwrap()
}

/// The gateway's side, up to the tunnel. Sends `behind` right behind the welcome.
async fn let_in(gateway: &Gateway, behind: &[u8]) -> Link {
    let (tcp, _) = gateway.listener.accept().await.unwrap();
    let (mut tls, agreed) = gateway.config.handshake(tcp).await.unwrap();
    let mut watch = Watch::new(&agreed.root, &[DoorKey([7; 32])], agreed.alpn);
    let mut opening = gateway::Opening::new(agreed.root, true);
    let mut opened = false;
    let demand = loop {
        let plaintext = tls.read_record().await.unwrap().expect("the client is still there");
        let mut rest = &plaintext[..];
        if !opened {
            match watch.push(rest) {
                Verdict::Undecided => continue,
                Verdict::Visitor => panic!("a client was taken for a visitor"),
                Verdict::Opened { consumed } => rest = &rest[consumed..],
            }
            opened = true;
        }
        if let Some(demand) = opening.handle_record(rest).unwrap() {
            break demand;
        }
    };
    let Demand::Login { user, prehash, device } = demand else { panic!("{demand:?}") };
    assert_eq!((user.as_str(), prehash), ("ali", [3; 32]));
    assert_eq!(device, DeviceKey::from_seed(&[5; 32]).public());
    let (bytes, established) = opening.welcome(welcome());
    tls.send(&bytes).await.unwrap();
    let (carrier, leftover) = tls.into_parts();
    if !behind.is_empty() {
        carrier.writable().await.unwrap();
        carrier.try_write(behind).unwrap();
    }
    let (sealer, opener) = (established.sealer, established.opener);
    let (keepalive, side) = (Keepalive::default(), Side::Gateway(Policy::default()));
    let mut link = Link::new(Start { carrier, sealer, opener, keepalive, side });
    link.begin(&leftover);
    link
}

fn welcome() -> Welcome {
    Welcome {
        session_id: [1; 16].into(),
        token: [2; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text("10.8.0.2".parse().unwrap()),
        v6: Text("fd00::2".parse().unwrap()),
        routes: vec![Text("0.0.0.0/1".parse().unwrap())],
        dns: vec![Text("10.8.0.1".parse().unwrap())],
        mtu: 1420,
        keepalive: 15,
        time: 1,
        pins: vec![[0; 32].into(), [1; 32].into()],
        datagram: None,
    }
}

/// The client's side, up to the tunnel.
async fn log_in(gateway: &Gateway, ciphers: &[CipherId]) -> (Link, CipherId) {
    log_in_with(gateway, ciphers, Limits::default()).await
}

async fn log_in_with(gateway: &Gateway, ciphers: &[CipherId], limits: Limits) -> (Link, CipherId) {
    let (mut tls, agreed) = tls_client(gateway.address, gateway.pin).await;
    let door = DoorKey([7; 32]);
    let mut opening = client::Opening::new(agreed.root, &door, agreed.alpn, "test", ciphers);
    let credential = Credential::Password { user: "ali", prehash: &[3; 32] };
    let request = opening.request(&credential, &DeviceKey::from_seed(&[5; 32]));
    tls.send(&request).await.unwrap();
    let established = loop {
        let plaintext = tls.read_record().await.unwrap().expect("the gateway is still there");
        match opening.handle_record(&plaintext).unwrap() {
            None => {}
            Some(Answer::Welcome(established)) => break established,
            Some(other) => panic!("{other:?}"),
        }
    };
    let (carrier, leftover) = tls.into_parts();
    let (sealer, opener) = (established.sealer, established.opener);
    let (keepalive, side) = (Keepalive::default(), Side::Client(limits));
    let mut link = Link::new(Start { carrier, sealer, opener, keepalive, side });
    link.begin(&leftover);
    (link, established.cipher)
}

async fn connect(ciphers: &[CipherId]) -> (Link, Link, CipherId) {
    let gateway = gateway();
    let ((client, cipher), server) = tokio::join!(log_in(&gateway, ciphers), let_in(&gateway, &[]));
    (client, server, cipher)
}

/// Puts a packet into the batch as a TUN device would, an offload header in front.
fn read_packet(batch: &mut Batch, packet: &[u8]) -> usize {
    let bytes = [&[0u8; 10][..], packet].concat();
    let mut rest = &bytes[..];
    for slice in &mut batch.packet_slices() {
        let (now, later) = rest.split_at(rest.len().min(slice.len()));
        slice[..now.len()].copy_from_slice(now);
        rest = later;
    }
    bytes.len()
}

fn put(sender: &Sender, packet: &[u8]) -> Taken {
    let direct = sender.fill(|batch, _| {
        let read = read_packet(batch, packet);
        batch.commit_packet(read);
    });
    if direct.is_some() {
        return Taken::AtOnce;
    }
    let mut scratch = Batch::default();
    let read = read_packet(&mut scratch, packet);
    sender.take_packet(&scratch, read)
}

/// Runs a link until `count` packets have come.
async fn take(link: &mut Link, count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while packets.len() < count {
        let mut on_packet = |_: &OffloadHeader, packet: &[u8]| packets.push(packet.to_vec());
        let event = link.run(&mut on_packet).await.unwrap();
        assert_eq!(event, None);
    }
    packets
}

#[tokio::test]
async fn packets_cross_in_both_directions_with_either_cipher() {
    for cipher in [CipherId::Aes256Gcm, CipherId::ChaCha20Poly1305] {
        let (mut client, mut server, chosen) = connect(&[cipher]).await;
        assert_eq!(chosen, cipher);
        cross(client.sender().clone(), &mut server).await;
        cross(server.sender().clone(), &mut client).await;
    }
}

async fn cross(sender: Arc<Sender>, to: &mut Link) {
    let sent: Vec<Vec<u8>> = (0..300).map(|n| vec![n as u8; 1 + n * 211 % 65_535]).collect();
    let feed = async {
        for pair in sent.chunks(2) {
            for packet in pair {
                put(&sender, packet);
            }
            sender.drain().await.unwrap();
        }
    };
    let (_, received) = tokio::join!(feed, take(to, sent.len()));
    assert_eq!(received, sent);
}

/// A21 and A9: nothing is lost by a moment's congestion, and what a dead connection has not sent
/// goes over the next one, the newest packets at least.
#[tokio::test]
async fn packets_queue_behind_a_full_socket_and_move_to_the_next_connection() {
    let (client, server, _) = connect(&CipherId::auto(true)).await;
    let packet = |n: u32| [&n.to_be_bytes()[..], &[7; 1_400]].concat();
    let mut last = 0;
    // nobody reads at the other end
    while put(client.sender(), &packet(last)) == Taken::AtOnce {
        client.sender().flush().unwrap();
        last += 1;
        assert!(last < 100_000, "the socket is never full");
    }
    for _ in 0..50 {
        last += 1;
        assert_eq!(put(client.sender(), &packet(last)), Taken::Queued);
    }
    let lost = client.sender().retire();
    assert_eq!(put(client.sender(), &packet(0)), Taken::Queued, "too late");
    drop((client, server));

    let (client, mut server, _) = connect(&CipherId::auto(true)).await;
    last += 1;
    client.sender().adopt(lost).unwrap();
    put(client.sender(), &packet(last));
    client.sender().flush().unwrap();
    let mut received = Vec::new();
    while received.last() != Some(&last) {
        let number = |packet: Vec<u8>| u32::from_be_bytes(*packet.first_chunk().unwrap());
        received.extend(take(&mut server, 1).await.into_iter().map(number));
    }
    let first = received[0];
    assert!(first <= last - 51, "all that were queued, from {first} to {last}");
    assert_eq!(received, (first..=last).collect::<Vec<_>>());
}

/// What was on its way when another connection took over still arrives.
#[tokio::test]
async fn a_replaced_connection_can_be_drained() {
    let (client, server, _) = connect(&CipherId::auto(true)).await;
    for n in 0..8 {
        put(server.sender(), &[n; 1_400]);
        server.sender().flush().unwrap();
    }
    assert!(server.sender().retire().is_empty());
    server.finish(&Control::Kick { reason: KickReason::Superseded }).await;
    let mut received = Vec::new();
    client.drain(&mut |_, packet: &[u8]| received.push(packet[0])).await.unwrap();
    assert_eq!(received, (0..8).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_client_that_asks_gets_new_keys() {
    let gateway = gateway();
    let limits = Limits { records: 100, ..Limits::default() };
    let ciphers = CipherId::auto(true);
    let ((mut client, _), mut server) =
        tokio::join!(log_in_with(&gateway, &ciphers, limits), let_in(&gateway, &[]));
    cross(client.sender().clone(), &mut server).await;
    cross(server.sender().clone(), &mut client).await;
    let keys_change = async {
        let (mut to_client, mut to_server) =
            (|_: &OffloadHeader, _: &[u8]| {}, |_: &OffloadHeader, _: &[u8]| {});
        while client.epoch() == 0 {
            tokio::select! {
                ran = client.run(&mut to_client) => ran.unwrap(),
                ran = server.run(&mut to_server) => ran.unwrap(),
            };
        }
    };
    tokio::time::timeout(Duration::from_secs(10), keys_change).await.unwrap();
    assert_eq!(server.epoch(), 1);
    cross(client.sender().clone(), &mut server).await;
    cross(server.sender().clone(), &mut client).await;
}

#[tokio::test]
async fn the_round_trip_is_measured_and_a_farewell_arrives() {
    let (mut client, mut server, _) = connect(&CipherId::auto(true)).await;
    client.ping().unwrap();
    let serve = async move {
        // the ping is answered within a moment
        let moment = Duration::from_millis(300);
        let answer = async { while server.run(&mut |_, _| {}).await.unwrap().is_none() {} };
        assert!(tokio::time::timeout(moment, answer).await.is_err());
        server.finish(&Control::Kick { reason: KickReason::Revoked }).await;
    };
    let ask = async {
        loop {
            if let Some(event) = client.run(&mut |_, _| {}).await.unwrap() {
                return event;
            }
        }
    };
    let (_, event) = tokio::join!(serve, ask);
    assert_eq!(event, Event::Peer(Control::Kick { reason: KickReason::Revoked }));
    assert!(client.round_trip().is_some_and(|rtt| rtt < Duration::from_secs(1)));
}

#[tokio::test]
async fn bytes_that_are_no_record_end_the_connection() {
    let gateway = gateway();
    let junk = [0x17, 3, 3, 0, 60].iter().copied().chain([9; 60]).collect::<Vec<u8>>();
    let auto = CipherId::auto(true);
    let ((mut client, _), server) = tokio::join!(log_in(&gateway, &auto), let_in(&gateway, &junk));
    let started = Instant::now();
    let error = loop {
        match client.run(&mut |_, _| {}).await {
            Ok(_) => assert!(started.elapsed() < Duration::from_secs(5)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LinkError::Inflow(_)), "{error}");
    drop(server);
}

#[tokio::test]
async fn a_key_that_is_not_pinned_is_refused() {
    let gateway = gateway();
    let accept = async {
        let (tcp, _) = gateway.listener.accept().await.unwrap();
        gateway.config.handshake(tcp).await.map(|_| ())
    };
    let connect = async {
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        let config = ClientConfig::new(vec![[1; 32], [2; 32]]).unwrap();
        config.handshake(tcp, "gateway.test").await.map(|_| ())
    };
    let (server, client) = tokio::join!(accept, connect);
    assert!(client.unwrap_err().is_wrong_pin());
    assert!(server.is_err());
}

#[tokio::test]
async fn a_taken_port_says_so() {
    let gateway = gateway();
    let error = SocketFactory::default().listen(gateway.address).unwrap_err();
    assert!(error.to_string().contains("in use by another program"), "{error}");
}

//! KCP conversations on sockets: TLS on them, and what strangers, replays and changes on the way get.

#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cipherwall_proto::keys::DoorKey;
use cipherwall_transport::{
    Carrier,
    kcp::{self, Gate},
    socket::SocketFactory,
    tls::{ClientConfig, ServerConfig, TlsStream, spki_pin},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{net::UdpSocket, sync::mpsc, time::timeout};

const PATIENCE: Duration = Duration::from_secs(10);
/// A stranger is not answered within this time.
const SILENCE: Duration = Duration::from_millis(300);

fn door() -> DoorKey {
    DoorKey([7; 32])
}

/// A gateway that gives the carriers of conversations that have begun, at most so many.
struct Gateway {
    address: SocketAddr,
    gate: Arc<Gate>,
    begun: mpsc::UnboundedReceiver<(Carrier, SocketAddr)>,
}

fn gateway(places: usize) -> Gateway {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = Arc::new(SocketFactory::default().udp_listen(local).unwrap());
    let address = socket.local_addr().unwrap();
    let gate = Gate::new();
    gate.set_keys([door()]);
    let (tell, begun) = mpsc::unbounded_channel();
    let receiving = gate.clone();
    tokio::spawn(async move {
        let taken = AtomicUsize::new(0);
        loop {
            let admit = |_| (taken.fetch_add(1, Ordering::Relaxed) < places).then_some(());
            let begin = |carrier, peer, ()| drop(tell.send((carrier, peer)));
            receiving.receive(&socket, admit, begin).await.unwrap();
        }
    });
    Gateway { address, gate, begun }
}

async fn connect(address: SocketAddr, key: &DoorKey, offset: i64) -> std::io::Result<Carrier> {
    let factory = SocketFactory::default();
    timeout(PATIENCE, kcp::connect(&factory, address, key, offset)).await?
}

/// TLS on a conversation: both ends.
async fn tls(gateway: &mut Gateway) -> (TlsStream, TlsStream) {
    let signed = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
    let certificate = CertificateDer::from(signed.cert.der().to_vec());
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let client = ClientConfig::new(vec![spki_pin(&certificate).unwrap()]).unwrap();
    let server = ServerConfig::new(certificate, key).unwrap();
    let address = gateway.address;
    let dial = async {
        let carrier = connect(address, &door(), 0).await.unwrap();
        client.handshake(carrier, "gateway.test").await.unwrap().0
    };
    let serve = async {
        let (carrier, _) = gateway.begun.recv().await.unwrap();
        server.handshake(carrier).await.unwrap().0
    };
    timeout(PATIENCE, async { tokio::join!(dial, serve) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_runs_over_it_and_everything_arrives() {
    const LENGTH: usize = 20_000_000;
    let mut gateway = gateway(1);
    let (mut client, mut server) = tls(&mut gateway).await;
    let send = async {
        let bytes = (0..LENGTH).map(|at| (at % 251) as u8).collect::<Vec<_>>();
        for piece in bytes.chunks(16_000) {
            server.send(piece).await.unwrap();
        }
        server.finish(1_000).await.unwrap();
    };
    let read = async {
        let mut read = 0;
        while let Some(record) = client.read_record().await.unwrap() {
            let right = record.iter().zip(read..).all(|(byte, at)| *byte == (at % 251) as u8);
            assert!(right, "at {read}");
            read += record.len();
        }
        drop(client);
        read
    };
    let ((), read) =
        timeout(Duration::from_secs(60), async { tokio::join!(send, read) }).await.unwrap();
    assert_eq!(read, LENGTH);
    let over = async {
        while !gateway.gate.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, over).await.expect("nothing is left at the gateway");
}

/// The client's datagrams, recorded by somebody on the way, and what the gateway answers to them.
#[tokio::test]
async fn strangers_replays_and_changed_datagrams_are_not_answered() {
    let mut gateway = gateway(10);
    let tap = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let through = tap.local_addr().unwrap();
    let dial = tokio::spawn(async move { connect(through, &door(), 0).await });
    let mut first = vec![0; 2_000];
    let (length, client) = tap.recv_from(&mut first).await.unwrap();
    first.truncate(length);

    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 2_000];
    for at in 0..first.len() {
        let mut changed = first.clone();
        changed[at] ^= 0x10;
        stranger.send_to(&changed, gateway.address).await.unwrap();
    }
    for length in [0, 1, 16, 35, 36, 60, 1_200] {
        stranger.send_to(&vec![0x17; length], gateway.address).await.unwrap();
        stranger.send_to(&first[..length.min(first.len() - 1)], gateway.address).await.unwrap();
    }
    assert!(timeout(SILENCE, stranger.recv_from(&mut answer)).await.is_err(), "an answer");
    assert!(gateway.begun.try_recv().is_err() && gateway.gate.is_empty());

    // untouched, it is answered once, to whoever brings it
    tap.send_to(&first, gateway.address).await.unwrap();
    let (length, _) = timeout(PATIENCE, tap.recv_from(&mut answer)).await.unwrap().unwrap();
    tap.send_to(&answer[..length], client).await.unwrap();
    let carrier = timeout(PATIENCE, dial).await.unwrap().unwrap().unwrap();
    assert_eq!(gateway.begun.recv().await.unwrap().1, through);
    stranger.send_to(&first, gateway.address).await.unwrap();
    assert!(timeout(SILENCE, stranger.recv_from(&mut answer)).await.is_err(), "to a replay");
    drop(carrier);
    tokio::time::sleep(SILENCE).await;
    stranger.send_to(&first, gateway.address).await.unwrap();
    assert!(timeout(SILENCE, stranger.recv_from(&mut answer)).await.is_err(), "after its end");
}

#[tokio::test]
async fn a_wrong_pin_is_found_out() {
    let mut gateway = gateway(1);
    let signed = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
    let certificate = CertificateDer::from(signed.cert.der().to_vec());
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let server = ServerConfig::new(certificate, key).unwrap();
    let client = ClientConfig::new(vec![[1; 32]]).unwrap();
    let carrier = connect(gateway.address, &door(), 0).await.unwrap();
    let serve = async {
        let (carrier, _) = gateway.begun.recv().await.unwrap();
        server.handshake(carrier).await.map(|_| ())
    };
    let both = async { tokio::join!(client.handshake(carrier, "gateway.test"), serve) };
    let (ours, theirs) = timeout(PATIENCE, both).await.unwrap();
    assert!(ours.is_err_and(|error| error.is_wrong_pin()) && theirs.is_err());
}

#[tokio::test]
async fn another_key_another_time_and_too_many_find_nobody() {
    let mut gateway = gateway(2);
    let silent = |key: DoorKey, offset| {
        let address = gateway.address;
        async move { timeout(SILENCE, connect(address, &key, offset)).await.is_err() }
    };
    assert!(silent(DoorKey([8; 32]), 0).await);
    assert!(silent(door(), 130).await);
    assert!(silent(door(), -130).await, "before the gateway began");
    let near = connect(gateway.address, &door(), 100).await.unwrap();
    let second = connect(gateway.address, &door(), 0).await.unwrap();
    assert!(silent(door(), 0).await, "there is no place");
    assert!(gateway.begun.recv().await.is_some() && gateway.begun.recv().await.is_some());
    assert!(near.is_kcp() && second.is_kcp());
}

//! Handshakes between both ends, on loopback and in memory.

use std::io::Read;

use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, crypto::SupportedKxGroup};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::tls::spki_pin;

mod early;

fn server() -> (ServerConfig, Pin) {
    let signed = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
    let certificate = CertificateDer::from(signed.cert.der().to_vec());
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let pin = spki_pin(&certificate).unwrap();
    (ServerConfig::new(certificate, key).unwrap(), pin)
}

/// Passes bytes between both ends until the handshake is complete or fails.
fn handshake(
    client: rustls::ClientConfig,
    server: ServerConfig,
) -> Result<rustls::Connection, rustls::Error> {
    let name = ServerName::try_from("gateway.test").unwrap();
    let mut client: rustls::Connection =
        rustls::ClientConnection::new(Arc::new(client), name)?.into();
    let mut server: rustls::Connection = rustls::ServerConnection::new(server.0)?.into();
    for _ in 0..4 {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    client.writer().write_all(b"hello").unwrap();
    pass(&mut client, &mut server)?;
    let mut got = [0; 5];
    server.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    Ok(client)
}

fn pass(from: &mut rustls::Connection, to: &mut rustls::Connection) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

fn client(pin: Pin, groups: &[&'static dyn SupportedKxGroup]) -> rustls::ClientConfig {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..(*provider()).clone() };
    let algorithms = provider.signature_verification_algorithms;
    rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier { pins: vec![pin], algorithms }))
        .with_no_client_auth()
}

/// C9, A1.
#[test]
fn our_own_ends_agree_on_the_hybrid_key_exchange_and_h2() {
    let (server, pin) = server();
    let ours = ClientConfig::new(vec![pin]).unwrap();
    let connection = handshake((*ours.0).clone(), server).unwrap();
    let group = connection.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
}

/// A whole opening over a socket; what a gateway sends at last is the beginning of the tunnel.
async fn connect(client: &ClientConfig, server: &ServerConfig) -> Option<HandshakeKind> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = async {
        let (mut stream, agreed) =
            server.handshake(listener.accept().await.unwrap().0).await.unwrap();
        assert_eq!(stream.read_record().await.unwrap().unwrap(), b"request");
        stream.send(b"answer").await.unwrap();
        let (tcp, leftover) = stream.into_parts();
        assert_eq!(leftover, b"at once");
        tcp.try_write(b"tunnel").unwrap();
        agreed.root.0
    };
    let client = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut stream, agreed) = client.handshake(tcp, "gateway.test").await.unwrap();
        stream.send(b"request").await.unwrap();
        stream.carrier().try_write(b"at once").unwrap();
        assert_eq!(stream.read_record().await.unwrap().unwrap(), b"answer");
        let group = stream.tls().negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
        let kind = stream.tls().handshake_kind();
        let (tcp, mut rest) = stream.into_parts();
        while rest.len() < 6 {
            tcp.readable().await.unwrap();
            read_more(&tcp, &mut rest);
        }
        assert_eq!(rest, b"tunnel", "no ticket comes behind the answer");
        (kind, agreed.root.0)
    };
    let (theirs, (kind, ours)) = tokio::join!(gateway, client);
    assert_eq!(theirs, ours, "both ends export the same secret");
    kind
}

/// Adds what can be read to `bytes`.
fn read_more(carrier: &Carrier, bytes: &mut Vec<u8>) {
    let mut space = [0; 64];
    if let Ok(count) = carrier.try_read(&mut space) {
        bytes.extend_from_slice(&space[..count]);
    }
}

/// A9. Own record cutting, tickets and the switch together.
#[tokio::test]
async fn tickets_resume_and_are_forgotten_with_the_pins_and_with_the_gateway_s_process() {
    let (server, pin) = server();
    let ours = ClientConfig::new(vec![pin, [0; 32]]).unwrap();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
        assert_eq!(connect(&ours, &server).await, Some(kind));
    }
    let other_pins = ClientConfig::new(vec![[0; 32], pin]).unwrap();
    assert_eq!(connect(&other_pins, &server).await, Some(HandshakeKind::Full));

    let mut restarted = (*server.0).clone();
    restarted.session_storage = ServerSessionMemoryCache::new(TICKETS_GIVEN);
    let restarted = ServerConfig(Arc::new(restarted));
    assert_eq!(connect(&ours, &restarted).await, Some(HandshakeKind::Full));
}

/// What a client sends behind its request is waited for and dropped, so that the answer is not
/// overtaken by a reset, but not for ever.
#[tokio::test]
async fn a_last_answer_arrives_though_the_other_end_goes_on_sending() {
    const DROP_MAX: usize = 64 * 1024;
    let (server, pin) = server();
    let client = ClientConfig::new(vec![pin]).unwrap();
    for (poured, is_bounded) in [(0, false), (60_000, false), (20_000_000, true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = async {
            let tcp = listener.accept().await.unwrap().0;
            let (mut stream, _) = server.handshake(tcp).await.unwrap();
            stream.read_record().await.unwrap().unwrap();
            stream.send(b"refused").await.unwrap();
            stream.finish(DROP_MAX).await
        };
        let client = async {
            let tcp = TcpStream::connect(address).await.unwrap();
            let (mut stream, _) = client.handshake(tcp, "gateway.test").await.unwrap();
            stream.send(b"request").await.unwrap();
            let tcp = stream.carrier().clone();
            let pour = async {
                let mut sent = 0;
                while sent < poured && tcp.writable().await.is_ok() {
                    match tcp.try_write(&[0x17; 4_096]) {
                        Ok(count) => sent += count,
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                }
                sent
            };
            let (answer, sent) = tokio::join!(stream.read_record(), pour);
            if !is_bounded {
                assert_eq!(answer.unwrap().unwrap(), b"refused");
                assert_eq!(stream.read_record().await.unwrap(), None);
            }
            sent
        };
        let (finished, sent) = tokio::join!(gateway, client);
        finished.unwrap();
        assert_eq!(sent < poured, is_bounded, "{sent} of {poured} were taken");
    }
}

#[test]
fn x25519_alone_is_accepted_and_nothing_older() {
    let (server, pin) = server();
    let x25519 = handshake(client(pin, &[aws_lc_rs::kx_group::X25519]), server.clone());
    assert!(x25519.is_ok());
    let p256 = handshake(client(pin, &[aws_lc_rs::kx_group::SECP256R1]), server);
    assert!(p256.is_err());
}

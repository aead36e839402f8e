//! Early data: accepted, lost, too much, and replayed (A9).

use super::*;

/// A client that sends `early`, and what the gateway got: the early data as it came within the
/// handshake, and the first record behind it. The first 4 bytes are taken out.
async fn connect_early(
    client: &ClientConfig,
    server: &ServerConfig,
    early: &[u8],
) -> (Result<(Vec<u8>, Vec<u8>), TlsError>, Option<HandshakeKind>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = async {
        let tcp = listener.accept().await.unwrap().0;
        let (mut seen, mut taken) = (Vec::new(), false);
        let on_early = |bytes: &[u8]| {
            seen.extend_from_slice(bytes);
            let take = !std::mem::replace(&mut taken, true);
            if take { 4 } else { 0 }
        };
        let (mut stream, agreed) = server.handshake_with_early_data(tcp, on_early).await?;
        let first = stream.read_record().await?.unwrap_or_default();
        let rest = match first.as_slice() {
            b"request" => first.clone(),
            _ => stream.read_record().await?.unwrap_or_default(),
        };
        assert_eq!(rest, b"request");
        stream.send(b"answer").await?;
        let (tcp, leftover) = stream.into_parts();
        assert_eq!(leftover, b"at once");
        tcp.try_write(b"tunnel")?;
        Ok(((seen, first), agreed.root.0))
    };
    let client = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut stream, agreed) =
            client.handshake_with_early_data(tcp, "gateway.test", early).await?;
        stream.send(b"request").await?;
        stream.carrier().try_write(b"at once")?;
        if stream.read_record().await?.as_deref() != Some(b"answer") {
            return Err(TlsError::Closed);
        }
        let kind = stream.tls().handshake_kind();
        let (tcp, mut rest) = stream.into_parts();
        while rest.len() < 6 {
            tcp.readable().await?;
            read_more(&tcp, &mut rest);
        }
        assert_eq!(rest, b"tunnel");
        Ok((kind, agreed.root.0))
    };
    let (got, sent): (Result<_, TlsError>, Result<_, TlsError>) = tokio::join!(gateway, client);
    match (got, sent) {
        (Ok((got, theirs)), Ok((kind, ours))) => {
            assert_eq!(theirs, ours, "both ends export the same secret");
            (Ok(got), kind)
        }
        (Err(error), _) => (Err(error), None),
        (Ok(_), Err(error)) => panic!("the client: {error}"),
    }
}

const FULL: Option<HandshakeKind> = Some(HandshakeKind::Full);
const RESUMED: Option<HandshakeKind> = Some(HandshakeKind::Resumed);

fn got(early: &[u8], first: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (early.to_vec(), first.to_vec())
}

/// A9. What was sent early comes once and within the handshake, or is lost; the rest goes on.
#[tokio::test]
async fn early_data_comes_with_a_ticket_and_is_lost_without_one() {
    let (server, pin) = server();
    let (off, on) = (server.clone(), server.with_early_data());
    let ours = ClientConfig::new(vec![pin]).unwrap();
    let (lost, kind) = connect_early(&ours, &on, b"hint").await;
    assert_eq!((lost.unwrap(), kind), (got(b"", b"request"), FULL));
    for _ in 0..3 {
        let (came, kind) = connect_early(&ours, &on, b"hint").await;
        assert_eq!((came.unwrap(), kind), (got(b"hint", b"request"), RESUMED));
    }
    // what is not taken is read first, as a web site would
    let (came, kind) = connect_early(&ours, &on, b"hint and more").await;
    assert_eq!((came.unwrap(), kind), (got(b"hint and more", b" and more"), RESUMED));

    // a gateway that was restarted, with or without early data, does not know the ticket
    for with in [true, false] {
        let mut restarted = if with { (*on.0).clone() } else { (*off.0).clone() };
        restarted.session_storage = ServerSessionMemoryCache::new(TICKETS_GIVEN);
        let restarted = ServerConfig(Arc::new(restarted));
        connect(&ours, &on).await;
        let (lost, kind) = connect_early(&ours, &restarted, b"hint").await;
        assert_eq!((lost.unwrap(), kind), (got(b"", b"request"), FULL), "{with}");
    }
}

/// It knows the ticket, but early data was switched off since.
#[tokio::test]
async fn early_data_is_announced_and_taken_only_if_it_is_switched_on() {
    let (server, pin) = server();
    let (off, on) = (server.clone(), server.with_early_data());
    let ours = ClientConfig::new(vec![pin]).unwrap();
    for kind in [FULL, RESUMED, RESUMED] {
        let (lost, how) = connect_early(&ours, &off, b"hint").await;
        assert_eq!((lost.unwrap(), how), (got(b"", b"request"), kind));
        assert_eq!(announced(&ours, &off).await, None, "tickets do not offer it");
    }
    assert_eq!(connect(&ours, &on).await, RESUMED);
    assert_eq!(announced(&ours, &on).await, Some(16_384), "as nginx's do");
    let (lost, kind) = connect_early(&ours, &off, b"hint").await;
    assert_eq!((lost.unwrap(), kind), (got(b"", b"request"), RESUMED));
}

/// How much early data a client with a ticket of this gateway may send.
async fn announced(client: &ClientConfig, server: &ServerConfig) -> Option<usize> {
    connect(client, server).await;
    let mut config = (*client.0).clone();
    config.enable_early_data = true;
    let name = server_name("gateway.test").unwrap();
    let mut hello = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let allowed = hello.early_data().map(|early| early.bytes_left());
    connect(client, server).await;
    allowed
}

/// Within its bound it is all there; beyond it, the connection ends.
#[tokio::test]
async fn early_data_has_a_bound() {
    let (server, pin) = server();
    let server = server.with_early_data();
    let ours = ClientConfig::new(vec![pin]).unwrap();
    connect(&ours, &server).await;
    let most = vec![7; EARLY_DATA_MAX as usize];
    let (came, _) = connect_early(&ours, &server, &most).await;
    let (seen, first) = came.unwrap();
    assert!(seen.ends_with(&most[4..]) || seen == most);
    assert_eq!(first.len(), most.len() - 4);

    // our own client cannot send more than its ticket allows: the gateway allows less by now
    let mut less = (*server.0).clone();
    less.max_early_data_size = 100;
    connect(&ours, &server).await;
    let (refused, _) = connect_early(&ours, &ServerConfig(Arc::new(less)), &most[..101]).await;
    let error = refused.expect_err("too much").to_string();
    assert!(error.contains("TooMuchEarlyData"), "{error}");
}

/// The first flight of a client once more, as somebody on the path has recorded it.
#[test]
fn a_replayed_first_flight_is_not_read() {
    let (server, pin) = server();
    let server = server.with_early_data();
    let mut ours = (*ClientConfig::new(vec![pin]).unwrap().0).clone();
    ours.enable_early_data = true;
    handshake(ours.clone(), server.clone()).unwrap();
    let name = server_name("gateway.test").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(ours), name).unwrap();
    client.early_data().unwrap().write_all(b"hint").unwrap();
    let mut flight = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut flight).unwrap();
    }
    let read = |server: &ServerConfig| {
        let mut gateway = rustls::ServerConnection::new(server.0.clone()).unwrap();
        let mut rest = &flight[..];
        while !rest.is_empty() {
            gateway.read_tls(&mut rest).unwrap();
            gateway.process_new_packets().unwrap();
        }
        let mut early = Vec::new();
        if let Some(mut reader) = gateway.early_data() {
            reader.read_to_end(&mut early).unwrap();
        }
        (early, gateway.handshake_kind())
    };
    let mut other = (*server.0).clone();
    other.session_storage = ServerSessionMemoryCache::new(TICKETS_GIVEN);
    let other = ServerConfig(Arc::new(other));
    assert_eq!(read(&other), (vec![], FULL), "another gateway with the same key");
    assert_eq!(read(&server), (b"hint".to_vec(), RESUMED));
    assert_eq!(read(&server), (vec![], FULL), "the second use of the ticket");
}

/// The gateway asks for another key exchange: what was sent early is lost, and the rest goes on.
#[tokio::test]
async fn early_data_is_lost_when_the_gateway_wants_another_key_exchange() {
    use aws_lc_rs::kx_group::{SECP256R1, X25519};
    let (server, pin) = server();
    let mut ours = client(pin, &[X25519, SECP256R1]);
    ours.resumption = Resumption::in_memory_sessions(TICKETS_KEPT);
    ours.alpn_protocols = alpn_protocols();
    let ours = ClientConfig(Arc::new(ours));
    let server = server.with_early_data();
    assert_eq!(connect_early(&ours, &server, b"hint").await.1, FULL);
    let others = CryptoProvider { kx_groups: vec![SECP256R1], ..(*provider()).clone() };
    let mut other = rustls::ServerConfig::builder_with_provider(Arc::new(others))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(server.0.cert_resolver.clone());
    other.alpn_protocols = alpn_protocols();
    other.session_storage = server.0.session_storage.clone();
    other.send_tls13_tickets = 2;
    let other = ServerConfig(Arc::new(other)).with_early_data();
    let (lost, kind) = connect_early(&ours, &other, b"hint").await;
    assert_eq!((lost.unwrap(), kind), (got(b"", b"request"), RESUMED));
}

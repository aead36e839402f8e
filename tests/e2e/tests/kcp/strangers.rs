//! Who has no door key gets silence; who has one, but does not log in, keeps nobody out.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use cipherwall_proto::{invitation::Invitation, keys::DoorKey};
use cipherwall_transport::{Carrier, kcp, socket::SocketFactory};
use e2e::{ClientNode, GatewayNode, Lab, Node, Programs, Transport, address, figure};

const KCP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(address::GATEWAY), 443);

/// Runs `work` in a thread in the network of `node`.
fn within<T: Send>(node: &Node, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || {
        node.enter_network()?;
        work()
    };
    thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Noise of all lengths, and the first datagrams of protocols that use this port or could.
fn questions() -> Vec<Vec<u8>> {
    let mut chance = fastrand::Rng::with_seed(0x6b_6370);
    let noise = (0..300).chain([600, 1_200, 1_232, 1_233, 1_472, 9_000, 65_507]).map(|len| {
        let mut datagram = vec![0; len];
        chance.fill(&mut datagram);
        datagram
    });
    let mut all: Vec<_> = noise.collect();
    // a QUIC version that nobody knows, which a QUIC server answers
    let mut quic =
        vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 7, 6, 5, 4, 3, 2, 1];
    quic.resize(1_200, 0);
    all.push(quic);
    // DTLS, DNS, and KCP itself
    all.push(b"\x16\xfe\xff\0\0\0\0\0\0\0\0\0\x10\x01\0\0\x04\0\0\0\0\0\0\0\x04abcd".to_vec());
    all.push(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x03lab\x04test\0\0\x01\0\x01".to_vec());
    let mut plain = vec![1, 0, 0, 0, 83, 0, 0, 32];
    plain.resize(24, 0);
    all.push(plain);
    all
}

#[test]
fn strangers_are_not_answered_and_harm_nobody() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = crate::connected(&lab, &[])?;
    let before = gateway.session()?;
    within(&lab.web, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        for question in questions() {
            socket.send_to(&question, KCP)?;
        }
        let mut answer = [0; 64];
        if let Ok((size, from)) = socket.recv_from(&mut answer) {
            bail!("{from} answered {size} bytes");
        }
        Ok(())
    })?;
    lab.transfer(&client.node, 1 << 20)?;
    assert_eq!(before["since"], gateway.session()?["since"], "one connection all the time");
    Ok(())
}

/// Begins so many conversations and says nothing more; those that were answered.
async fn begin(door: &DoorKey, count: usize) -> Vec<Carrier> {
    let factory = SocketFactory::default();
    let mut begun = Vec::new();
    for _ in 0..count {
        let connecting = kcp::connect(&factory, KCP, door, 0);
        if let Ok(Ok(carrier)) = tokio::time::timeout(Duration::from_secs(1), connecting).await {
            begun.push(carrier);
        }
    }
    begun
}

#[test]
fn conversations_that_never_log_in_keep_nobody_out() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?.over(Transport::Kcp);
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let link = gateway.invite("mallory")?.link;
    let door = DoorKey(Invitation::from_link(&link).context("the invitation")?.door_key);
    // from the client's own network, whose address the gateway sees
    within(&lab.routers[0], || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let begun = runtime.block_on(begin(&door, 200));
        figure("conversations that were answered", begun.len() as f64, "");
        assert!(begun.len() > 100, "{} of 200 were answered", begun.len());
        let started = Instant::now();
        let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
        figure("a client is in after", started.elapsed().as_secs_f64() * 1e3, "ms");
        lab.transfer(&client.node, 1 << 20)
    })
}

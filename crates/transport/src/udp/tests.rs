//! Over the loopback interface.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::time::timeout;

use super::*;
use crate::socket::{ListenError, SocketFactory};

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn all_datagrams_of_a_batch_arrive_in_order_and_as_they_were() {
    let (sender, receiver, to) = pair("127.0.0.1:0");
    for (datagram_len, count, last_len) in
        [(1_200, 40, 1_200), (1_000, 64, 1), (1, 64, 1), (9_001, 7, 500), (32_000, 2, 31_999)]
    {
        let mut batch = OutBatch::new();
        for index in 0..count {
            let len = if index + 1 == count { last_len } else { datagram_len };
            let room = batch.room(len).unwrap();
            fill(room, index);
            batch.commit(len);
        }
        let sent: Vec<_> = batch.datagrams().map(<[u8]>::to_vec).collect();
        assert_eq!(sent.len(), count);
        batch.send(&sender, to, None).unwrap();
        assert!(batch.is_empty());
        assert_eq!(receive(&receiver, count).await, sent, "datagrams of {datagram_len}");
    }
}

#[tokio::test]
async fn datagrams_that_are_refused_together_are_sent_one_by_one() {
    let (sender, receiver, to) = pair("127.0.0.1:0");
    // more than any kernel takes
    sender.at_once().store(1_000, Ordering::Relaxed);
    let mut bytes = vec![0; 10 * 299 + 7];
    fill(&mut bytes, 1);
    sender.try_send(to, None, 10, &bytes).unwrap();
    let sent: Vec<_> = bytes.chunks(10).map(<[u8]>::to_vec).collect();
    assert_eq!(receive(&receiver, 300).await, sent);
    assert_eq!(sender.at_once().load(Ordering::Relaxed), 1, "it is not tried again");
    sender.try_send(to, None, 10, &bytes).unwrap();
    assert_eq!(receive(&receiver, 300).await, sent);
}

#[tokio::test]
async fn more_than_the_kernel_takes_at_once_is_sent_in_turns() {
    let (sender, receiver, to) = pair("127.0.0.1:0");
    for (datagram_len, count) in [(1_400, 100), (100, 300)] {
        let mut bytes = vec![0; datagram_len * count];
        fill(&mut bytes, count);
        sender.try_send(to, None, datagram_len, &bytes).unwrap();
        let sent: Vec<_> = bytes.chunks(datagram_len).map(<[u8]>::to_vec).collect();
        assert_eq!(receive(&receiver, count).await, sent);
        assert_eq!(sender.at_once().load(Ordering::Relaxed), 64, "nothing was refused");
    }
}

#[tokio::test]
async fn the_longest_datagram_arrives_and_a_longer_one_is_told() {
    let (sender, receiver, to) = pair("127.0.0.1:0");
    let mut longest = vec![0; 65_507];
    fill(&mut longest, 0);
    sender.try_send(to, None, longest.len(), &longest).unwrap();
    assert_eq!(receive(&receiver, 1).await, [longest]);
    let error = sender.try_send(to, None, 65_508, &[0; 65_508]).unwrap_err();
    assert!(is_too_long(&error), "{error}");
    // a socket that has refused something still works
    sender.try_send(to, None, 2, &[1, 2, 3]).unwrap();
    assert_eq!(receive(&receiver, 2).await, [vec![1, 2], vec![3]]);
}

#[tokio::test]
async fn nothing_there_is_would_block() {
    let (_, receiver, _) = pair("127.0.0.1:0");
    let mut received = Received::new();
    let error = receiver.try_receive(&mut received).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(received.datagrams().count(), 0);
}

#[tokio::test]
async fn what_was_received_before_is_gone() {
    let (sender, receiver, to) = pair("127.0.0.1:0");
    sender.try_send(to, None, 1, &[1]).unwrap();
    let mut received = Received::new();
    timeout(PATIENCE, receiver.readable()).await.unwrap().unwrap();
    receiver.try_receive(&mut received).unwrap();
    assert_eq!(received.datagrams().count(), 1);
    assert!(receiver.try_receive(&mut received).is_err());
    assert_eq!(received.datagrams().count(), 0);
}

#[tokio::test]
async fn empty_datagrams_are_left_out() {
    let (_, receiver, to) = pair("127.0.0.1:0");
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    other.send_to(&[], to).unwrap();
    other.send_to(&[7], to).unwrap();
    assert_eq!(receive(&receiver, 1).await, [vec![7]]);
}

#[tokio::test]
async fn an_answer_comes_from_the_address_that_was_asked() {
    for any in ["0.0.0.0:0", "[::]:0"] {
        let factory = SocketFactory::default();
        let gateway = factory.udp_listen(any.parse().unwrap()).unwrap();
        let port = gateway.local_addr().unwrap().port();
        let second: IpAddr = "127.0.0.2".parse().unwrap();
        let client = factory.udp_for(SocketAddr::new(second, port)).unwrap();
        client.try_send(SocketAddr::new(second, port), None, 1, &[1]).unwrap();
        let question = addresses(&gateway).await;
        assert_eq!(question.1, Some(second), "at {any}");
        assert!(question.0.is_ipv4() && question.0.port() == client.local_addr().unwrap().port());
        gateway.try_send(question.0, question.1, 1, &[2]).unwrap();
        assert_eq!(addresses(&client).await.0, SocketAddr::new(second, port));
    }
}

#[tokio::test]
async fn a_closed_port_elsewhere_disturbs_nobody() {
    let (sender, receiver, to) = pair("127.0.0.1:0");
    let closed = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    for _ in 0..3 {
        sender.try_send(closed, None, 1, &[1]).unwrap();
        let error = sender.try_receive(&mut Received::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        sender.try_send(to, None, 1, &[2]).unwrap();
        assert_eq!(receive(&receiver, 1).await, [vec![2]]);
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_remedy() {
    let (_sender, _receiver, taken) = pair("127.0.0.1:0");
    let error = SocketFactory::default().udp_listen(taken).unwrap_err();
    assert!(matches!(error, ListenError::UdpInUse { .. }));
    let (text, port) = (error.to_string(), taken.port());
    assert!(text.contains(&format!("UDP 127.0.0.1:{port} is in use")), "{text}");
    assert!(text.contains(&format!("ss -lunp 'sport = :{port}'")), "{text}");
}

#[test]
fn a_batch_takes_what_can_be_sent_with_the_others() {
    let mut batch = OutBatch::new();
    assert!(batch.room(0).is_none() && batch.room(65_508).is_none());
    let mut add = |len: usize| {
        let has_room = batch.room(len).is_some();
        if has_room {
            batch.commit(len);
        }
        has_room
    };
    assert!(add(1_000) && add(1_000));
    assert!(!add(1_001), "longer than the others");
    assert!(add(999), "shorter than the others");
    assert!(!add(999) && !add(1_000), "behind a shorter one");
    batch.clear();
    let count = |batch: &mut OutBatch, len| {
        let mut count = 0;
        while batch.room(len).is_some() {
            batch.commit(len);
            count += 1;
        }
        batch.clear();
        count
    };
    assert_eq!(count(&mut batch, 100), 64);
    assert_eq!(count(&mut batch, 1_500), 43);
    assert_eq!(count(&mut batch, 65_507), 1);
}

#[test]
fn each_datagram_is_taken_once_to_be_sealed() {
    let mut batch = OutBatch::new();
    let add = |batch: &mut OutBatch, len: usize, value: u8| {
        batch.room(len).unwrap().fill(value);
        batch.commit(len);
    };
    add(&mut batch, 3, 1);
    add(&mut batch, 3, 2);
    let taken: Vec<_> = batch.take_unsealed().map(|bytes| bytes.to_vec()).collect();
    assert_eq!(taken, [[1; 3], [2; 3]]);
    add(&mut batch, 2, 3);
    batch.take_unsealed().for_each(|bytes| bytes.fill(9));
    assert_eq!(batch.take_unsealed().count(), 0);
    let all: Vec<_> = batch.datagrams().map(<[u8]>::to_vec).collect();
    assert_eq!(all, [vec![1; 3], vec![2; 3], vec![9; 2]]);
}

/// Two sockets, and the address of the second.
fn pair(address: &str) -> (UdpSocket, UdpSocket, SocketAddr) {
    let factory = SocketFactory::default();
    let receiver = factory.udp_listen(address.parse().unwrap()).unwrap();
    let to = receiver.local_addr().unwrap();
    (factory.udp_for(to).unwrap(), receiver, to)
}

/// So many datagrams.
async fn receive(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut received = Received::new();
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        timeout(PATIENCE, socket.readable()).await.expect("a datagram").unwrap();
        match socket.try_receive(&mut received) {
            Ok(()) => datagrams.extend(received.datagrams().map(|it| it.bytes.to_vec())),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    datagrams
}

/// From and to of the next datagram.
async fn addresses(socket: &UdpSocket) -> (SocketAddr, Option<IpAddr>) {
    let mut received = Received::new();
    timeout(PATIENCE, socket.readable()).await.expect("a datagram").unwrap();
    socket.try_receive(&mut received).unwrap();
    let datagram = received.datagrams().next().unwrap();
    (datagram.from, datagram.to)
}

fn fill(bytes: &mut [u8], seed: usize) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = ((at + seed) % 251) as u8;
    }
}

//! Datagrams over the loopback interface: the cost of system calls and of the kernel for each
//! packet, when many of them go at once and when each goes alone.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;

use cipherwall_transport::{
    socket::SocketFactory,
    udp::{OutBatch, Received, UdpSocket},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

const DATAGRAM_LEN: usize = 1_452;

/// Two sockets with buffers.
struct Pair {
    runtime: Runtime,
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    batch: OutBatch,
    received: Received,
}

impl Pair {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        let (sender, receiver) = runtime.block_on(async {
            let factory = SocketFactory::default();
            let receiver = factory.udp_listen("127.0.0.1:0".parse().unwrap()).unwrap();
            (factory.udp_for(receiver.local_addr().unwrap()).unwrap(), receiver)
        });
        let to = receiver.local_addr().unwrap();
        let (batch, received) = (OutBatch::new(), Received::new());
        Self { runtime, sender, receiver, to, batch, received }
    }

    /// Sends datagrams, `at_once` with each call, and receives them all.
    fn pass(&mut self, count: usize, at_once: usize) {
        for _ in 0..count / at_once {
            for _ in 0..at_once {
                self.batch.room(DATAGRAM_LEN).unwrap()[0] = 1;
                self.batch.commit(DATAGRAM_LEN);
            }
            self.batch.send(&self.sender, self.to, None).unwrap();
        }
        let mut left = count;
        self.runtime.block_on(async {
            while left > 0 {
                self.receiver.readable().await.unwrap();
                if self.receiver.try_receive(&mut self.received).is_ok() {
                    left -= self.received.datagrams().count();
                }
            }
        });
    }
}

fn loopback(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("UDP over loopback, 40 datagrams");
    group.throughput(Throughput::Bytes((40 * DATAGRAM_LEN) as u64));
    for at_once in [1, 8, 40] {
        let mut pair = Pair::new();
        group.bench_function(BenchmarkId::new("at once", at_once), |bencher| {
            bencher.iter(|| pair.pass(40, at_once));
        });
    }
}

fn batch(criterion: &mut Criterion) {
    let packet = [0x5a; 1_420];
    let mut batch = OutBatch::new();
    let mut group = criterion.benchmark_group("a batch");
    group.throughput(Throughput::Elements(44));
    group.bench_function("of 44 packets laid out", |bencher| {
        bencher.iter(|| {
            while let Some(room) = batch.room(16 + packet.len() + 16) {
                room[16..16 + packet.len()].copy_from_slice(&packet);
                let len = room.len();
                batch.commit(len);
            }
            let count = batch.take_unsealed().count();
            batch.clear();
            count
        });
    });
}

criterion_group!(benches, loopback, batch);
criterion_main!(benches);

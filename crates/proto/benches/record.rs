//! The record layer: sealing and opening a full batch, as gateway and client do for every one.

#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use cipherwall_packet::offload::{self, GSO_TCPV4, NEEDS_CSUM, OffloadHeader};
use cipherwall_proto::{
    cipher::CipherId,
    client::{self, Answer},
    gateway,
    keys::{DoorKey, Root},
    knock::{self, Alpn},
    message::{Text, Welcome},
    record::{Batch, Inflow, Opener, Sealer},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const CIPHERS: [CipherId; 2] = [CipherId::Aes256Gcm, CipherId::ChaCha20Poly1305];
/// What a TUN device gives: a TCP segment still to be cut up, and a packet as it leaves.
const PACKETS: [(&str, usize, OffloadHeader); 2] = [
    (
        "64 KiB offload",
        65_535,
        OffloadHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            header_len: 40,
            gso_size: 1_380,
            csum_start: 20,
            csum_offset: 16,
        },
    ),
    ("1,400 bytes", 1_400, OffloadHeader::NONE),
];

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal a batch");
    for cipher in CIPHERS {
        for (name, length, header) in PACKETS {
            let mut batch = Batch::default();
            fill(&mut batch, length, header);
            group.throughput(Throughput::Bytes(batch.len() as u64));
            group.bench_function(BenchmarkId::new(cipher.name(), name), |bencher| {
                let (mut sealer, _) = halves(cipher);
                bencher.iter_custom(|count| {
                    let mut total = Duration::ZERO;
                    for _ in 0..count {
                        batch.clear();
                        fill(&mut batch, length, header);
                        let start = Instant::now();
                        batch.seal(&mut sealer, start).unwrap();
                        black_box(batch.sealed());
                        total += start.elapsed();
                    }
                    total
                });
            });
        }
    }
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open a batch");
    for cipher in CIPHERS {
        for (name, length, header) in PACKETS {
            let (mut batch, mut inflow) = (Batch::default(), Inflow::default());
            fill(&mut batch, length, header);
            group.throughput(Throughput::Bytes(batch.len() as u64));
            group.bench_function(BenchmarkId::new(cipher.name(), name), |bencher| {
                let (mut sealer, mut opener) = halves(cipher);
                bencher.iter_custom(|count| {
                    let mut total = Duration::ZERO;
                    for _ in 0..count {
                        batch.clear();
                        fill(&mut batch, length, header);
                        batch.seal(&mut sealer, Instant::now()).unwrap();
                        let records = batch.sealed();
                        total += open_all(&mut inflow, &mut opener, records);
                    }
                    total
                });
            });
        }
    }
}

/// The time from the last byte's arrival to the last frame.
fn open_all(inflow: &mut Inflow, opener: &mut Opener, mut records: &[u8]) -> Duration {
    let mut total = Duration::ZERO;
    while !records.is_empty() {
        let spare = inflow.spare();
        let (now, later) = records.split_at(records.len().min(spare.len()));
        spare[..now.len()].copy_from_slice(now);
        inflow.filled(now.len());
        records = later;
        let start = Instant::now();
        while let Some(frame) = inflow.next_frame(opener).unwrap() {
            black_box(frame);
        }
        total += start.elapsed();
    }
    total
}

/// Packets of this length until none fits any more.
fn fill(batch: &mut Batch, length: usize, header: OffloadHeader) {
    let mut packet = vec![0x5a; offload::HEADER_LEN + length];
    packet[..offload::HEADER_LEN].copy_from_slice(&header.encode());
    while batch.push_packet(&packet) {}
}

/// Two ends of a tunnel, as a log-in leaves them.
fn halves(cipher: CipherId) -> (Sealer, Opener) {
    let root = || Root([9; 32]);
    let door = DoorKey([1; 32]);
    let mut client = client::Opening::new(root(), &door, Alpn::Http1, "bench", &[cipher]);
    let mut gateway = gateway::Opening::new(root(), true);
    let request = client.request_salt("bench");
    gateway.handle_record(&request[knock::OPENER_LEN..]).unwrap();
    let (answer, ours) = gateway.welcome(welcome());
    let Ok(Some(Answer::Welcome(theirs))) = client.handle_record(&answer) else {
        panic!("the client understands the gateway");
    };
    (ours.sealer, theirs.opener)
}

fn welcome() -> Welcome {
    Welcome {
        session_id: [5; 16].into(),
        token: [6; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text([10, 8, 0, 2].into()),
        v6: Text([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
        routes: Vec::new(),
        dns: Vec::new(),
        mtu: 1_420,
        keepalive: 15,
        time: 0,
        pins: Vec::new(),
        datagram: None,
    }
}

criterion_group! {
    name = benches;
    // shorter than the default: a key seals 128 GiB at most
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = seal, open
}
criterion_main!(benches);

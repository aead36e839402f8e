//! CipherWall packets: sealing a batch as a sender does, and opening one as it arrives; and what was
//! chosen between for the HMAC.

#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use cipherwall_proto::datagram::packet::{OVERHEAD, PacketCipher, PacketKeys};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A full packet, and an acknowledgement.
const LENGTHS: [usize; 2] = [1_420, 52];
/// What a TUN device gives at once when it is busy: 64 KiB of TCP.
const BATCH: usize = 44;

fn cipher() -> PacketCipher {
    PacketCipher::new(&PacketKeys { enc: [1; 32], mac: [2; 32] })
}

fn batch(count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number as u8; OVERHEAD + length]).collect()
}

fn slices(packets: &mut [Vec<u8>]) -> impl Iterator<Item = &mut [u8]> {
    packets.iter_mut().map(Vec::as_mut_slice)
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal packets");
    for length in LENGTHS {
        for count in [1, BATCH] {
            let mut packets = batch(count, length);
            group.throughput(Throughput::Bytes((count * length) as u64));
            let name = format!("{count} of {length} bytes");
            group.bench_function(name, |bencher| {
                let cipher = cipher();
                bencher.iter(|| cipher.seal(slices(&mut packets)));
            });
        }
    }
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open packets");
    for length in LENGTHS {
        for count in [1, BATCH] {
            let cipher = cipher();
            let mut sealed = batch(count, length);
            cipher.seal(slices(&mut sealed));
            group.throughput(Throughput::Bytes((count * length) as u64));
            let name = format!("{count} of {length} bytes");
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut total = Duration::ZERO;
                    for _ in 0..rounds {
                        let mut packets = sealed.clone();
                        let start = Instant::now();
                        let each = slices(&mut packets).map(|packet| ((), packet));
                        cipher.open_each(each, |(), opened| assert!(black_box(opened).is_some()));
                        total += start.elapsed();
                    }
                    total
                });
            });
        }
    }
}

/// One by one, by the libraries. In turns is what `seal packets` has, with the encryption on top.
fn hmac_of_libraries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("HMAC one by one");
    let packets = batch(BATCH, LENGTHS[0]);
    group.throughput(Throughput::Bytes((BATCH * LENGTHS[0]) as u64));
    group.bench_function(BenchmarkId::from_parameter("hmac and sha2"), |bencher| {
        let keyed = Hmac::<Sha256>::new_from_slice(&[2; 32]).unwrap();
        bencher.iter(|| {
            for packet in &packets {
                let mut hmac = keyed.clone();
                hmac.update(&packet[32..]);
                black_box(hmac.finalize());
            }
        });
    });
    group.bench_function(BenchmarkId::from_parameter("aws-lc-rs"), |bencher| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[2; 32]);
        bencher.iter(|| {
            for packet in &packets {
                black_box(aws_lc_rs::hmac::sign(&key, &packet[32..]));
            }
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = seal, open, hmac_of_libraries
}
criterion_main!(benches);

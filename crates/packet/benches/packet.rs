//! Checksums, and segmentation in software: what is done to a packet that the kernel does not do.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use cipherwall_packet::checksum::Sum;
use cipherwall_packet::offload::{self, GSO_TCPV4, NEEDS_CSUM, OffloadHeader};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for length in [40, 1_400, 65_535] {
        let bytes = vec![0x5a; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
            bencher.iter(|| Sum::ZERO.bytes(black_box(&bytes)).finish());
        });
    }
}

fn check(criterion: &mut Criterion) {
    let (header, packet) = segment();
    criterion.bench_function("check an offload header", |bencher| {
        bencher.iter(|| offload::check(black_box(&header), black_box(&packet)));
    });
}

fn split(criterion: &mut Criterion) {
    let (header, packet) = segment();
    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("a TCP segment of 64 KiB into 1,420 bytes", |bencher| {
        let mut scratch = Vec::new();
        bencher.iter(|| {
            let emit = &mut |piece: &[u8]| {
                black_box(piece);
            };
            offload::split(black_box(&header), black_box(&packet), &mut scratch, emit).unwrap();
        });
    });
}

/// TCP over IPv4, as large as packets get.
fn segment() -> (OffloadHeader, Vec<u8>) {
    let mut packet = vec![0x5a; 65_535];
    packet[..20].copy_from_slice(&[
        0x45, 0, 0xff, 0xff, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 8, 0, 2, 198, 51, 100, 80,
    ]);
    let sum = Sum::ZERO.bytes(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..40].copy_from_slice(&[
        0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    let header = OffloadHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        header_len: 40,
        gso_size: 1_380,
        csum_start: 20,
        csum_offset: 16,
    };
    offload::check(&header, &packet).unwrap();
    (header, packet)
}

criterion_group!(benches, checksum, check, split);
criterion_main!(benches);

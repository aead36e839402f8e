//! Checksums, and segmentation in software: what is done to a packet that the kernel does not do.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use cipherwall_packet::checksum::Sum;
use cipherwall_packet::offload::{self, Coalescer, GSO_TCPV4, NEEDS_CSUM, OffloadHeader, Segments};
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

/// What the sender of datagrams does with a packet of its TUN device.
fn segments(criterion: &mut Criterion) {
    let (header, packet) = segment();
    let mut group = criterion.benchmark_group("segments");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    for limit in [1_420, 1_200] {
        let mut out = vec![0; 65_535];
        group.bench_function(BenchmarkId::new("a TCP segment of 64 KiB", limit), |bencher| {
            bencher.iter(|| {
                let mut segments =
                    Segments::new(black_box(&header), black_box(&packet), limit).unwrap();
                while let Some(len) = segments.next_into(&mut out) {
                    black_box(&out[..len]);
                }
            });
        });
    }
    let small = &packets(&header, &packet)[0][..];
    group.throughput(Throughput::Elements(1));
    group.bench_function("one complete packet of 1,420 bytes", |bencher| {
        let mut out = [0; 1_420];
        bencher.iter(|| {
            let mut segments =
                Segments::new(&OffloadHeader::NONE, black_box(small), 1_420).unwrap();
            segments.next_into(black_box(&mut out))
        });
    });
}

/// What the receiver of datagrams does with packets for its TUN device.
fn coalesce(criterion: &mut Criterion) {
    let (header, packet) = segment();
    let pieces = packets(&header, &packet);
    let mut coalescer = Coalescer::new(true, true);
    let mut emit = |header: &OffloadHeader, packet: &[u8]| {
        black_box((header, packet));
    };
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("one TCP flow, 48 packets", |bencher| {
        bencher.iter(|| {
            for piece in &pieces {
                coalescer.push(black_box(piece), &mut emit);
            }
            coalescer.flush(&mut emit);
        });
    });
    let flows = flows(&pieces, 8);
    group.throughput(Throughput::Bytes(8 * packet.len() as u64));
    group.bench_function("eight TCP flows in turns, 384 packets", |bencher| {
        bencher.iter(|| {
            for piece in &flows {
                coalescer.push(black_box(piece), &mut emit);
            }
            coalescer.flush(&mut emit);
        });
    });
    // acknowledgements are most of what comes the other way
    let acknowledgement = with_checksums(pieces[0][..40].to_vec());
    group.throughput(Throughput::Elements(1));
    group.bench_function("a packet without data", |bencher| {
        bencher.iter(|| coalescer.push(black_box(&acknowledgement), &mut emit));
    });
}

fn packets(header: &OffloadHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let emit = &mut |piece: &[u8]| packets.push(piece.to_vec());
    offload::split(header, packet, &mut Vec::new(), emit).unwrap();
    packets
}

/// The same packets of several flows, one of each in turn.
fn flows(pieces: &[Vec<u8>], count: u8) -> Vec<Vec<u8>> {
    let of_flow = |piece: &Vec<u8>, flow| {
        let mut piece = piece.clone();
        piece[21] = flow;
        with_checksums(piece)
    };
    pieces.iter().flat_map(|piece| (0..count).map(|flow| of_flow(piece, flow))).collect()
}

fn with_checksums(mut packet: Vec<u8>) -> Vec<u8> {
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    for at in [10, 36] {
        packet[at..at + 2].fill(0);
    }
    let ip = Sum::ZERO.bytes(&packet[..20]).finish();
    let tcp = Sum::ZERO.bytes(&packet[12..20]).word(6).word(len - 20).bytes(&packet[20..]).finish();
    packet[10..12].copy_from_slice(&ip.to_be_bytes());
    packet[36..38].copy_from_slice(&tcp.to_be_bytes());
    packet
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
    let pseudo = Sum::ZERO.bytes(&packet[12..20]).word(6).word(65_515).fold();
    packet[36..38].copy_from_slice(&pseudo.to_be_bytes());
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

criterion_group!(benches, checksum, check, split, segments, coalesce);
criterion_main!(benches);

//! A packet with its offload header, as a peer sends it: what passes the check goes to the kernel.

use cipherwall_packet::{
    ip,
    offload::{self, Coalescer, HEADER_LEN, MAX_TCP_SEGMENTS, OffloadHeader, Segments},
};

/// Offload header, packet.
pub(crate) fn run(data: &[u8]) {
    let Some((header, packet)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let header = OffloadHeader::parse(header);
    assert_eq!(header.encode()[..], data[..HEADER_LEN]);
    parse(packet);
    split(&header, packet);
    // what our own kernel says is brought into form first
    split(&header.from_kernel(packet.len(), |at| packet.get(at).copied()), packet);
    cut_and_join(&header, packet);
}

fn parse(packet: &[u8]) {
    let addresses = ip::addresses(packet);
    if let Ok(parsed) = ip::parse(packet) {
        assert_eq!(addresses, Ok((parsed.source, parsed.destination)));
        assert!(parsed.transport_offset <= packet.len());
    }
}

/// Whatever passes the check is cut into packets that are sound, and nothing else is.
fn split(header: &OffloadHeader, packet: &[u8]) {
    let checked = offload::check(header, packet);
    let mut pieces = 0;
    let mut bytes = 0;
    let mut scratch = Vec::new();
    let done = offload::split(header, packet, &mut scratch, &mut |piece| {
        assert_eq!(ip::addresses(piece), ip::addresses(packet));
        assert!(piece.len() <= packet.len());
        pieces += 1;
        bytes += piece.len();
    });
    assert_eq!(done, checked);
    assert!(pieces <= MAX_TCP_SEGMENTS);
    if checked.is_ok() {
        // each piece but the first repeats the headers
        let repeated = usize::from(header.header_len) * (pieces - 1);
        assert_eq!(bytes, packet.len() + repeated);
    } else {
        assert_eq!(pieces, 0);
    }
}

/// Pieces are within their limit, and none is lost when they are put together.
fn cut_and_join(header: &OffloadHeader, packet: &[u8]) {
    const LIMIT: usize = 80;
    let Ok(mut segments) = Segments::new(header, packet, LIMIT) else { return };
    let (mut given, mut got) = (0, 0);
    let mut count = |header: &OffloadHeader, packet: &[u8]| {
        offload::split(header, packet, &mut Vec::new(), &mut |_| got += 1).expect("a right header");
    };
    let mut coalescer = Coalescer::new(true, true);
    let mut piece = [0; LIMIT];
    while let Some(len) = segments.next_into(&mut piece) {
        coalescer.push(&piece[..len], &mut count);
        given += 1;
    }
    coalescer.flush(&mut count);
    assert_eq!(given, got);
}

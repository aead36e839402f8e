//! Segmentation and checksum completion in software.

use super::check::{self, Layout, OffloadError, Transport};
use super::{MAX_TCP_SEGMENTS, OffloadHeader, TCP_CSUM_OFFSET};
use crate::checksum::Sum;
use crate::ip::{self, Version};

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_PSH: u8 = 0x08;
const TCP_URG: u8 = 0x20;
const TCP_CWR: u8 = 0x80;
/// Options that sign the whole segment (RFC 2385, RFC 5925).
const TCP_MD5: u8 = 19;
const TCP_AUTHENTICATION: u8 = 29;

/// The complete packets that one packet of a TUN device stands for, in order: the pieces of a
/// segmented packet with their own lengths, sequence numbers, IPv4 identifications, flags and
/// checksums, or the packet itself with its checksum completed.
#[derive(Debug)]
pub struct Segments<'a> {
    /// IP and transport header of the whole packet.
    headers: &'a [u8],
    /// What has not been given out yet.
    payload: &'a [u8],
    /// What is to be done; `None`: the packet is complete.
    work: Option<Work>,
    /// Payload bytes of each piece but the last.
    piece_len: usize,
    /// Payload bytes given out.
    passed: usize,
    /// Pieces given out.
    index: usize,
    done: bool,
}

#[derive(Debug)]
struct Work {
    layout: Layout,
    /// Whether the packet is cut.
    cuts: bool,
    /// Over the IPv4 header, without what differs between pieces.
    ip_sum: Sum,
    /// Over pseudo and transport header, without what differs between pieces.
    transport_sum: Sum,
}

impl<'a> Segments<'a> {
    /// Checks `header` against `packet`, and that no piece will be longer than `limit` bytes. For
    /// that TCP packets are cut where TCP allows it: a segmented one into smaller pieces than the
    /// header says, a plain one into several. [`OffloadError::TooLong`] if there is no way.
    ///
    /// Not cut are packets with SYN, RST or URG, with options that sign the packet, and those whose
    /// checksum is wrong, because pieces would have right ones.
    pub fn new(
        header: &OffloadHeader,
        packet: &'a [u8],
        limit: usize,
    ) -> Result<Self, OffloadError> {
        let too_long = OffloadError::TooLong { len: packet.len(), limit };
        let (layout, partial) = match check::layout(header, packet)? {
            Some(layout) => {
                let at = layout.csum_at;
                (layout, u16::from_be_bytes([packet[at], packet[at + 1]]))
            }
            None if packet.len() <= limit => return Ok(Self::whole(packet)),
            None => complete_tcp(packet).ok_or(too_long)?,
        };
        let (headers, payload) = packet.split_at(layout.payload_offset);
        let asked = layout.piece_len.unwrap_or(payload.len());
        let fits = headers.len() + asked <= limit;
        let piece_len =
            if fits { asked } else { smaller(&layout, headers, payload, limit).ok_or(too_long)? };
        let cuts = layout.piece_len.is_some() || !fits;
        let (ip_sum, transport_sum) = constant_sums(&layout, headers, partial, packet.len());
        let work = Some(Work { layout, cuts, ip_sum, transport_sum });
        Ok(Self { headers, payload, work, piece_len, passed: 0, index: 0, done: false })
    }

    fn whole(packet: &'a [u8]) -> Self {
        Self {
            headers: packet,
            payload: &[],
            work: None,
            piece_len: 0,
            passed: 0,
            index: 0,
            done: false,
        }
    }

    /// The length of the next packet in bytes. All but the last have the same.
    pub fn next_len(&self) -> Option<usize> {
        (!self.done).then(|| self.headers.len() + self.payload.len().min(self.piece_len))
    }

    /// Writes the next packet to the beginning of `out`, and returns its length.
    ///
    /// # Panics
    /// If `out` is shorter than [`Segments::next_len`].
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let out = &mut out[..self.next_len()?];
        let (header, payload) = out.split_at_mut(self.headers.len());
        let (piece, rest) = self.payload.split_at(payload.len());
        header.copy_from_slice(self.headers);
        payload.copy_from_slice(piece);
        self.done = rest.is_empty();
        if let Some(work) = &self.work {
            work.complete(header, payload, self.index, self.passed, self.done);
        }
        (self.payload, self.passed, self.index) = (rest, self.passed + piece.len(), self.index + 1);
        Some(out.len())
    }
}

/// Checks `header` against `packet` and passes the complete packets that it stands for to `emit`;
/// see [`Segments`].
///
/// `scratch` holds the piece at hand; its contents do not matter, giving the same one again saves
/// the allocation. On an error nothing has been emitted.
pub fn split(
    header: &OffloadHeader,
    packet: &[u8],
    scratch: &mut Vec<u8>,
    emit: &mut dyn FnMut(&[u8]),
) -> Result<(), OffloadError> {
    let mut segments = Segments::new(header, packet, usize::MAX)?;
    if segments.work.is_none() {
        emit(packet);
        return Ok(());
    }
    let longest = segments.next_len().unwrap_or_default();
    scratch.resize(longest, 0);
    while let Some(len) = segments.next_into(scratch) {
        emit(&scratch[..len]);
    }
    Ok(())
}

impl Work {
    /// Makes a packet of the headers of the whole and a piece of the payload.
    fn complete(
        &self,
        headers: &mut [u8],
        payload: &[u8],
        index: usize,
        passed: usize,
        last: bool,
    ) {
        let Layout { transport, transport_offset, .. } = self.layout;
        let transport_len = low16(headers.len() - transport_offset + payload.len());
        let mut sum = self.transport_sum.word(transport_len).bytes(payload);
        if self.cuts {
            self.fix_ip(headers, payload.len(), index);
        }
        let segment = &mut headers[transport_offset..];
        match transport {
            Transport::Tcp => {
                if self.cuts {
                    fix_tcp(segment, index, passed, last);
                }
                sum = sum.bytes(&segment[4..8]).bytes(&segment[12..14]);
            }
            Transport::Udp => {
                put(segment, 4, transport_len);
                sum = sum.word(transport_len);
            }
        }
        // To UDP, 0 says that there is no checksum; 0xffff is equal in ones' complement.
        let checksum = match sum.finish() {
            0 => 0xffff,
            other => other,
        };
        put(headers, self.layout.csum_at, checksum);
    }

    fn fix_ip(&self, headers: &mut [u8], payload_len: usize, index: usize) {
        let len = headers.len() + payload_len;
        match self.layout.version {
            Version::V4 => {
                let (len, id) = (low16(len), read(headers, 4).wrapping_add(low16(index)));
                put(headers, 2, len);
                put(headers, 4, id);
                put(headers, 10, self.ip_sum.word(len).word(id).finish());
            }
            Version::V6 => put(headers, 4, low16(len - 40)),
        }
    }
}

fn fix_tcp(segment: &mut [u8], index: usize, passed: usize, last: bool) {
    let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
    // At most 64 KiB from the first byte.
    segment[4..8].copy_from_slice(&sequence.wrapping_add(passed as u32).to_be_bytes());
    if index != 0 {
        segment[13] &= !TCP_CWR;
    }
    if !last {
        segment[13] &= !(TCP_FIN | TCP_PSH);
    }
}

/// Sums over those parts of IPv4 and transport header that all pieces have in common.
///
/// `partial`, the sum of the pseudo header, is used as it is, without the length: with a routing
/// header, the addresses in the packet are not the ones that count.
fn constant_sums(layout: &Layout, headers: &[u8], partial: u16, packet_len: usize) -> (Sum, Sum) {
    let Layout { transport_offset, .. } = *layout;
    let ip_sum = match layout.version {
        // All but total length, identification and checksum.
        Version::V4 => Sum::ZERO
            .bytes(&headers[..2])
            .bytes(&headers[6..10])
            .bytes(&headers[12..transport_offset]),
        Version::V6 => Sum::ZERO,
    };
    let segment = &headers[transport_offset..];
    let pseudo = Sum::ZERO.word(partial).word(!low16(packet_len - transport_offset));
    let transport_sum = match layout.transport {
        // All but sequence number, data offset with flags, and checksum.
        Transport::Tcp => pseudo
            .bytes(&segment[..4])
            .bytes(&segment[8..12])
            .bytes(&segment[14..16])
            .bytes(&segment[18..]),
        // The ports.
        Transport::Udp => pseudo.bytes(&segment[..4]),
    };
    (ip_sum, transport_sum)
}

/// Payload bytes of a piece so that it is no longer than `limit`, if the packet can be cut so.
fn smaller(layout: &Layout, headers: &[u8], payload: &[u8], limit: usize) -> Option<usize> {
    let piece_len = limit.checked_sub(headers.len()).filter(|len| *len > 0)?;
    let segment = &headers[layout.transport_offset..];
    let can_be_cut = layout.transport == Transport::Tcp
        && segment[13] & (TCP_SYN | TCP_RST | TCP_URG) == 0
        && !is_signed(&segment[20..])
        && payload.len().div_ceil(piece_len) <= MAX_TCP_SEGMENTS;
    can_be_cut.then_some(piece_len)
}

/// The layout of a complete TCP packet and the sum of its pseudo header, if the checksum is right.
fn complete_tcp(packet: &[u8]) -> Option<(Layout, u16)> {
    let parsed = ip::parse(packet).ok()?;
    if parsed.fragment || parsed.protocol != ip::TCP {
        return None;
    }
    let segment = &packet[parsed.transport_offset..];
    let header_len = check::tcp_header_len(segment).ok()?;
    let len = low16(segment.len());
    let pseudo = Sum::ZERO.pseudo_header(parsed.source, parsed.destination, ip::TCP, len);
    if pseudo.bytes(segment).finish() != 0 {
        return None;
    }
    let layout = Layout {
        version: parsed.version,
        transport: Transport::Tcp,
        transport_offset: parsed.transport_offset,
        csum_at: parsed.transport_offset + usize::from(TCP_CSUM_OFFSET),
        payload_offset: parsed.transport_offset + header_len,
        piece_len: None,
    };
    Some((layout, pseudo.fold()))
}

/// Whether TCP options sign the segment, or cannot be read.
fn is_signed(mut options: &[u8]) -> bool {
    loop {
        options = match *options {
            [] | [0, ..] => return false,
            [1, ref rest @ ..] => rest,
            [TCP_MD5 | TCP_AUTHENTICATION, ..] => return true,
            [_, len, ..] if len >= 2 && usize::from(len) <= options.len() => {
                &options[usize::from(len)..]
            }
            _ => return true,
        };
    }
}

fn read(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Lengths within a checked packet are below 65,536.
fn low16(len: usize) -> u16 {
    len as u16
}

#[cfg(test)]
mod tests;

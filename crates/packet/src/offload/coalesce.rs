//! Consecutive packets of a flow put together again, for one write to a TUN device (GRO).
//!
//! Whoever receives single packets uses it ahead of `tun::Device::write`: most of what a write
//! costs the kernel, it costs once for each write, whether of 1,400 bytes or of 64 KiB.

mod candidate;
mod group;

#[cfg(test)]
mod tests;

use super::OffloadHeader;
use candidate::{Candidate, Verdict};
use group::Group;

/// Flows that are put together at the same time; with a packet of one more, the oldest is emitted.
const GROUPS: usize = 16;

/// Puts consecutive packets of a flow together: TCP segments with data in order, and UDP datagrams
/// of one length, the last of which may be shorter.
///
/// What it emits stands for exactly the packets that it was given: [`split`](super::split) makes
/// the same bytes of it again. The only exception is the identification of IPv4 packets with DF,
/// which means nothing (RFC 6864). A packet with a wrong checksum, or one that does not go with the
/// others for whatever reason, is emitted as it is. Nothing is dropped, and each flow stays in
/// order; packets of different flows may overtake each other until [`Coalescer::flush`].
///
/// Bounded: 16 packets of up to 64 KiB, whose buffers are used again and again.
#[derive(Debug)]
pub struct Coalescer {
    tcp: bool,
    udp: bool,
    /// The first `active` in the order of their first packets, then unused buffers.
    groups: Vec<Group>,
    active: usize,
}

impl Coalescer {
    /// `tcp`, `udp`: whether the TUN device takes such packets; all others pass.
    pub fn new(tcp: bool, udp: bool) -> Self {
        Self { tcp, udp, groups: Vec::with_capacity(GROUPS), active: 0 }
    }

    /// Takes one complete packet. What is ready goes to `emit`, with the header that
    /// [`check`](super::check) asks for; the rest stays until more is pushed or
    /// [`Coalescer::flush`] is called, which must be done when nothing more is there for the
    /// moment.
    pub fn push(&mut self, packet: &[u8], emit: &mut impl FnMut(&OffloadHeader, &[u8])) {
        match candidate::judge(packet, self.tcp, self.udp) {
            Verdict::Unrelated => emit(&OffloadHeader::NONE, packet),
            Verdict::Odd => {
                self.flush(emit);
                emit(&OffloadHeader::NONE, packet);
            }
            Verdict::Alone(flow) => {
                if let Some(index) = self.find(flow, packet) {
                    self.emit_group(index, emit);
                }
                emit(&OffloadHeader::NONE, packet);
            }
            Verdict::Candidate(candidate) => self.take(&candidate, emit),
        }
    }

    /// Emits all that is left.
    pub fn flush(&mut self, emit: &mut impl FnMut(&OffloadHeader, &[u8])) {
        for group in &mut self.groups[..self.active] {
            group.emit(emit);
        }
        self.active = 0;
    }

    fn take(&mut self, candidate: &Candidate<'_>, emit: &mut impl FnMut(&OffloadHeader, &[u8])) {
        if let Some(index) = self.find(candidate.flow, candidate.packet) {
            let group = &mut self.groups[index];
            if group.append(candidate) {
                if group.is_full() || candidate.is_last {
                    self.emit_group(index, emit);
                }
                return;
            }
            self.emit_group(index, emit);
        }
        if candidate.is_last {
            return emit(&OffloadHeader::NONE, candidate.packet);
        }
        if self.active == GROUPS {
            self.emit_group(0, emit);
        }
        if self.active == self.groups.len() {
            self.groups.push(Group::new());
        }
        self.groups[self.active].begin(candidate);
        self.active += 1;
    }

    fn find(&self, flow: u64, packet: &[u8]) -> Option<usize> {
        self.groups[..self.active].iter().position(|group| group.is_of(flow, packet))
    }

    fn emit_group(&mut self, index: usize, emit: &mut impl FnMut(&OffloadHeader, &[u8])) {
        self.groups[index].emit(emit);
        // the buffer just used is the next one to be used
        self.groups[index..self.active].rotate_left(1);
        self.active -= 1;
    }
}

//! The client's keepalive: an ICMP echo to the gateway's inside address, which any gateway answers.
//! It keeps the NATs on the way from forgetting, and tells the gateway where its client is.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use cipherwall_packet::checksum::Sum;

use super::Inside;

/// So long without anything sent, and an echo is due. Many NATs forget UDP after 30 s.
pub const IDLE: Duration = Duration::from_secs(25);

/// The same as long as nothing has come from the gateway: it may not be there yet.
pub const UNANSWERED: Duration = Duration::from_secs(2);

const IP_HEADER_LEN: usize = 20;
const ICMP_LEN: usize = 8;
const ECHO_LEN: usize = IP_HEADER_LEN + ICMP_LEN;

const ECHO_REQUEST: u8 = 8;
const ICMP: u8 = 1;
const TTL: u8 = 64;

/// When echoes are due, and what they look like.
#[derive(Debug)]
pub struct Keepalive {
    inside: Inside,
    due: Instant,
    sequence: u16,
}

impl Keepalive {
    /// The first echo is due at once.
    pub fn new(inside: Inside, now: Instant) -> Self {
        Self { inside, due: now, sequence: 0 }
    }

    /// When the next echo is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Something was sent; `heard`: and something came at some time.
    pub fn sent(&mut self, now: Instant, heard: bool) {
        self.due = now + if heard { IDLE } else { UNANSWERED };
    }

    /// The next echo, an IP packet.
    pub fn echo(&mut self) -> [u8; ECHO_LEN] {
        self.sequence = self.sequence.wrapping_add(1);
        echo(self.inside.client, self.inside.gateway, self.sequence)
    }
}

/// An echo request without data (RFC 791, RFC 792).
fn echo(from: Ipv4Addr, to: Ipv4Addr, sequence: u16) -> [u8; ECHO_LEN] {
    let mut packet = [0; ECHO_LEN];
    let (header, icmp) = packet.split_at_mut(IP_HEADER_LEN);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(ECHO_LEN as u16).to_be_bytes());
    header[8] = TTL;
    header[9] = ICMP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..].copy_from_slice(&to.octets());
    let sum = Sum::ZERO.bytes(header).finish();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    icmp[0] = ECHO_REQUEST;
    icmp[6..].copy_from_slice(&sequence.to_be_bytes());
    let sum = Sum::ZERO.bytes(icmp).finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use cipherwall_packet::ip;

    use super::*;

    #[test]
    fn it_is_an_echo_request_from_client_to_gateway() {
        let inside = Inside { gateway: [10, 8, 0, 1].into(), client: [10, 8, 0, 2].into() };
        let now = Instant::now();
        let mut keepalive = Keepalive::new(inside, now);
        assert_eq!(keepalive.due(), now);
        let packet = keepalive.echo();
        keepalive.sent(now, false);
        assert_eq!(keepalive.due(), now + Duration::from_secs(2));
        keepalive.sent(now, true);
        assert_eq!(keepalive.due(), now + Duration::from_secs(25));
        let header = ip::parse(&packet).unwrap();
        assert_eq!(header.source, inside.client);
        assert_eq!(header.destination, inside.gateway);
        assert_eq!(packet[20..22], [8, 0]);
        for part in [&packet[..20], &packet[20..]] {
            assert_eq!(Sum::ZERO.bytes(part).fold(), 0xffff, "the checksum");
        }
        assert_ne!(keepalive.echo(), packet);
    }
}

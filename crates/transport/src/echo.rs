//! ICMP echo (RFC 792, RFC 4443): whether a machine is there at all, for `doctor` (C8).

use std::{io, net::IpAddr};

use crate::socket::SocketFactory;

const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;
const HEADER_LEN: usize = 8;
const TOKEN_LEN: usize = 16;
/// Longer than any answer: an IPv4 header with options, and what was sent.
const ANSWER_MAX: usize = 128;

/// Asks `peer` once for an answer, and waits for it. The caller sets a time limit. Needs the right to
/// open raw sockets.
///
/// # Errors
/// No socket, or no way there.
pub async fn echo(sockets: &SocketFactory, peer: IpAddr) -> io::Result<()> {
    let socket = sockets.icmp_to(peer)?;
    let mut token = [0; TOKEN_LEN];
    getrandom::fill(&mut token).map_err(io::Error::other)?;
    socket.send(&request(peer, &token)).await?;
    let mut answer = [0; ANSWER_MAX];
    loop {
        let len = socket.recv(&mut answer).await?;
        if is_reply(peer, &answer[..len], &token) {
            return Ok(());
        }
    }
}

/// With the token as identifier, sequence number and data. The kernel adds the checksum of ICMPv6.
fn request(peer: IpAddr, token: &[u8; TOKEN_LEN]) -> Vec<u8> {
    let kind = if peer.is_ipv4() { REQUEST } else { REQUEST_V6 };
    let mut request = [&[kind, 0, 0, 0, token[0], token[1], 0, 1], &token[..]].concat();
    if peer.is_ipv4() {
        let words =
            request.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum = words.sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        request[2..4].copy_from_slice(&(!folded as u16).to_be_bytes());
    }
    request
}

/// A raw socket gets everything of ICMP that comes from this peer, for IPv4 with the header of IP.
fn is_reply(peer: IpAddr, packet: &[u8], token: &[u8; TOKEN_LEN]) -> bool {
    let (message, reply) = match peer {
        IpAddr::V4(_) => {
            let header_len = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
            (packet.get(header_len..), REPLY)
        }
        IpAddr::V6(_) => (Some(packet), REPLY_V6),
    };
    message.is_some_and(|message| {
        message.first() == Some(&reply) && message.get(HEADER_LEN..) == Some(token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn a_request_is_as_the_standard_wants_it() {
        let token = [0xab; TOKEN_LEN];
        let request_v4 = request(V4, &token);
        assert_eq!(request_v4[..2], [8, 0]);
        let words = request_v4.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum = words.sum::<u32>();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the checksum");
        assert_eq!(request(V6, &token)[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let token = [7; TOKEN_LEN];
        let mut answer = request(V4, &token);
        let packet = |message: &[u8]| [&[0x45; 20], message].concat();
        assert!(!is_reply(V4, &packet(&answer), &token), "the request itself, on the loopback");
        answer[0] = REPLY;
        assert!(is_reply(V4, &packet(&answer), &token));
        assert!(!is_reply(V4, &packet(&answer), &[8; TOKEN_LEN]), "another one's");
        assert!(!is_reply(V4, &packet(&answer[..20]), &token), "cut");
        assert!(!is_reply(V4, &[], &token));
        let mut answer = request(V6, &token);
        assert!(!is_reply(V6, &answer, &token));
        answer[0] = REPLY_V6;
        assert!(is_reply(V6, &answer, &token));
    }
}

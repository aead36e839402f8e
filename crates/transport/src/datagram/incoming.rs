//! The receiving half of a channel.

use std::{net::IpAddr, net::SocketAddr, sync::Arc, time::Instant};

use cipherwall_proto::datagram::{self, Frame, Opened};

use super::Channel;
use crate::udp::UdpSocket;

/// Where some datagrams have come from, and to.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// When.
    pub now: Instant,
    /// Who sent them.
    pub from: SocketAddr,
    /// The own address, where the system tells.
    pub to: Option<IpAddr>,
    /// The socket.
    pub socket: &'a Arc<UdpSocket>,
}

/// What datagrams of one arrival say.
pub(super) struct Incoming<'a> {
    channel: &'a Channel,
    arrival: Arrival<'a>,
    /// Authentic datagrams that the conversation has not been told of: bytes, and whether one of
    /// them was the newest.
    heard: Option<(usize, bool)>,
    /// Bytes of packets.
    bytes: u64,
    /// The link has something to do.
    has_news: bool,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(channel: &'a Channel, arrival: Arrival<'a>) -> Self {
        Self { channel, arrival, heard: None, bytes: 0, has_news: false }
    }

    /// Takes an authentic datagram.
    pub(super) fn take(&mut self, opened: &Opened<'_>, on_packet: &mut impl FnMut(&[u8])) {
        let (bytes, newest) = self.heard.unwrap_or_default();
        self.heard = Some((bytes + opened.len, newest | opened.newest));
        for frame in datagram::frames(opened.plaintext) {
            match frame {
                Frame::Packet(packet) => {
                    self.bytes += packet.len() as u64;
                    on_packet(packet);
                }
                Frame::Skipped => {}
                Frame::Ping(_)
                | Frame::Pong(_)
                | Frame::PathChallenge(_)
                | Frame::PathResponse(_) => {
                    self.tell();
                    let Arrival { now, from, .. } = self.arrival;
                    self.channel.talk().conversation.handle_frame(now, from, &frame);
                    self.has_news = true;
                }
            }
        }
    }

    /// Tells what has come to those who have to know.
    pub(super) fn finish(mut self) {
        self.tell();
        self.channel.count_received(self.bytes);
        if self.has_news {
            self.channel.wake_link();
        }
    }

    fn tell(&mut self) {
        let Some((bytes, newest)) = self.heard.take() else { return };
        let Arrival { now, from, to, socket } = self.arrival;
        let mut talk = self.channel.talk();
        talk.homes.learn(from, socket, to);
        let before = talk.conversation.path();
        talk.conversation.handle_received(now, from, bytes, newest);
        // while the path is down, any sign of life is a reason to try
        self.has_news |= !before.up || talk.conversation.path() != before;
    }
}

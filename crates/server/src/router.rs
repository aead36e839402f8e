//! From the TUN device to the sessions.
//!
//! One task reads the device. It guesses that the next packet goes where the last one went and
//! reads it straight into the batch of that session's stream; only a packet for somebody else is
//! copied. Packets that go in datagrams are read to a buffer of their own, since they are cut.

use std::{
    io::{self, IoSliceMut},
    net::IpAddr,
    sync::Arc,
};

use cipherwall_packet::offload;
use cipherwall_proto::record::Batch;
use cipherwall_transport::{
    datagram::{Channel, Filler},
    tunnel::Taken,
};
use cipherwall_tun::{Device, MAX_PACKET_LEN};

use crate::{
    metrics::Counters,
    sessions::{Session, Sessions},
};

/// Bytes of the scratch batch after which others have their turn.
const SCRATCH_ENOUGH: usize = 64 * 1024;
/// Packets after which the sessions they went to are flushed, though more may be waiting.
const BURST: usize = 256;
/// Bursts after which others have their turn.
const BURSTS: usize = 8;

/// Moves packets from the TUN device to the sessions.
pub struct Router {
    tun: Arc<Device>,
    sessions: Arc<Sessions>,
    counters: Arc<Counters>,
    /// Where the last packet went.
    home: Option<Arc<Session>>,
    /// Where packets are read to while there is no such session, or it has no room.
    scratch: Box<Batch>,
    /// Where packets are read to that go in datagrams: offload header and packet.
    packet: Box<[u8]>,
    /// Who was given packets since the last flush.
    touched: Vec<Arc<Session>>,
}

/// Why reading has paused.
#[derive(PartialEq)]
enum Pause {
    /// The device has nothing more.
    Empty,
    /// Others must have their turn, or the guess was wrong.
    Enough,
}

impl Router {
    /// For this device and these sessions.
    pub fn new(tun: Arc<Device>, sessions: Arc<Sessions>, counters: Arc<Counters>) -> Self {
        let packet = vec![0; offload::HEADER_LEN + MAX_PACKET_LEN].into();
        let (scratch, touched) = (Box::default(), Vec::new());
        Self { tun, sessions, counters, home: None, scratch, packet, touched }
    }

    /// Runs until the device is gone.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            self.tun.readable().await?;
            let mut bursts = 0;
            while self.burst()? == Pause::Enough {
                bursts += 1;
                if bursts % BURSTS == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Reads some packets and sends them.
    fn burst(&mut self) -> io::Result<Pause> {
        let home = self.home.take();
        // flushed by its channel
        let mut is_flushed = false;
        let read = match &home {
            Some(session) => match session.sender.datagrams() {
                Some(channel) => {
                    let read = self.read_for_datagrams(channel, session);
                    is_flushed = read.is_some();
                    read
                }
                None => {
                    session.sender.fill(|batch, enough| self.read(batch, enough, Some(session)))
                }
            },
            None => None,
        };
        let pause = match read {
            Some(pause) => pause?,
            None => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let pause = self.read(&mut scratch, SCRATCH_ENOUGH, None);
                scratch.clear();
                self.scratch = scratch;
                pause?
            }
        };
        if self.home.is_none() {
            self.home = home.clone();
        }
        self.touched.extend(home.filter(|_| !is_flushed));
        for session in self.touched.drain(..) {
            if let Some(channel) = session.sender.datagrams() {
                channel.flush(&session.sender);
            }
            if let Err(error) = session.sender.flush() {
                // the session's own task notices as well, and ends it
                tracing::debug!(user = session.user, %error, "sending to a client failed");
            }
        }
        Ok(pause)
    }

    /// Reads packets into `batch`, which belongs to `home`. Leaves in `self.home` the session
    /// that another packet was for.
    fn read(
        &mut self,
        batch: &mut Batch,
        enough: usize,
        home: Option<&Arc<Session>>,
    ) -> io::Result<Pause> {
        for _ in 0..BURST {
            if !batch.has_room() || batch.len() >= enough {
                return Ok(Pause::Enough);
            }
            let read = match self.tun.try_read(&mut batch.packet_slices()) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Pause::Empty);
                }
                Err(error) => return Err(error),
            };
            let Some(destination) = destination_of(batch, read) else { continue };
            // a home that can be filled is still connected: no need to look it up
            if let Some(home) = home.filter(|home| home.owns(destination)) {
                home.sent.add(read as u64);
                self.counters.sent.add(read as u64);
                batch.commit_packet(read);
                continue;
            }
            let Some(session) = self.sessions.find(destination) else {
                self.counters.no_session.add(1);
                continue;
            };
            session.sent.add(read as u64);
            self.counters.sent.add(read as u64);
            let taken = match session.sender.datagrams() {
                Some(channel) => {
                    channel.take(&session.sender, &batch.read_packet(read));
                    Taken::AtOnce
                }
                None => session.sender.take_packet(batch, read),
            };
            self.touched.push(session.clone());
            self.home = Some(session);
            if home.is_none() && taken == Taken::AtOnce {
                // the next one need not be copied
                return Ok(Pause::Enough);
            }
        }
        Ok(Pause::Enough)
    }

    /// Reads packets that go in datagrams to `home`; `None` if they do no more.
    fn read_for_datagrams(
        &mut self,
        channel: &Channel,
        home: &Arc<Session>,
    ) -> Option<io::Result<Pause>> {
        let mut packet = std::mem::take(&mut self.packet);
        let pause = channel.fill(&home.sender, |filler| self.cut(filler, &mut packet, home));
        self.packet = packet;
        pause
    }

    /// Gives packets to `filler`, which belongs to `home`. Leaves in `self.home` the session that
    /// another packet was for.
    fn cut(
        &mut self,
        filler: &mut Filler<'_>,
        buffer: &mut [u8],
        home: &Arc<Session>,
    ) -> io::Result<Pause> {
        for _ in 0..BURST {
            let read = match self.tun.try_read(&mut [IoSliceMut::new(buffer)]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Pause::Empty);
                }
                Err(error) => return Err(error),
            };
            let packet = &buffer[..read];
            let Some(destination) = destination(&packet[offload::HEADER_LEN..]) else { continue };
            let is_for_home = home.owns(destination);
            let session = if is_for_home { None } else { self.sessions.find(destination) };
            if !is_for_home && session.is_none() {
                self.counters.no_session.add(1);
                continue;
            }
            session.as_ref().unwrap_or(home).sent.add(read as u64);
            self.counters.sent.add(read as u64);
            let Some(session) = session else {
                filler.push(packet);
                continue;
            };
            match session.sender.datagrams() {
                Some(channel) => channel.take(&session.sender, packet),
                None => drop(session.sender.take(packet)),
            }
            self.touched.push(session.clone());
            self.home = Some(session);
            // the next one need not be copied
            return Ok(Pause::Enough);
        }
        Ok(Pause::Enough)
    }
}

/// Whom the packet is for that was just read into `batch`.
fn destination_of(batch: &Batch, read: usize) -> Option<IpAddr> {
    let (head, length) = batch.packet_head(read);
    destination(&head[..length])
}

/// The destination of a packet that comes from our own kernel.
fn destination(head: &[u8]) -> Option<IpAddr> {
    match head.first()? >> 4 {
        4 => Some(IpAddr::from(*head.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*head.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_read_from_either_version() {
        let mut v4 = [0; 40];
        v4[0] = 0x45;
        v4[16..20].copy_from_slice(&[10, 8, 0, 7]);
        assert_eq!(destination(&v4), Some("10.8.0.7".parse().unwrap()));
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        v6[24] = 0xfd;
        v6[39] = 7;
        assert_eq!(destination(&v6), Some("fd00::7".parse().unwrap()));
        assert_eq!(destination(&v6[..39]), None);
        assert_eq!(destination(&[]), None);
    }
}

//! Where received datagrams are put.

use std::{
    io::IoSliceMut,
    net::{IpAddr, SocketAddr},
};

use quinn_udp::RecvMeta;

/// Messages that are received at once, at most; each holds up to 64 datagrams.
const MESSAGES: usize = 16;
/// As long as the kernel makes a message of several datagrams.
const MESSAGE_MAX: usize = 65_536;

/// Buffers for one call of [`UdpSocket::try_receive`](super::UdpSocket::try_receive), to be used
/// again and again. 1 MiB, of which the kernel gives only what is ever written to.
pub struct Received {
    buffer: Box<[u8]>,
    messages: [RecvMeta; MESSAGES],
    count: usize,
}

/// A datagram that was received.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Who sent it. An IPv4 address is one even on a socket for both versions.
    pub from: SocketAddr,
    /// The own address that it was sent to, where the system tells: what an answer has to come from.
    pub to: Option<IpAddr>,
    /// What is in it, at least one byte.
    pub bytes: &'a mut [u8],
}

impl Received {
    /// Empty buffers.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; MESSAGES * MESSAGE_MAX].into(),
            messages: [RecvMeta::default(); MESSAGES],
            count: 0,
        }
    }

    /// What the last call has received, in order. Empty datagrams are left out.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let messages = self.buffer.chunks_exact_mut(MESSAGE_MAX).zip(&self.messages);
        messages.take(self.count).flat_map(|(buffer, meta)| {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let to = meta.dst_ip.map(|address| address.to_canonical());
            let message = &mut buffer[..meta.len.min(MESSAGE_MAX)];
            let datagrams = message.chunks_mut(meta.stride.max(1));
            datagrams.map(move |bytes| Datagram { from, to, bytes })
        })
    }

    /// Lets `receive` fill the buffers; it says how many.
    pub(super) fn fill<E>(
        &mut self,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.count = 0;
        let mut buffers = self.buffer.chunks_exact_mut(MESSAGE_MAX);
        let mut slices: [IoSliceMut<'_>; MESSAGES] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        self.count = receive(&mut slices, &mut self.messages)?;
        Ok(())
    }
}

impl Default for Received {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received").field("messages", &self.count).finish_non_exhaustive()
    }
}

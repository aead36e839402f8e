//! Datagrams on their way out.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::UdpSocket;
use super::socket::{BYTES_MAX, SEGMENTS_MAX};

/// Datagrams of one length, the last of which may be shorter, laid out behind one another for one
/// system call. They are written and sealed where they stand:
///
/// 1. [`OutBatch::room`] gives as many bytes as the whole datagram will have, so that the packet
///    can be put between what comes before it (masked header, HMAC, IV, frame header) and behind
///    it (tag); [`OutBatch::commit`] adds the datagram.
/// 2. Whoever seals several at once, takes them from [`OutBatch::take_unsealed`].
/// 3. [`OutBatch::send`], again after `WouldBlock` as soon as the socket is writable.
pub struct OutBatch {
    buffer: Box<[u8]>,
    /// Bytes of datagrams.
    len: usize,
    /// The length of all datagrams but the last.
    datagram_len: usize,
    /// So many bytes have been handed out to be sealed.
    taken: usize,
    /// So many bytes have been sent.
    sent: usize,
}

impl OutBatch {
    /// An empty one.
    pub fn new() -> Self {
        Self { buffer: vec![0; BYTES_MAX].into(), len: 0, datagram_len: 0, taken: 0, sent: 0 }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of datagrams in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Room for one more datagram of `len` bytes; what is there is left over from earlier ones.
    /// `None` if it does not go with the others: because it is longer, the last one was shorter,
    /// or there is no space. It then has to wait until these have been sent. An empty batch has
    /// room for 1 to 65,507 bytes.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let first = self.len == 0;
        let fits = len > 0
            && self.sent == 0
            && self.len + len <= BYTES_MAX
            && (first
                || len <= self.datagram_len
                    && self.len.is_multiple_of(self.datagram_len)
                    && self.len / self.datagram_len < SEGMENTS_MAX);
        fits.then(|| &mut self.buffer[self.len..self.len + len])
    }

    /// Adds the `len` bytes for which there was [`OutBatch::room`], now that they are written.
    pub fn commit(&mut self, len: usize) {
        debug_assert!(self.room(len).is_some(), "room for {len} bytes");
        if self.len == 0 {
            self.datagram_len = len;
        }
        self.len += len;
    }

    /// The datagrams that have been added since the last call, to be sealed where they stand.
    pub fn take_unsealed(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let from = std::mem::replace(&mut self.taken, self.len);
        self.buffer[from..self.len].chunks_mut(self.datagram_len.max(1))
    }

    /// The same as one piece, and the length of each datagram but the last.
    pub fn take_unsealed_bytes(&mut self) -> (&mut [u8], usize) {
        let from = std::mem::replace(&mut self.taken, self.len);
        (&mut self.buffer[from..self.len], self.datagram_len.max(1))
    }

    /// The length of the datagrams; the last may be shorter.
    pub fn datagram_len(&self) -> usize {
        self.datagram_len
    }

    /// The datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.buffer[..self.len].chunks(self.datagram_len.max(1))
    }

    /// Sends the datagrams and empties the batch.
    ///
    /// # Errors
    /// `WouldBlock`: the socket is full; what is left stays in the batch, for which there is no
    /// room for more if a part has been sent. After any other error the batch is empty; see
    /// [`UdpSocket::try_send`].
    pub fn send(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<()> {
        let rest = &self.buffer[self.sent..self.len];
        let (sent, result) = socket.send_some(to, from, self.datagram_len, rest);
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.sent += sent;
                Err(error)
            }
            result => {
                self.clear();
                result
            }
        }
    }

    /// Drops what is in it.
    pub fn clear(&mut self) {
        (self.len, self.datagram_len, self.taken, self.sent) = (0, 0, 0, 0);
    }
}

impl Default for OutBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for OutBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { len, datagram_len, sent, .. } = self;
        write!(f, "OutBatch({len} bytes in datagrams of {datagram_len}, {sent} sent)")
    }
}

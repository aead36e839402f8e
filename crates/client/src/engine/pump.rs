//! From the TUN device to the gateway.
//!
//! The device is read at once, also while the socket is full or the connection is lost: packets
//! wait in the sender's queue, which drops some in time, and hands the rest to the next connection.

use std::{
    convert::Infallible,
    io::{self, IoSliceMut},
    sync::Arc,
};

use cipherwall_packet::offload;
use cipherwall_proto::{queue::Queue, record::Batch};
use cipherwall_transport::{datagram::Filler, tunnel::Sender};
use cipherwall_tun::{Device, MAX_PACKET_LEN};
use tokio::task::JoinHandle;

/// Packets that are queued at once, though more may be waiting.
const BURST: usize = 64;

/// The task that moves packets; dropping it stops it.
pub(crate) struct Pump {
    /// Ends with the device.
    task: Option<JoinHandle<io::Error>>,
    sender: Arc<Sender>,
}

impl Pump {
    /// Moves packets from now on.
    pub(crate) fn start(tun: Arc<Device>, sender: Arc<Sender>) -> Self {
        let moving = sender.clone();
        let task = tokio::spawn(async move {
            let Err(error) = run(&tun, &moving).await;
            error
        });
        Self { task: Some(task), sender }
    }

    /// Whether this is what it sends over.
    pub(crate) fn sends_over(&self, sender: &Arc<Sender>) -> bool {
        Arc::ptr_eq(&self.sender, sender)
    }

    /// Stops, and gives what could not be sent, for the next connection.
    pub(crate) fn retire(self) -> Queue {
        self.sender.retire()
    }

    /// Waits until the TUN device is gone: for ever, usually. May be dropped and called again.
    pub(crate) async fn device_lost(&mut self) -> io::Error {
        if let Some(task) = &mut self.task {
            let ended = task.await;
            self.task = None;
            if let Ok(error) = ended {
                return error;
            }
        }
        std::future::pending().await
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(tun: &Device, sender: &Sender) -> io::Result<Infallible> {
    let mut buffers = Buffers {
        scratch: Box::default(),
        packet: vec![0; offload::HEADER_LEN + MAX_PACKET_LEN].into(),
    };
    loop {
        tun.readable().await?;
        while burst(tun, sender, &mut buffers)? == Pause::Enough {
            tokio::task::consume_budget().await;
        }
    }
}

/// Where packets are read to.
struct Buffers {
    /// Those that have to wait for the stream.
    scratch: Box<Batch>,
    /// Those that go in datagrams: offload header and packet.
    packet: Box<[u8]>,
}

/// Why reading has paused.
#[derive(PartialEq)]
enum Pause {
    /// The device has nothing more.
    Empty,
    /// Others must have their turn.
    Enough,
}

/// Reads some packets and sends them.
fn burst(tun: &Device, sender: &Sender, buffers: &mut Buffers) -> io::Result<Pause> {
    let packet = &mut buffers.packet;
    if let Some(channel) = sender.datagrams()
        && let Some(pause) = channel.fill(sender, |filler| cut(tun, filler, packet))
    {
        return pause;
    }
    let read = sender.fill(|batch, enough| -> io::Result<Pause> {
        while batch.has_room() && batch.len() < enough {
            match read_packet(tun, batch)? {
                Some(read) => batch.commit_packet(read),
                None => return Ok(Pause::Empty),
            }
        }
        Ok(Pause::Enough)
    });
    let pause = match read {
        Some(pause) => pause?,
        None => queue(tun, sender, &mut buffers.scratch)?,
    };
    // a connection that fails is noticed by its link
    let _ = sender.flush();
    Ok(pause)
}

/// Reads some packets that go in datagrams.
fn cut(tun: &Device, filler: &mut Filler<'_>, packet: &mut [u8]) -> io::Result<Pause> {
    for _ in 0..BURST {
        match tun.try_read(&mut [IoSliceMut::new(packet)]) {
            Ok(read) => filler.push(&packet[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Pause::Empty),
            Err(error) => return Err(error),
        }
    }
    Ok(Pause::Enough)
}

/// Reads some packets that have to wait.
fn queue(tun: &Device, sender: &Sender, scratch: &mut Batch) -> io::Result<Pause> {
    for _ in 0..BURST {
        let Some(read) = read_packet(tun, scratch)? else { return Ok(Pause::Empty) };
        sender.take_packet(scratch, read);
    }
    Ok(Pause::Enough)
}

/// Reads a packet into the batch, without making it a part of it; `None` if there is none.
fn read_packet(tun: &Device, batch: &mut Batch) -> io::Result<Option<usize>> {
    match tun.try_read(&mut batch.packet_slices()) {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

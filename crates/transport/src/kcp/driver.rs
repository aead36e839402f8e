//! The task of a conversation: it does what time asks for, and at a client also receives.

use std::{io, sync::Arc, time::Instant};

use cipherwall_proto::kcp::Door;

use super::stream::{Home, Next, Shared};
use crate::{
    datagram::{give_back_received, take_received},
    udp::UdpSocket,
};

/// How often a socket is emptied before others have their turn.
const BATCHES: usize = 8;

/// A gateway's: until the conversation is over.
pub(super) async fn run(shared: &Shared) {
    loop {
        let Next::Wait(due, full) = shared.look() else { return };
        tokio::select! {
            () = shared.wake.notified() => {}
            () = writable(full) => {}
            () = sleep_until(due) => {}
        }
    }
}

/// A client's: until the conversation is over.
pub(super) async fn run_client(shared: Arc<Shared>, socket: Arc<UdpSocket>, door: Door) {
    let home = Home { socket: socket.clone(), address: None };
    let receive = async {
        // a socket that fails to be watched is of no use
        while socket.readable().await.is_ok() {
            empty(&shared, &home, &door);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = receive => {}
        () = run(&shared) => {}
    }
}

/// Takes what is there.
fn empty(shared: &Shared, home: &Home, door: &Door) {
    let mut received = take_received();
    for _ in 0..BATCHES {
        match home.socket.try_receive(&mut received) {
            Ok(()) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "cannot receive datagrams");
                }
                break;
            }
        }
        let now = Instant::now();
        for datagram in received.datagrams() {
            if let Some(head) = door.head(datagram.bytes) {
                shared.receive(now, home, datagram.from, &head, datagram.bytes);
            }
        }
        shared.drive();
    }
    give_back_received(received);
}

async fn writable(full: Option<Arc<UdpSocket>>) {
    match full {
        // a failure shows when it is sent to
        Some(socket) => drop(socket.writable().await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

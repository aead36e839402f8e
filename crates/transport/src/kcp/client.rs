//! A client's way to a gateway.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use cipherwall_proto::{
    kcp::{Conversation, Door},
    keys::DoorKey,
};
use tokio::time::timeout;

use super::{
    KcpStream, driver,
    stream::{Home, Shared},
};
use crate::{Carrier, socket::SocketFactory};

/// How long an answer is waited for before the gateway is asked once more.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(400),
    Duration::from_millis(600),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Begins a conversation with the gateway at `address`, which answers those who have its door key.
/// `clock_offset`: how many seconds the gateway's clock is ahead of this host's, as far as it is
/// known. The caller sets a time limit.
///
/// # Errors
/// There is no answer, or no socket to ask with.
pub async fn connect(
    factory: &SocketFactory,
    address: SocketAddr,
    door: &DoorKey,
    clock_offset: i64,
) -> io::Result<Carrier> {
    let socket = Arc::new(factory.udp_for(address)?);
    let door = Door::new(door);
    let number = getrandom::u64()?.to_be_bytes();
    let conversation = Conversation::client(Instant::now(), &door, number, address);
    let home = Home { socket: socket.clone(), address: None };
    let shared = Arc::new(Shared::new(conversation, home, clock_offset, None));
    let stream = KcpStream(shared.clone());
    tokio::spawn(driver::run_client(shared.clone(), socket, door));
    for pause in PAUSES {
        shared.ask();
        if timeout(pause, shared.heard()).await.is_ok() {
            return Ok(stream.into());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

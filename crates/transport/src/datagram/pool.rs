//! Buffers that idle channels do not hold: a thousand sessions need few of them at a time.

use std::sync::{Mutex, PoisonError};

use crate::udp::{OutBatch, Received};

/// How many buffers of a kind are kept for the next user.
const KEPT: usize = 8;

static BATCHES: Mutex<Vec<OutBatch>> = Mutex::new(Vec::new());
static RECEIVED: Mutex<Vec<Received>> = Mutex::new(Vec::new());

fn take<T: Default>(pool: &Mutex<Vec<T>>) -> T {
    pool.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
}

fn give_back<T>(pool: &Mutex<Vec<T>>, buffer: T) {
    let mut kept = pool.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < KEPT {
        kept.push(buffer);
    }
}

/// An empty batch.
pub(crate) fn take_batch() -> OutBatch {
    take(&BATCHES)
}

/// Gives back a batch that is no longer needed.
pub(crate) fn give_back_batch(mut batch: OutBatch) {
    batch.clear();
    give_back(&BATCHES, batch);
}

/// Buffers for receiving.
pub fn take_received() -> Received {
    take(&RECEIVED)
}

/// Gives back buffers for receiving.
pub fn give_back_received(received: Received) {
    give_back(&RECEIVED, received);
}

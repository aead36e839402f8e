//! Buffers that idle connections do not hold: a thousand sessions need few of them at a time.

use std::sync::{Mutex, PoisonError};

use cipherwall_proto::record::{Batch, Inflow};

/// How many buffers of a kind are kept for the next user.
const KEPT: usize = 4;

static BATCHES: Pool<Batch> = Pool(Mutex::new(Vec::new()));
static INFLOWS: Pool<Inflow> = Pool(Mutex::new(Vec::new()));

struct Pool<T>(Mutex<Vec<Box<T>>>);

impl<T: Default> Pool<T> {
    fn take(&self) -> Box<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Box<T>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

/// An empty batch.
pub(super) fn take_batch() -> Box<Batch> {
    BATCHES.take()
}

/// Gives back a batch that is no longer needed.
pub(super) fn give_back_batch(mut batch: Box<Batch>) {
    batch.clear();
    BATCHES.give_back(batch);
}

/// Empty buffers for receiving.
pub(super) fn take_inflow() -> Box<Inflow> {
    INFLOWS.take()
}

/// Gives back buffers for receiving, which must be empty.
pub(super) fn give_back_inflow(inflow: Box<Inflow>) {
    debug_assert!(inflow.is_empty());
    INFLOWS.give_back(inflow);
}

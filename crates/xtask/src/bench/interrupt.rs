//! Ctrl-C while a laboratory is up: it goes, with everything in it.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use e2e::Lab;

type Remover = Box<dyn FnOnce() + Send>;

static REMOVER: Mutex<Option<Remover>> = Mutex::new(None);

/// From now on Ctrl-C and SIGTERM remove the laboratory that was last given to [`remove_later`].
pub(crate) fn watch() -> Result<()> {
    ctrlc::set_handler(|| {
        if let Some(remove) = REMOVER.lock().unwrap_or_else(PoisonError::into_inner).take() {
            remove();
        }
        std::process::exit(130);
    })
    .context("cannot watch for Ctrl-C")
}

/// This laboratory, in place of the one before.
pub(crate) fn remove_later(lab: &Lab) {
    let mut remover = REMOVER.lock().unwrap_or_else(PoisonError::into_inner);
    *remover = Some(Box::new(lab.remover()));
}

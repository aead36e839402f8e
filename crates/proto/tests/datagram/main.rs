//! Datagrams of a session, both ends on a virtual clock: formats, negotiation, the path, roaming,
//! rekeys, and every kind of meddling on the way.

#![allow(clippy::unwrap_used)]

mod ends;
mod format;
mod negotiation;
mod path;
mod rekey;
mod roaming;

use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

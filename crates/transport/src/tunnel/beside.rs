//! What a link does for the datagrams beside its stream.

use std::{sync::Arc, time::Instant};

use cipherwall_proto::{record::Opener, tunnel::Tunnel};

use super::Sender;
use crate::datagram::Channel;

/// Waits until there is something to do for the datagrams, and does it. May be dropped at any time.
pub(super) async fn wants_attention(channel: Option<&Arc<Channel>>, sender: &Sender) {
    let Some(channel) = channel else { return std::future::pending().await };
    tokio::select! {
        () = channel.has_news() => channel.drive(Instant::now(), sender),
        () = channel.writable() => channel.unblock(sender),
    }
}

/// Does what time and the other end ask for.
pub(super) fn drive(sender: &Sender) {
    if let Some(channel) = sender.channel() {
        channel.drive(Instant::now(), sender);
    }
}

/// A rekey of the stream is one of the datagrams, too.
pub(super) fn change_keys(tunnel: &mut Tunnel, sender: &Sender) {
    while let Some(change) = tunnel.poll_key_change() {
        if let Some(channel) = sender.channel() {
            channel.change_keys(&change, sender);
        }
    }
}

/// Tells how far the datagrams' keys are used up; returns how many packets were dropped since the
/// last call.
pub(super) fn note_usage(tunnel: &mut Tunnel, sender: &Sender, opener: &Opener) -> u64 {
    let Some(channel) = sender.channel() else { return 0 };
    let (sealed, opened) = channel.usage();
    tunnel.handle_datagram_usage(&sealed, &opened, opener);
    channel.take_dropped()
}

//! Whether the gateway lets this device in, and whether datagrams get through then.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cipherwall_proto::{frame::Control, invitation::Endpoint};
use cipherwall_transport::{
    datagram::{Arrival, give_back_received, take_received},
    socket::SocketFactory,
};
use tokio::time::timeout;

use crate::{
    dial::{Datagrams, DialError, Dialed, Dialer},
    profile::{Profile, Profiles},
    settings::{CipherChoice, TransportChoice},
};

/// How long datagrams may take to get through.
const UDP_TIME: Duration = Duration::from_secs(5);

/// What became of a log-in.
#[derive(Debug)]
pub(super) enum Account {
    /// There was none, for this reason.
    NotTried(&'static str),
    /// It let us in.
    Good {
        /// Seconds by which this host's clock is ahead of the gateway's; negative: behind.
        ahead: i64,
        /// Datagrams.
        udp: Udp,
    },
    /// It did not.
    Failed(DialError),
}

/// Whether datagrams get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Udp {
    /// The gateway has none.
    NotOffered,
    /// They do.
    Works,
    /// They do not get through to this address.
    Blocked(SocketAddr),
}

/// Logs in, or goes on with the session that is there, looks at the datagrams, and leaves.
pub(super) async fn log_in(
    profile: &Profile,
    profiles: &Profiles,
    sockets: SocketFactory,
    address: (Endpoint, SocketAddr),
) -> Account {
    let mark = sockets.mark.unwrap_or_default();
    let ciphers = CipherChoice::Auto;
    let dialer = Dialer::new(profile.clone(), profiles.clone(), mark, ciphers.of_stream())
        .with_datagrams(ciphers.of_datagrams(TransportChoice::Udp));
    let mut dialed = match dialer.dial(&[address]).await {
        Ok(dialed) => dialed,
        Err(error) => return Account::Failed(error),
    };
    // in case that this process is killed meanwhile
    dialer.keep(&dialed);
    let ahead = ahead_of(dialed.welcome.time);
    let udp = datagrams(&mut dialed).await;
    dialed.link.finish(&Control::Close).await;
    dialer.forget_session();
    Account::Good { ahead, udp }
}

fn ahead_of(gateway_time: u64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    i64::try_from(i128::from(now) - i128::from(gateway_time)).unwrap_or_default()
}

async fn datagrams(dialed: &mut Dialed) -> Udp {
    let Dialed { link, datagrams: Some(datagrams), .. } = dialed else { return Udp::NotOffered };
    let drive = async {
        while !datagrams.channel.is_up() {
            if let Err(error) = link.run(&mut |_, _| {}).await {
                tracing::debug!(%error, "the connection ended");
                return std::future::pending().await;
            }
        }
    };
    let works = async {
        tokio::select! {
            () = drive => {}
            () = receive(datagrams) => {}
        }
    };
    match timeout(UDP_TIME, works).await {
        Ok(()) => Udp::Works,
        Err(_) => Udp::Blocked(datagrams.gateway),
    }
}

/// Gives the channel what comes for it until it is up.
async fn receive(datagrams: &Datagrams) {
    let Datagrams { channel, socket, gateway, .. } = datagrams;
    while !channel.is_up() {
        if socket.readable().await.is_err() {
            return std::future::pending().await;
        }
        let mut received = take_received();
        if socket.try_receive(&mut received).is_ok() {
            let all = received.datagrams();
            let all = all.filter_map(|it| channel.head(it.bytes).map(|head| (head, it.bytes)));
            let arrival = Arrival { now: Instant::now(), from: *gateway, to: None, socket };
            channel.receive(arrival, all, &mut |_| {});
        }
        give_back_received(received);
    }
}

//! Accepts connections for as long as the gateway runs, and gives each a place
//! ([`crate::places`]).

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};

use crate::{gateway::Gateway, visitor};

/// How long to wait when no connection can be accepted.
const RECOVER: Duration = Duration::from_millis(100);
/// The administrator is told of that once in so long.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Accepts connections. To run at the [door](crate::lobby::Lobby::door).
pub async fn run(listener: TcpListener, gateway: Arc<Gateway>) {
    let mut complained: Option<Instant> = None;
    loop {
        gateway.places.wait().await;
        match accept(&listener, gateway.lobby.sessions()).await {
            Ok((tcp, peer)) => begin(&gateway, tcp, peer),
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept a connection");
                }
                // too many open files, most likely
                gateway.places.make_room();
                tokio::time::sleep(RECOVER).await;
            }
        }
    }
}

/// The next connection, watched by the runtime of the sessions, as it may become one.
async fn accept(listener: &TcpListener, sessions: &Handle) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        let _sessions = sessions.enter();
        listener.poll_accept(cx)
    })
    .await
}

fn begin(gateway: &Arc<Gateway>, tcp: TcpStream, peer: SocketAddr) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Some((place, shed)) = gateway.places.take(peer.ip()) else {
        return tracing::debug!(%peer, "too many connections that are being let in");
    };
    gateway.lobby.spawn(visitor::serve(gateway.clone(), tcp.into(), peer, place, shed));
}

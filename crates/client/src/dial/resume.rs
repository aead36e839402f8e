//! Going on with a session: by its token, with the user's packets right behind the request (A4, A9).

use std::{sync::Arc, time::Duration};

use cipherwall_proto::{
    cipher::DatagramCipher,
    client::{Answer, Resumable, Resumed},
    device::DeviceKey,
    liveness::Keepalive,
    message::RefusalCode,
    rekey::{Limits, Side},
};
use cipherwall_transport::tunnel::{Link, Sender, Start};
use tokio::{sync::watch, time::timeout};

use super::{Connected, DialError, Dialed, Dialer, gateways::is_over, keepalive, read_answer};
use crate::profile::Session;

/// How long a resume may take, for which the gateway has nothing to compute. What is slower than
/// this has lost its path again.
const RESUME_TIME: Duration = Duration::from_secs(5);

impl Dialer {
    /// A connection is the one in use: its session is to go on after it.
    pub(crate) fn keep(&self, dialed: &Dialed) {
        let address = (dialed.endpoint.clone(), dialed.address);
        self.rungs.connected(&address, dialed.climbed);
        self.gateway_clock.learn(dialed.welcome.time);
        if let Some(keeper) = &self.keeper {
            keeper.keep(dialed);
        }
    }

    /// What sends over a connection before the gateway has answered, while it resumes a session: the
    /// user's packets need not wait for the answer (A9). None at other times.
    pub(crate) fn early(&self) -> watch::Receiver<Option<Arc<Sender>>> {
        self.early.subscribe()
    }

    /// The session has come to its end: the next connection is a log-in.
    pub(crate) fn forget_session(&self) {
        self.forget(None);
    }

    fn forget(&self, only: Option<&Session>) {
        if let Some(keeper) = &self.keeper {
            keeper.forget(only);
        }
    }

    /// Whether this answer of the gateway that gave the session ends it, and a log-in may begin
    /// another one. It is forgotten then.
    pub(super) fn is_over(&self, session: &Session, dialed: &Result<Dialed, DialError>) -> bool {
        let Err(DialError::Refused(refused)) = dialed else { return false };
        if !is_over(refused.code) {
            return false;
        }
        self.forget(Some(session));
        let superseded = refused.code == RefusalCode::Superseded;
        if !superseded {
            tracing::info!(reason = ?refused.code, "the session is over: logging in");
        }
        !superseded
    }

    /// The session to go on with, if its cipher is one that the user wants.
    pub(super) fn session(&self) -> Option<(Session, Resumable)> {
        let session = self.keeper.as_ref()?.current()?;
        let resumable = session.resumable()?;
        self.ciphers.contains(&resumable.cipher).then_some((session, resumable))
    }

    /// With the token. The first records of the tunnel go right behind the request, so that the
    /// round trip of the answer costs nothing (A9).
    pub(super) async fn resume(
        &self,
        connected: Connected,
        session: &Resumable,
        datagrams: &[DatagramCipher],
    ) -> Result<Dialed, DialError> {
        let Connected { mut stream, agreed, address, endpoint } = connected;
        let mut opening = self.opening(agreed);
        opening.offer_datagrams(datagrams);
        let device = DeviceKey::from_seed(&self.profile.device_seed);
        let (request, Resumed { sealer, opener }) = opening.resume(session, &device);
        let mut link = Link::new(Start {
            carrier: stream.carrier().clone(),
            sealer,
            opener,
            keepalive: Keepalive::default(),
            side: Side::Client(Limits::default()),
        });
        let exchange = async {
            stream.send(&request).await.map_err(|cause| DialError::Tls { address, cause })?;
            // if this fails, so does the reading
            let _ = link.ping();
            let _early = Early::new(&self.early, link.sender());
            read_answer(&mut stream, &mut opening, address).await
        };
        let answer = timeout(RESUME_TIME, exchange).await;
        let answer = answer.unwrap_or(Err(DialError::NoAnswer { address }));
        self.rungs.asked(&(endpoint.clone(), address), &answer);
        match answer? {
            Answer::Resumed(welcome) => {
                let (_, leftover) = stream.into_parts();
                link.set_keepalive(keepalive(&welcome));
                let channel = opening.channel(&welcome);
                let datagrams = self.datagrams(channel, &welcome, address);
                if let Some(datagrams) = &datagrams {
                    link.add_datagrams(datagrams.channel.clone());
                }
                link.begin(&leftover);
                let (welcome, cipher) = (*welcome, session.cipher);
                let (resumed, climbed) = (true, false);
                Ok(Dialed { link, welcome, cipher, address, resumed, datagrams, endpoint, climbed })
            }
            Answer::Refused(refused) => {
                self.rungs.answered(&(endpoint, address));
                Err(DialError::Refused(refused))
            }
            Answer::Welcome(_) | Answer::Salt(_) => Err(DialError::NoAnswer { address }),
        }
    }
}

/// As long as it lives, a connection that resumes can be had by [`Dialer::early`].
struct Early<'a>(&'a watch::Sender<Option<Arc<Sender>>>);

impl<'a> Early<'a> {
    fn new(early: &'a watch::Sender<Option<Arc<Sender>>>, sender: &Arc<Sender>) -> Self {
        early.send_replace(Some(sender.clone()));
        Self(early)
    }
}

impl Drop for Early<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

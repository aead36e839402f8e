//! Going on with a session: by its token, with the user's packets right behind the request (A4, A9).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cipherwall_proto::{
    cipher::DatagramCipher,
    client::{Answer, OpeningError, Resumable, Resumed},
    device::DeviceKey,
    hint,
    keys::DoorKey,
    liveness::Keepalive,
    message::RefusalCode,
    rekey::{Limits, Side},
};
use cipherwall_transport::tunnel::{Link, Sender, Start};
use tokio::{sync::watch, time::timeout};

use super::{Address, Connected, DialError, Dialed, Dialer, keepalive, now_s, read_answer};
use crate::profile::Session;

/// How long a resume may take, for which the gateway has nothing to compute. What is slower than
/// this has lost its path again.
const RESUME_TIME: Duration = Duration::from_secs(5);

impl Dialer {
    /// A connection is the one in use: its session is to go on after it.
    pub(crate) fn keep(&self, dialed: &Dialed) {
        let address = (dialed.endpoint.clone(), dialed.address);
        self.rungs.connected(&address, dialed.climbed);
        let ahead = i128::from(dialed.welcome.time) - i128::from(now_s());
        self.gateway_ahead_s.store(i64::try_from(ahead).unwrap_or_default(), Ordering::Relaxed);
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

    /// Goes on with the session; `None` if there is none, or none any more.
    pub(super) async fn try_resume(
        &self,
        addresses: &[Address],
    ) -> Option<Result<Dialed, DialError>> {
        let (session, resumable) = self.session()?;
        let datagrams = self.resumed_datagrams(&session);
        let mut dialed = self.resume(addresses, &resumable, &datagrams).await;
        if let Err(DialError::Opening { cause: OpeningError::Datagrams, .. }) = &dialed {
            // the gateway does not know them any more
            dialed = self.resume(addresses, &resumable, &[]).await;
        }
        if let Err(DialError::Refused(refused)) = &dialed
            && is_over(refused.code)
        {
            self.forget(Some(&session));
            if refused.code != RefusalCode::Superseded {
                tracing::info!(reason = ?refused.code, "the session is over: logging in");
                return None;
            }
        }
        Some(dialed)
    }

    /// The session to go on with, if its cipher is one that the user wants.
    fn session(&self) -> Option<(Session, Resumable)> {
        let session = self.keeper.as_ref()?.current()?;
        let resumable = session.resumable()?;
        self.ciphers.contains(&resumable.cipher).then_some((session, resumable))
    }

    /// With the token. The first records of the tunnel go right behind the request, so that the
    /// round trip of the answer costs nothing (A9).
    async fn resume(
        &self,
        addresses: &[Address],
        session: &Resumable,
        datagrams: &[DatagramCipher],
    ) -> Result<Dialed, DialError> {
        let door = DoorKey(*self.profile.door_key);
        let hint = self.early_data.then(|| hint::hint(&session.token, &door));
        let connected = self.connect(addresses, hint).await?;
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

/// Whether a resume refused with this code means that there is no session any more.
fn is_over(code: RefusalCode) -> bool {
    match code {
        RefusalCode::Rejected
        | RefusalCode::Expired
        | RefusalCode::Revoked
        | RefusalCode::Superseded
        | RefusalCode::Used
        // the gateway has lost its version or cipher, or is of a later one: a log-in can agree anew
        | RefusalCode::Version
        | RefusalCode::Unknown => true,
        RefusalCode::Busy | RefusalCode::Full => false,
    }
}

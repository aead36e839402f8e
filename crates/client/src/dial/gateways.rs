//! Several gateways in one profile: one may say no, and another one let us in. Only the gateway that
//! gave the session can end it; what another one says concerns that one alone.

use std::time::Duration;

use cipherwall_proto::{
    client::{Credential, OpeningError},
    invitation::Endpoint,
    message::{RefusalCode, Refused},
};
use cipherwall_transport::tls::Pin;
use tokio::time::timeout;

use super::{Address, DialError, Dialed, Dialer};
use crate::profile::{Session, endpoint_name};

/// How long the others are tried before a gateway that said no is asked again.
const LEFT_OUT: Duration = Duration::from_secs(60);

/// One try, over whichever address answered first.
pub(super) enum Tried {
    /// A tunnel.
    Dialed(Box<Dialed>),
    /// None.
    Failed(DialError),
    /// The gateway at this endpoint said no.
    Refused(Refused, Endpoint),
    /// The session is over, or its datagrams are: another try may go better.
    Again,
}

impl Dialer {
    /// Goes on with the session at the first address that works; where there is none any more, or
    /// at another gateway than the one that gave it, logs in without asking anybody (A4).
    ///
    /// Of several connections only the one that is used is to be told to [`Dialer::keep`].
    pub(crate) async fn dial(&self, addresses: &[Address]) -> Result<Dialed, DialError> {
        let mut refusals = Refusals::new(&self.profile.endpoints, self.giver());
        let mut datagrams = true;
        loop {
            let left = refusals.left(addresses);
            let tried = timeout(refusals.time(), self.try_once(&left, &mut datagrams)).await;
            match tried {
                Ok(Tried::Dialed(dialed)) => return Ok(*dialed),
                Ok(Tried::Failed(error)) => return Err(error),
                Ok(Tried::Again) => {}
                Ok(Tried::Refused(refused, by)) => {
                    let gateway = endpoint_name(&by);
                    self.rungs.refused(&by, &refused.to_string());
                    if let Some(error) = refusals.note(refused, &by, addresses) {
                        return Err(error);
                    }
                    tracing::info!(gateway, "does not let this device in: trying the others");
                }
                // it may do so by now
                Err(_) => refusals.begin_again(),
            }
        }
    }

    async fn try_once(&self, addresses: &[Address], datagrams: &mut bool) -> Tried {
        let (session, credential) = (self.session(), self.credential());
        // who cannot log in has no business with other gateways
        let own: Vec<Address>;
        let addresses = match (&session, &credential) {
            (Some((session, _)), Err(_)) => {
                own = addresses.iter().filter(|it| self.is_of(session, &it.0)).cloned().collect();
                &own
            }
            (None, Err(user)) => {
                return Tried::Failed(DialError::NoPassword { user: user.clone() });
            }
            (_, Ok(_)) => addresses,
        };
        let connected = match self.connect(addresses, session.as_ref()).await {
            Ok(connected) => connected,
            Err(error) => return Tried::Failed(error),
        };
        let by = connected.endpoint.clone();
        let session = session.filter(|(session, _)| self.is_of(session, &by));
        let dialed = match (session, credential) {
            (Some((session, resumable)), _) => {
                let wanted = if *datagrams { self.resumed_datagrams(&session) } else { Vec::new() };
                let dialed = self.resume(connected, &resumable, &wanted).await;
                if let Err(DialError::Opening { cause: OpeningError::Datagrams, .. }) = &dialed
                    && *datagrams
                {
                    // the gateway does not know them any more
                    *datagrams = false;
                    return Tried::Again;
                }
                if self.is_over(&session, &dialed) {
                    return Tried::Again;
                }
                dialed
            }
            (None, Ok(credential)) => self.log_in_over(connected, &credential).await,
            (None, Err(user)) => Err(DialError::NoPassword { user }),
        };
        match dialed {
            Ok(dialed) => Tried::Dialed(Box::new(dialed)),
            Err(DialError::Refused(refused)) => Tried::Refused(refused, by),
            Err(error) => Tried::Failed(error),
        }
    }

    /// The profile's password if it has one, else that of the device that used its invitation; or
    /// whose password is not here.
    fn credential(&self) -> Result<Credential<'_>, String> {
        let profile = &self.profile;
        match &profile.prehash {
            Some(prehash) => Ok(Credential::Password { user: &profile.user, prehash }),
            None if profile.keyring => Err(profile.user.clone()),
            None => Ok(Credential::Invitation { secret: &profile.enrol_secret }),
        }
    }

    /// Whether the gateway at this endpoint gave the session's token. A profile with a single
    /// gateway has no other.
    pub(super) fn is_of(&self, session: &Session, endpoint: &Endpoint) -> bool {
        let all = &self.profile.endpoints;
        all.iter().all(|other| other.pins == endpoint.pins) || session.is_of(endpoint)
    }

    /// The pins of the gateways that may have given the session.
    fn giver(&self) -> Vec<[Pin; 2]> {
        let Some((session, _)) = self.session() else { return Vec::new() };
        let all = self.profile.endpoints.iter();
        all.filter(|endpoint| self.is_of(&session, endpoint)).map(|it| it.pins).collect()
    }
}

/// Which gateways have said no within one dial.
struct Refusals {
    /// All of the profile.
    gateways: Vec<[Pin; 2]>,
    /// Whose no is the end.
    giver: Vec<[Pin; 2]>,
    said_no: Vec<[Pin; 2]>,
    /// A refusal after which there is sense in trying again.
    passing: Option<Refused>,
    time: Duration,
}

impl Refusals {
    fn new(endpoints: &[Endpoint], giver: Vec<[Pin; 2]>) -> Refusals {
        let gateways = endpoints.iter().map(|endpoint| endpoint.pins).collect();
        let time = Duration::MAX;
        Refusals { gateways, giver, said_no: Vec::new(), passing: None, time }
    }

    /// All gateways are asked once more.
    fn begin_again(&mut self) {
        self.said_no.clear();
        self.passing = None;
        self.time = Duration::MAX;
    }

    /// The addresses of those that have not.
    fn left(&self, addresses: &[Address]) -> Vec<Address> {
        let is_left = |(endpoint, _): &&Address| !self.said_no.contains(&endpoint.pins);
        addresses.iter().filter(is_left).cloned().collect()
    }

    /// How long those are tried.
    fn time(&self) -> Duration {
        self.time
    }

    /// One more; the error, if there is no use in going on with these addresses.
    fn note(&mut self, refused: Refused, by: &Endpoint, all: &[Address]) -> Option<DialError> {
        self.said_no.push(by.pins);
        if self.giver.contains(&by.pins) {
            return Some(DialError::Refused(refused));
        }
        let error = DialError::Refused(refused.clone());
        let wish = error.retry_after().unwrap_or_default();
        self.time = self.time.min(LEFT_OUT.max(wish));
        if !error.is_final() {
            self.passing = Some(refused.clone());
        }
        if !self.left(all).is_empty() {
            return None;
        }
        let is_all = self.gateways.iter().all(|pins| self.said_no.contains(pins));
        Some(match self.passing.take() {
            Some(passing) => DialError::Refused(passing),
            None if is_all => error,
            None => DialError::OneRefused { gateway: endpoint_name(by), refused },
        })
    }
}

/// Whether a resume refused with this code means that there is no session any more.
pub(super) fn is_over(code: RefusalCode) -> bool {
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

#[cfg(test)]
mod tests {
    use cipherwall_proto::invitation::Transport;

    use super::*;

    fn endpoint(gateway: u8, port: u16) -> Endpoint {
        let (host, transport) = ("gateway.example".into(), Transport::Tls);
        Endpoint { host, port, transport, pins: [[gateway; 32]; 2] }
    }

    fn addresses() -> Vec<Address> {
        let all = [(1, 8443), (1, 443), (2, 8443)];
        let address = |(gateway, port): (u8, u16)| {
            (endpoint(gateway, port), ([192, 0, 2, gateway], port).into())
        };
        all.map(address).to_vec()
    }

    fn refusals(giver: &[u8]) -> Refusals {
        let endpoints: Vec<_> = addresses().into_iter().map(|(endpoint, _)| endpoint).collect();
        Refusals::new(&endpoints, giver.iter().map(|pin| [[*pin; 32]; 2]).collect())
    }

    fn refused(code: RefusalCode) -> Refused {
        Refused::new(code)
    }

    #[test]
    fn another_gateways_no_is_not_the_end_of_the_session_and_the_givers_is() {
        let (all, mut refusals) = (addresses(), refusals(&[1]));
        assert_eq!(refusals.time(), Duration::MAX);
        for code in [RefusalCode::Rejected, RefusalCode::Version, RefusalCode::Superseded] {
            assert!(refusals.note(refused(code), &all[2].0, &all).is_none(), "{code:?}");
        }
        assert_eq!(refusals.left(&all), all[..2]);
        assert_eq!(refusals.time(), LEFT_OUT);
        refusals.begin_again();
        assert_eq!((refusals.left(&all), refusals.time()), (all.clone(), Duration::MAX));
        let end = refusals.note(refused(RefusalCode::Rejected), &all[1].0, &all);
        assert!(end.expect("the end").is_final());
    }

    #[test]
    fn without_a_session_it_is_final_when_all_gateways_of_the_profile_have_said_no() {
        let all = addresses();
        let mut both = refusals(&[]);
        assert!(both.note(refused(RefusalCode::Rejected), &all[0].0, &all).is_none());
        let end = both.note(refused(RefusalCode::Revoked), &all[2].0, &all).expect("the end");
        assert!(end.is_final(), "{end}");

        // the name of the first one has no address now
        let end = refusals(&[]).note(refused(RefusalCode::Rejected), &all[2].0, &all[2..]);
        let end = end.expect("nobody else can be asked now");
        assert!(!end.is_final() && end.to_string().contains("gateway.example:8443"), "{end}");
    }

    #[test]
    fn a_gateway_that_is_busy_may_let_us_in_later() {
        let (all, mut refusals) = (addresses(), refusals(&[]));
        let busy = Refused { retry_after: Some(90), ..refused(RefusalCode::Busy) };
        assert!(refusals.note(busy, &all[0].0, &all).is_none());
        assert_eq!(refusals.time(), Duration::from_secs(90));
        let end = refusals.note(refused(RefusalCode::Rejected), &all[2].0, &all).expect("the end");
        assert!(!end.is_final(), "{end}");
        assert_eq!(end.retry_after(), Some(Duration::from_secs(90)));
    }
}

//! TLS with whichever of a gateway's addresses gets there first.
//!
//! The first connection goes on with TLS. If that takes long, the path may have died again, or
//! something in between accepts connections and leads nowhere: then another one is tried beside it.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use cipherwall_transport::Carrier;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Address, DialError, OPENING_TIME, Rungs,
    hedge::{Failed, Hedge, Opened, Opening, Patience, most_telling},
};

/// How long TLS may take before another connection is tried beside it, over four times what TCP
/// took, which is a round trip. Longer each time.
const STALLED: Duration = Duration::from_secs(1);
/// How long other addresses are waited for once one has answered wrongly: KCP and TLS over a path of a
/// second.
const OTHERS: Duration = Duration::from_secs(5);
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// TLS over a connection.
pub(super) type Handshake<T> = Pin<Box<dyn Future<Output = Result<T, DialError>> + Send>>;

/// Is told what goes wrong while it is tried again and again.
pub(crate) type Report = Arc<dyn Fn(&DialError) + Send + Sync>;

/// How to get through to a gateway.
pub(super) struct Reach<'a, T> {
    pub(super) patience: Patience,
    pub(super) report: Option<&'a Report>,
    /// Where it is noted why an address was not taken.
    pub(super) rungs: &'a Rungs,
    pub(super) open: Arc<dyn Fn(Address) -> Opening<Carrier> + Send + Sync>,
    pub(super) handshake: Arc<dyn Fn(Address, Carrier) -> Handshake<T> + Send + Sync>,
}

impl<T: Send + 'static> Reach<'_, T> {
    /// A connection and then TLS to the first of `addresses` that works; each with how reluctantly
    /// it is taken.
    ///
    /// # Errors
    /// An address answered wrongly and no other one answers; with [`Patience::Once`] also when none
    /// answers at all.
    pub(super) async fn connect(&self, addresses: Vec<(Address, u8)>) -> Result<T, DialError> {
        let open = self.open.clone();
        let open = move |address: &Address| open(address.clone());
        let mut hedge = Hedge::new(addresses, self.patience, open);
        let mut handshakes = JoinSet::new();
        let mut wrong: Option<Wrong> = None;
        let mut wait = Wait::default();
        loop {
            let (address, error) = tokio::select! {
                Some(done) = handshakes.join_next() => match done {
                    Ok((_, Ok(connected))) => return Ok(connected),
                    Ok((address, Err(error))) => (address, error),
                    Err(_) => {
                        wait.is_over();
                        continue;
                    }
                },
                opened = hedge.next(), if !wait.is_on() => {
                    let Opened { address, connection, took } = match opened {
                        Ok(opened) => opened,
                        Err(_) if !handshakes.is_empty() => {
                            wait.begin_last();
                            continue;
                        }
                        Err(failed) => {
                            let failed = self.note(failed);
                            return Err(wrong.map_or_else(|| unreachable(failed), |w| w.error));
                        }
                    };
                    self.note(hedge.take_failed());
                    wait.begin(&address, took);
                    let tls = (self.handshake)(address.clone(), connection);
                    handshakes.spawn(async move { (address, tls.await) });
                    continue;
                }
                () = wait.passes() => {
                    if let Some(address) = wait.is_over() {
                        let why = "connects, but then nothing comes through";
                        self.rungs.failed(&address.0, why.to_owned());
                        hedge.set_back(&address);
                    }
                    continue;
                }
                error = Wrong::given_up(&mut wrong) => return Err(error),
                () = sleep(REPORT_EVERY), if self.report.is_some() => {
                    let failed = self.note(hedge.take_failed());
                    if let (Some(report), Some(failed)) = (self.report, failed) {
                        report(&unreachable(Some(failed)));
                    }
                    continue;
                }
            };
            self.rungs.failed(&address.0, error.to_string());
            if !hedge.leave_out(&address) {
                return Err(error);
            }
            let until = wrong.map_or_else(|| Instant::now() + OTHERS, |wrong| wrong.until);
            wrong = Some(Wrong { error, until });
            wait.is_over();
        }
    }

    /// Keeps why these addresses were not taken; gives the one to be told of.
    fn note(&self, failed: Vec<Failed<Address>>) -> Option<Failed<Address>> {
        for ((endpoint, _), error) in &failed {
            self.rungs.failed(endpoint, describe(error));
        }
        most_telling(failed)
    }
}

/// In the few words that `status` has room for.
fn describe(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::TimedOut {
        "no answer".to_owned()
    } else if kind == io::ErrorKind::ConnectionRefused {
        "refused: nothing listens there".to_owned()
    } else {
        error.to_string()
    }
}

/// An address has answered wrongly; others are still waited for.
struct Wrong {
    error: DialError,
    until: Instant,
}

impl Wrong {
    /// Resolves when the time of the others is up.
    async fn given_up(wrong: &mut Option<Wrong>) -> DialError {
        let Some(until) = wrong.as_ref().map(|wrong| wrong.until) else {
            return std::future::pending().await;
        };
        sleep_until(until).await;
        match wrong.take() {
            Some(wrong) => wrong.error,
            None => std::future::pending().await,
        }
    }
}

/// How long the last handshake is waited for.
#[derive(Default)]
struct Wait {
    until: Option<Instant>,
    /// Whose it is, unless it is the last of several.
    address: Option<Address>,
    count: u32,
}

impl Wait {
    /// For a handshake over a connection that took so long.
    fn begin(&mut self, address: &Address, took: Duration) {
        self.address = Some(address.clone());
        let time = (STALLED + took * 4) * (1 << self.count.min(4));
        self.until = Some(Instant::now() + time);
        self.count += 1;
    }

    /// For what is under way: there will be no other connection.
    fn begin_last(&mut self) {
        self.until = Some(Instant::now() + OPENING_TIME * 2);
    }

    /// Whose handshake is waited for no longer.
    fn is_over(&mut self) -> Option<Address> {
        self.until = None;
        self.address.take()
    }

    fn is_on(&self) -> bool {
        self.until.is_some()
    }

    async fn passes(&self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

/// As users are told.
fn unreachable(failed: Option<Failed<Address>>) -> DialError {
    match failed {
        Some(((_, address), cause)) => DialError::Unreachable { address, cause },
        None => DialError::Resolve {
            host: "the gateway".to_owned(),
            cause: io::ErrorKind::NotFound.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Mutex};

    use cipherwall_proto::invitation::{Endpoint, Transport};
    use cipherwall_transport::socket::SocketFactory;
    use tokio::{net::TcpListener, time::timeout};

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { host: "gateway".into(), port, transport: Transport::Tls, pins: [[0; 32]; 2] }
    }

    async fn listener() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, (endpoint(address.port()), address))
    }

    /// TCP, and a handshake that is done when the other end sends a byte: `y`, or anything else if
    /// it is not the gateway.
    async fn connect(addresses: &[Address], patience: Patience) -> Result<SocketAddr, DialError> {
        let endpoints = addresses.iter().map(|(endpoint, _)| endpoint.clone()).collect();
        let open = |(_, address): Address| -> Opening<Carrier> {
            Box::pin(
                async move { SocketFactory::default().connect(address).await.map(Carrier::from) },
            )
        };
        let handshake = |(_, address): Address, carrier: Carrier| -> Handshake<SocketAddr> {
            Box::pin(async move {
                let mut byte = [0];
                let read = carrier.readable().await.and_then(|()| carrier.try_read(&mut byte));
                match (read, &byte) {
                    (Ok(1), b"y") => Ok(address),
                    _ => Err(DialError::WrongPin { address }),
                }
            })
        };
        let reach = Reach {
            patience,
            report: None,
            rungs: &Rungs::new(endpoints, None),
            open: Arc::new(open),
            handshake: Arc::new(handshake),
        };
        reach.connect(addresses.iter().map(|address| (address.clone(), 0)).collect()).await
    }

    #[tokio::test]
    async fn a_connection_that_leads_nowhere_is_passed_by() {
        let (listener, address) = listener().await;
        let accepted = Mutex::new(Vec::new());
        let serve = async {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut accepted = accepted.lock().unwrap();
                if !accepted.is_empty() {
                    tcp.try_write(b"y").unwrap();
                }
                accepted.push(tcp);
            }
        };
        let reached = connect(std::slice::from_ref(&address), Patience::Endless);
        tokio::select! {
            () = serve => {}
            reached = timeout(STALLED * 2, reached) => assert_eq!(reached.unwrap().unwrap(), address.1),
        }
        assert_eq!(accepted.lock().unwrap().len(), 2);
    }

    async fn answer(wrong: &TcpListener, right: &TcpListener) {
        loop {
            tokio::select! {
                tcp = wrong.accept() => drop(tcp.unwrap().0.try_write(b"n").unwrap()),
                tcp = right.accept() => drop(tcp.unwrap().0.try_write(b"y").unwrap()),
            }
        }
    }

    #[tokio::test]
    async fn a_wrong_answer_ends_it_unless_another_address_gives_the_right_one() {
        let (wrong, wrong_address) = listener().await;
        let (right, right_address) = listener().await;
        let both = [wrong_address.clone(), right_address.clone()];
        for patience in [Patience::Once, Patience::Endless] {
            let tries = async {
                let alone = connect(&both[..1], patience).await;
                (alone, connect(&both, patience).await)
            };
            let (alone, with_other) = tokio::select! {
                () = answer(&wrong, &right) => panic!("never ends"),
                tries = timeout(OTHERS, tries) => tries.unwrap(),
            };
            assert!(matches!(alone, Err(DialError::WrongPin { .. })), "{alone:?}");
            assert_eq!(with_other.unwrap(), right_address.1);
        }
    }
}

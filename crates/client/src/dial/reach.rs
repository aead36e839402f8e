//! TLS with whichever of a gateway's addresses gets there first.
//!
//! The first TCP connection goes on with TLS. If that takes long, the path may have died again, or
//! something in between accepts connections and leads nowhere: then another one is tried beside it.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use cipherwall_proto::invitation::Endpoint;
use cipherwall_transport::socket::SocketFactory;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    DialError, OPENING_TIME,
    hedge::{Failed, Hedge, Opened, Opening, Patience},
};

/// How long TLS may take before another connection is tried beside it, over four times what TCP
/// took, which is a round trip. Longer each time.
const STALLED: Duration = Duration::from_secs(1);
/// How long other addresses are waited for once one has answered wrongly.
const OTHERS: Duration = Duration::from_secs(2);
const REPORT_EVERY: Duration = Duration::from_secs(1);

type Address = (Endpoint, SocketAddr);

/// TLS over a TCP connection.
pub(super) type Handshake<T> = Pin<Box<dyn Future<Output = Result<T, DialError>> + Send>>;

/// Is told what goes wrong while it is tried again and again.
pub(crate) type Report = Arc<dyn Fn(&DialError) + Send + Sync>;

/// How to get through to a gateway.
pub(super) struct Reach<'a> {
    pub(super) factory: SocketFactory,
    pub(super) patience: Patience,
    pub(super) report: Option<&'a Report>,
}

impl Reach<'_> {
    /// TCP and then TLS to the first of `addresses` that works.
    ///
    /// # Errors
    /// An address answered wrongly and no other one answers; with [`Patience::Once`] also when none
    /// answers at all.
    pub(super) async fn connect<T: Send + 'static>(
        &self,
        addresses: &[Address],
        handshake: impl Fn(Address, TcpStream) -> Handshake<T>,
    ) -> Result<T, DialError> {
        let factory = self.factory;
        let open = move |(_, address): &Address| -> Opening<TcpStream> {
            let address = *address;
            Box::pin(async move { factory.connect(address).await })
        };
        let mut hedge = Hedge::new(addresses.to_vec(), self.patience, open);
        let mut handshakes = JoinSet::new();
        let mut wrong: Option<Wrong> = None;
        let mut wait = Wait::default();
        loop {
            tokio::select! {
                Some(done) = handshakes.join_next() => match done {
                    Ok((_, Ok(connected))) => return Ok(connected),
                    Ok((address, Err(error))) => {
                        if !hedge.leave_out(&address) {
                            return Err(error);
                        }
                        let until = wrong.map_or_else(|| Instant::now() + OTHERS, |w| w.until);
                        wrong = Some(Wrong { error, until });
                        wait.is_over();
                    }
                    Err(_) => wait.is_over(),
                },
                opened = hedge.next(), if !wait.is_on() => match opened {
                    Ok(Opened { address, connection, took }) => {
                        wait.begin(took);
                        let tls = handshake(address.clone(), connection);
                        handshakes.spawn(async move { (address, tls.await) });
                    }
                    Err(_) if !handshakes.is_empty() => wait.begin_last(),
                    Err(failed) => {
                        return Err(wrong.map_or_else(|| unreachable(failed), |w| w.error));
                    }
                },
                () = wait.passes() => {
                    wait.is_over();
                    hedge.again();
                }
                error = Wrong::given_up(&mut wrong) => return Err(error),
                () = sleep(REPORT_EVERY), if self.report.is_some() => {
                    if let (Some(report), Some(failed)) = (self.report, hedge.take_failed()) {
                        report(&unreachable(Some(failed)));
                    }
                }
            }
        }
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
    count: u32,
}

impl Wait {
    /// For a handshake over a connection that took so long.
    fn begin(&mut self, took: Duration) {
        let time = (STALLED + took * 4) * (1 << self.count.min(4));
        self.until = Some(Instant::now() + time);
        self.count += 1;
    }

    /// For what is under way: there will be no other connection.
    fn begin_last(&mut self) {
        self.until = Some(Instant::now() + OPENING_TIME * 2);
    }

    fn is_over(&mut self) {
        self.until = None;
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

/// The order to be tried in after `worked` has worked, which comes first: the families in turns
/// (RFC 8305, 4), since one of them may be dead as a whole.
pub(super) fn in_order<E>(
    addresses: Vec<(E, SocketAddr)>,
    worked: SocketAddr,
) -> Vec<(E, SocketAddr)> {
    let (mut same, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|(_, address)| address.is_ipv4() == worked.is_ipv4());
    same.sort_by_key(|(_, address)| *address != worked);
    let places = |first: usize| (first..).step_by(2);
    let mut all: Vec<_> = places(0).zip(same).chain(places(1).zip(other)).collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, address)| address).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cipherwall_proto::invitation::Transport;
    use tokio::{io::AsyncReadExt, net::TcpListener, time::timeout};

    use super::*;

    #[test]
    fn the_address_that_worked_comes_first_and_the_families_take_turns() {
        let order = |addresses: &[&str], worked: &str| -> Vec<String> {
            let known = addresses.iter().map(|text| ((), text.parse().unwrap())).collect();
            let ordered = in_order(known, worked.parse().unwrap());
            ordered.into_iter().map(|(_, address)| address.to_string()).collect()
        };
        let [six, seven] = ["[2001:db8::6]:1", "[2001:db8::7]:1"];
        let [one, two, three] = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"];
        assert_eq!(
            order(&[six, seven, one, two, three], two),
            [two, six, one, seven, three].map(str::to_owned)
        );
        assert_eq!(order(&[one, two], six), [one, two].map(str::to_owned));
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { host: "gateway".into(), port, transport: Transport::Tls, pins: [[0; 32]; 2] }
    }

    async fn listener() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, (endpoint(address.port()), address))
    }

    fn reach(patience: Patience) -> Reach<'static> {
        Reach { factory: SocketFactory::default(), patience, report: None }
    }

    /// A handshake that is done when the other end sends a byte: `y`, or anything else if it is not
    /// the gateway.
    fn handshake((_, address): Address, mut tcp: TcpStream) -> Handshake<SocketAddr> {
        Box::pin(async move {
            match tcp.read_u8().await {
                Ok(b'y') => Ok(address),
                _ => Err(DialError::WrongPin { address }),
            }
        })
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
        let endless = reach(Patience::Endless);
        let reached = endless.connect(std::slice::from_ref(&address), handshake);
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
            let reach = reach(patience);
            let tries = async {
                let alone = reach.connect(&both[..1], handshake).await;
                (alone, reach.connect(&both, handshake).await)
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

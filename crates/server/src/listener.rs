//! Accepts connections, and bounds how many there may be before they have logged in
//! (docs/protocol.md, "Bounds before authentication").

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot};

use crate::{config::Limits, gateway::Gateway, origin, visitor};

/// Accepts connections for as long as the gateway runs.
pub async fn run(listener: TcpListener, gateway: Arc<Gateway>) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let Some((place, shed)) = gateway.places.take(peer.ip()) else {
                    tracing::debug!(%peer, "too many connections that have not logged in");
                    continue;
                };
                tokio::spawn(visitor::serve(gateway.clone(), tcp, peer, place, shed));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // too many open files, most likely; they do not go away at once
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Places for connections that have not logged in.
///
/// Of one address the newcomer is refused once it has its share. If all places are taken, the
/// largest of the crowds gives way, its oldest member first: neither silent connections nor idle
/// visitors, however many, keep anybody else out.
pub struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing has come yet.
    Silent,
    /// The TLS handshake has begun, which takes memory.
    Speaking,
    /// The TLS handshake is complete: a visitor of the web site.
    Visitor,
    /// It knocked rightly. Never has to go.
    Client,
}

/// How many may be [`Stage::Speaking`] and [`Stage::Visitor`] together: some 30 KB each.
const SPEAKING_MAX: usize = 768;
/// Who may have to go; of equal crowds the last.
const CROWDS: [Stage; 3] = [Stage::Visitor, Stage::Speaking, Stage::Silent];

/// Which connection: how far it has come, and its number.
type Rank = (Stage, u64);

#[derive(Default)]
struct Taken {
    /// Dropping the sender ends the connection.
    open: BTreeMap<Rank, (IpAddr, oneshot::Sender<()>)>,
    by_network: HashMap<IpAddr, u32>,
    /// How many there are of each [`Stage`].
    by_stage: [usize; 4],
    next: u64,
}

/// One such place, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    rank: Rank,
}

/// Resolves when a connection has to go because its place was given to another.
pub type Shed = oneshot::Receiver<()>;

impl Places {
    /// With these bounds.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A place for a connection from this address, if one can be had.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<(Place, Shed)> {
        let network = origin::network(address);
        let mut taken = self.lock();
        let here = taken.by_network.get(&network).copied().unwrap_or(0);
        if here >= self.limits.connections_per_address {
            return None;
        }
        if taken.open.len() as u64 >= u64::from(self.limits.connections) {
            let first = taken.first_to_go(&CROWDS)?;
            taken.free(first);
        }
        let rank = (Stage::Silent, taken.next);
        taken.next += 1;
        let (keep, shed) = oneshot::channel();
        taken.open.insert(rank, (network, keep));
        taken.by_stage[rank.0 as usize] += 1;
        *taken.by_network.entry(network).or_default() += 1;
        Some((Place { places: self.clone(), rank }, shed))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The oldest of the largest of these crowds.
    fn first_to_go(&self, crowds: &[Stage]) -> Option<Rank> {
        let largest = *crowds.iter().max_by_key(|stage| self.by_stage[**stage as usize])?;
        self.open.range((largest, 0)..=(largest, u64::MAX)).next().map(|(rank, _)| *rank)
    }

    fn free(&mut self, rank: Rank) {
        let Some((network, _)) = self.open.remove(&rank) else { return };
        self.by_stage[rank.0 as usize] -= 1;
        if let Some(here) = self.by_network.get_mut(&network) {
            *here -= 1;
            if *here == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

impl Place {
    /// The connection has come so far.
    pub fn advance(&mut self, stage: Stage) {
        let mut taken = self.places.lock();
        // gone: the place was given to another, and the connection is about to hear of it
        let Some(open) = taken.open.remove(&self.rank) else { return };
        taken.by_stage[self.rank.0 as usize] -= 1;
        taken.by_stage[stage as usize] += 1;
        self.rank.0 = stage;
        taken.open.insert(self.rank, open);
        let speaking = [Stage::Visitor, Stage::Speaking];
        if speaking.iter().map(|stage| taken.by_stage[*stage as usize]).sum::<usize>()
            > SPEAKING_MAX
            && let Some(first) = taken.first_to_go(&speaking)
        {
            taken.free(first);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().free(self.rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn places(connections: u32, connections_per_address: u32) -> Arc<Places> {
        Places::new(Limits { connections, connections_per_address, ..Limits::default() })
    }

    fn is_shed(shed: &mut Shed) -> bool {
        shed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn of_one_network_the_newcomer_is_refused_and_places_come_back() {
        let places = places(100, 2);
        let (first, mut shed) = places.take(ip("192.0.2.1")).unwrap();
        let _second = places.take(ip("192.0.2.1")).unwrap();
        assert!(places.take(ip("192.0.2.1")).is_none());
        assert!(!is_shed(&mut shed));
        // addresses of one /64 count as one
        let _third = places.take(ip("2001:db8::1")).unwrap();
        let _fourth = places.take(ip("2001:db8::ffff")).unwrap();
        assert!(places.take(ip("2001:db8::2")).is_none());
        drop(first);
        assert!(places.take(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn when_all_are_taken_the_oldest_silent_one_goes_then_visitors_never_clients() {
        let places = places(3, 10);
        let take = |address: &str| places.take(ip(address));
        let (mut client, mut client_shed) = take("192.0.2.1").unwrap();
        client.advance(Stage::Client);
        let (mut visitor, mut visitor_shed) = take("192.0.2.2").unwrap();
        visitor.advance(Stage::Visitor);
        let (silent, mut silent_shed) = take("192.0.2.3").unwrap();

        let (mut second, mut second_shed) = take("192.0.2.4").unwrap();
        assert!(is_shed(&mut silent_shed));
        assert!(!is_shed(&mut visitor_shed) && !is_shed(&mut second_shed));
        drop(silent); // its place is another's by now
        second.advance(Stage::Client);
        let (mut third, _third_shed) = take("192.0.2.5").unwrap();
        assert!(is_shed(&mut visitor_shed));
        visitor.advance(Stage::Client); // too late
        third.advance(Stage::Client);
        assert!(take("192.0.2.6").is_none(), "all three are clients");
        assert!(!is_shed(&mut client_shed) && !is_shed(&mut second_shed));
        drop(client);
        assert!(take("192.0.2.6").is_some());
    }

    #[test]
    fn a_newcomer_outlives_a_crowd_of_visitors() {
        let places = places(10, 10);
        let mut crowd = Vec::new();
        for n in 0..10_u8 {
            let (mut place, shed) = places.take(IpAddr::from([192, 0, 2, n])).unwrap();
            place.advance(Stage::Visitor);
            crowd.push((place, shed));
        }
        let (mut newcomer, mut newcomer_shed) = places.take(ip("198.51.100.1")).unwrap();
        newcomer.advance(Stage::Speaking);
        for n in 0..4_u8 {
            crowd.push(places.take(IpAddr::from([203, 0, 113, n])).unwrap());
        }
        assert!(!is_shed(&mut newcomer_shed));
        assert_eq!(crowd.iter_mut().filter_map(|(_, s)| is_shed(s).then_some(())).count(), 5);
    }

    #[test]
    fn those_that_take_memory_are_few() {
        let places = places(4_096, 4_096);
        let mut crowd: Vec<(Place, Shed)> =
            (0..SPEAKING_MAX + 5).map(|_| places.take(ip("192.0.2.1")).unwrap()).collect();
        crowd.iter_mut().for_each(|(place, _)| place.advance(Stage::Speaking));
        let shed = crowd.iter_mut().map(|(_, shed)| is_shed(shed)).collect::<Vec<_>>();
        assert_eq!(shed.iter().filter(|shed| **shed).count(), 5);
        assert!(shed[..5].iter().all(|shed| *shed), "the oldest went");
    }

    #[test]
    fn nothing_is_left_behind() {
        let places = places(4, 2);
        for n in 0..100_u8 {
            let (mut place, _shed) = places.take(IpAddr::from([192, 0, 2, n])).unwrap();
            place.advance(Stage::Visitor);
        }
        let taken = places.lock();
        assert!(taken.open.is_empty() && taken.by_network.is_empty());
        assert_eq!(taken.by_stage, [0; 4]);
    }
}

//! Places for connections that have not logged in, and who gives way when there are too many
//! (docs/protocol.md, "Bounds before authentication").
//!
//! The listener [takes](Places::take) one for each connection, which says how far it has come
//! ([`Place::speak`], [`Place::advance`]) and ends when its place is given to another ([`Shed`]).

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{admin::Strangers, config::Limits, origin};

/// The places of a gateway.
///
/// A newcomer is never the one to be turned away. If its own address has its share of places, the
/// oldest from there gives way, so that nobody can keep out others who share his address; if all
/// are taken, the oldest from the address that has most. Of both, the largest of the crowds at the
/// same stage gives way first: neither silent connections nor idle visitors, however many, keep
/// out whoever goes on to the next stage at once, as a client does.
pub struct Places {
    limits: Limits,
    /// Connections that are there, those among them that are about to hear that they have to go.
    open: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has come yet.
    Silent,
    /// The TLS handshake has begun, which takes memory.
    Speaking,
    /// The TLS handshake is complete: a visitor of the web site.
    Visitor,
    /// It knocked rightly, and has not made a whole request since.
    Knocked,
    /// Its request is being looked up: it does not have to go. The gateway bounds how many.
    Asking,
}

/// How many may be about to hear that they have to go. Each still has its file descriptor.
pub const GOING_MAX: usize = 256;
/// How many may be behind [`Stage::Silent`]: some 30 KB each.
const SPEAKING_MAX: usize = 768;
/// Who may have to go; of equal crowds the last.
const CROWDS: [Stage; 4] = [Stage::Knocked, Stage::Visitor, Stage::Speaking, Stage::Silent];
/// Those of them that take memory.
const SPEAKING: [Stage; 3] = [Stage::Knocked, Stage::Visitor, Stage::Speaking];

#[derive(Default)]
struct Taken {
    open: HashMap<u64, Open>,
    /// How many are open from each network.
    networks: HashMap<IpAddr, u32>,
    crowds: [Crowd; 5],
    /// Connections are numbered as they come.
    next: u64,
    /// How many had to go.
    gone: u64,
}

struct Open {
    network: IpAddr,
    stage: Stage,
    /// Dropped, it ends the connection.
    _keep: oneshot::Sender<()>,
}

/// The connections at one stage.
#[derive(Default)]
struct Crowd {
    members: HashMap<IpAddr, BTreeSet<u64>>,
    /// How many members each network has, and its oldest: the last is the first to go.
    order: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    count: usize,
}

/// One such place, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    network: IpAddr,
    number: u64,
    _open: OwnedSemaphorePermit,
}

/// Resolves when a connection has to go because its place was given to another.
pub type Shed = oneshot::Receiver<()>;

impl Places {
    /// With these bounds.
    pub fn new(limits: Limits) -> Arc<Self> {
        let open = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        let open = open.saturating_add(GOING_MAX).min(Semaphore::MAX_PERMITS);
        Arc::new(Self { limits, open: Arc::new(Semaphore::new(open)), taken: Mutex::default() })
    }

    /// A place for a connection from this address. `None` if all who would have to give way are
    /// [asking](Stage::Asking), or too many have not yet heard of it ([`Places::wait`]).
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<(Place, Shed)> {
        let open = self.open.clone().try_acquire_owned().ok()?;
        let network = origin::network(address);
        let (number, shed) = self.lock().admit(&self.limits, network, Stage::Silent)?;
        Some((Place { places: self.clone(), network, number, _open: open }, shed))
    }

    /// Waits until those who have to go are gone, so that another can come.
    pub async fn wait(&self) {
        // an error: never closed
        let _ = self.open.acquire().await;
    }

    /// Has one connection give way, as when the system cannot give another.
    pub fn make_room(&self) {
        let mut taken = self.lock();
        if let Some(first) = taken.first_to_go(&CROWDS) {
            taken.shed(first);
        }
    }

    /// What the administrator gets to see.
    pub fn strangers(&self) -> Strangers {
        let taken = self.lock();
        Strangers { connections: taken.open.len() as u64, gave_way: taken.gone }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// One more, at the cost of another if need be.
    fn admit(&mut self, limits: &Limits, network: IpAddr, stage: Stage) -> Option<(u64, Shed)> {
        let here = self.networks.get(&network).copied().unwrap_or(0);
        if here >= limits.connections_per_address {
            let first = self.first_of(network)?;
            self.shed(first);
        } else if self.open.len() as u64 >= u64::from(limits.connections) {
            let first = self.first_to_go(&CROWDS)?;
            self.shed(first);
        }
        let number = self.next;
        self.next += 1;
        let (keep, shed) = oneshot::channel();
        self.open.insert(number, Open { network, stage, _keep: keep });
        *self.networks.entry(network).or_default() += 1;
        self.crowd(stage).insert(network, number);
        self.bound_speaking();
        Some((number, shed))
    }

    /// Not too many that take memory.
    fn bound_speaking(&mut self) {
        let speaking: usize = SPEAKING.iter().map(|stage| self.count(*stage)).sum();
        if speaking + self.count(Stage::Asking) > SPEAKING_MAX
            && let Some(first) = self.first_to_go(&SPEAKING)
        {
            self.shed(first);
        }
    }

    fn crowd(&mut self, stage: Stage) -> &mut Crowd {
        &mut self.crowds[stage as usize]
    }

    fn count(&self, stage: Stage) -> usize {
        self.crowds[stage as usize].count
    }

    fn advance(&mut self, number: u64, stage: Stage) -> bool {
        let Some(open) = self.open.get_mut(&number) else { return false };
        let (network, before) = (open.network, std::mem::replace(&mut open.stage, stage));
        self.crowd(before).remove(network, number);
        self.crowd(stage).insert(network, number);
        self.bound_speaking();
        self.open.contains_key(&number)
    }

    /// Of the largest of these crowds, the oldest from the network that has most in it.
    fn first_to_go(&self, crowds: &[Stage]) -> Option<u64> {
        let largest = *crowds.iter().max_by_key(|stage| self.count(**stage))?;
        let (_, Reverse(oldest), _) = self.crowds[largest as usize].order.last()?;
        Some(*oldest)
    }

    /// Of the largest of the crowds from this network, the oldest.
    fn first_of(&self, network: IpAddr) -> Option<u64> {
        let here = CROWDS.iter().filter_map(|stage| {
            let members = self.crowds[*stage as usize].members.get(&network)?;
            Some((members.len(), *members.first()?))
        });
        here.max_by_key(|(count, _)| *count).map(|(_, oldest)| oldest)
    }

    fn shed(&mut self, number: u64) {
        self.free(number);
        self.gone += 1;
    }

    fn free(&mut self, number: u64) {
        let Some(Open { network, stage, .. }) = self.open.remove(&number) else { return };
        self.crowd(stage).remove(network, number);
        if let Some(here) = self.networks.get_mut(&network) {
            *here -= 1;
            if *here == 0 {
                self.networks.remove(&network);
            }
        }
    }
}

impl Crowd {
    fn insert(&mut self, network: IpAddr, number: u64) {
        self.change(network, |members| _ = members.insert(number));
    }

    fn remove(&mut self, network: IpAddr, number: u64) {
        self.change(network, |members| _ = members.remove(&number));
    }

    fn change(&mut self, network: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let mut members = self.members.remove(&network).unwrap_or_default();
        if let Some(oldest) = members.first() {
            self.order.remove(&(members.len(), Reverse(*oldest), network));
        }
        self.count -= members.len();
        change(&mut members);
        self.count += members.len();
        if let Some(oldest) = members.first() {
            self.order.insert((members.len(), Reverse(*oldest), network));
            self.members.insert(network, members);
        }
    }
}

impl Place {
    /// Something has come. If the place was given to another while nobody had time to look, another
    /// one is taken: who was not silent does not go for silence. `None` if there is none.
    pub fn speak(&mut self, shed: Shed) -> Option<Shed> {
        let mut taken = self.places.lock();
        if taken.advance(self.number, Stage::Speaking) {
            return Some(shed);
        }
        let (number, shed) = taken.admit(&self.places.limits, self.network, Stage::Speaking)?;
        self.number = number;
        Some(shed)
    }

    /// The connection has come so far. `false` if its place was given to another meanwhile.
    pub fn advance(&mut self, stage: Stage) -> bool {
        self.places.lock().advance(self.number, stage)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().free(self.number);
    }
}

#[cfg(test)]
mod tests;

//! Who may test: few at a time, each client once, and few connections of each.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{MAX_STREAMS, request::Answer};

/// Tests at a time.
pub(crate) const MAX_TESTS: usize = 3;
/// Connections at a time, also those that have not asked for anything yet.
const MAX_CONNECTIONS: usize = 64;
/// Those of one client: its test, the streams of a transfer, and a little for those that are just
/// ending.
pub(crate) const MAX_CONNECTIONS_EACH: usize = MAX_STREAMS as usize + 4;

/// All places.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<IpAddr, Client>>);

#[derive(Debug, Default)]
struct Client {
    connections: usize,
    /// Closed when the test ends.
    test: Option<watch::Receiver<()>>,
}

impl Places {
    /// A connection of this client; `None`: there are too many.
    pub(crate) fn enter(self: &Arc<Places>, client: IpAddr) -> Option<Guest> {
        let mut clients = self.clients();
        let all: usize = clients.values().map(|client| client.connections).sum();
        let own = clients.get(&client).map_or(0, |client| client.connections);
        if all >= MAX_CONNECTIONS || own >= MAX_CONNECTIONS_EACH {
            return None;
        }
        clients.entry(client).or_default().connections += 1;
        Some(Guest { places: Arc::clone(self), client })
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    places: Arc<Places>,
    client: IpAddr,
}

impl Guest {
    /// Begins a test, which lasts until the returned value is dropped.
    pub(crate) fn begin_test(&self) -> Result<Test<'_>, Answer> {
        let mut clients = self.places.clients();
        let testing = |client: &Client| client.test.is_some();
        if clients.get(&self.client).is_some_and(testing) {
            return Err(Answer::AlreadyTesting);
        }
        if clients.values().filter(|client| testing(client)).count() >= MAX_TESTS {
            return Err(Answer::Busy);
        }
        let (running, ended) = watch::channel(());
        clients.entry(self.client).or_default().test = Some(ended);
        Ok(Test { guest: self, _running: running })
    }

    /// Waits for the end of this client's test; `None`: it has none.
    pub(crate) fn end_of_test(&self) -> Option<impl Future<Output = ()> + use<>> {
        let mut ended = self.places.clients().get(&self.client)?.test.clone()?;
        Some(async move { while ended.changed().await.is_ok() {} })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut clients = self.places.clients();
        if let Some(client) = clients.get_mut(&self.client) {
            client.connections -= 1;
            if client.connections == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// A running test.
#[derive(Debug)]
pub(crate) struct Test<'a> {
    guest: &'a Guest,
    _running: watch::Sender<()>,
}

impl Drop for Test<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.guest.places.clients().get_mut(&self.guest.client) {
            client.test = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([10, 8, 0, number])
    }

    #[test]
    fn a_few_test_each_once_and_leave_nothing() {
        let places = Arc::<Places>::default();
        let guests: Vec<_> = (0..=3).map(|number| places.enter(client(number)).unwrap()).collect();
        let mut tests: Vec<_> = guests.iter().take(3).map(|it| it.begin_test().unwrap()).collect();
        assert_eq!(guests[3].begin_test().unwrap_err(), Answer::Busy);
        assert_eq!(guests[2].begin_test().unwrap_err(), Answer::AlreadyTesting);
        assert!(guests[2].end_of_test().is_some() && guests[3].end_of_test().is_none());
        tests.remove(2);
        assert_eq!(guests[1].begin_test().unwrap_err(), Answer::AlreadyTesting);
        drop(guests[3].begin_test().unwrap());
        drop(tests);
        drop(guests);
        assert!(places.clients().is_empty());
    }

    #[test]
    fn connections_are_bounded_for_each_and_for_all() {
        let places = Arc::<Places>::default();
        let mut guests = Vec::new();
        while let Some(guest) = places.enter(client(1)) {
            guests.push(guest);
        }
        assert_eq!(guests.len(), MAX_CONNECTIONS_EACH);
        let others = (2..=255).flat_map(|number| [client(number); MAX_CONNECTIONS_EACH]);
        guests.extend(others.filter_map(|client| places.enter(client)));
        assert_eq!(guests.len(), MAX_CONNECTIONS);
        guests.remove(0);
        assert!(places.enter(client(1)).is_some());
    }
}

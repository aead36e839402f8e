//! What one client may have of something that all share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by client.
#[derive(Debug)]
pub(super) struct Shares {
    each: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One part of a client's share, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    client: IpAddr,
}

impl Shares {
    /// So many for each client.
    pub(super) fn new(each: usize) -> Arc<Shares> {
        Arc::new(Shares { each, taken: Mutex::default() })
    }

    /// One more for this client; `None`: it has its share.
    pub(super) fn take(self: &Arc<Shares>, client: IpAddr) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(client).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Share { shares: Arc::clone(self), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_no_more_and_leaves_nothing() {
        let shares = Shares::new(2);
        let (ada, bob) = (IpAddr::from([10, 8, 0, 2]), IpAddr::from([10, 8, 0, 3]));
        let held = [shares.take(ada).unwrap(), shares.take(ada).unwrap()];
        assert!(shares.take(ada).is_none());
        drop(shares.take(bob).unwrap());
        drop(held);
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}

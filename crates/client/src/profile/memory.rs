//! Which way to the gateway has worked on which network (C6): one file beside the profile's, so that
//! the next connection there begins with it.
//!
//! Networks are told apart by a number that says nothing without the profile's own secret
//! ([`Network`]).

use std::path::PathBuf;

use cipherwall_netcfg::NetworkPath;
use cipherwall_proto::invitation::Endpoint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Profile, ProfileError, Profiles, address, check_name};
use crate::files;

/// So many networks are remembered; the one that was not used for longest is forgotten.
const NETWORKS: usize = 32;

/// A network, by numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// By addresses, which others may have as well.
    place: String,
    /// By the router's hardware address, while that is known.
    router: Option<String>,
}

impl Network {
    /// The network that this path begins in.
    pub(crate) fn new(profile: &Profile, path: &NetworkPath, router: Option<&[u8]>) -> Network {
        let number = |what: String| {
            let mut hash = Sha256::new();
            hash.update(b"cipherwall network");
            hash.update(*profile.device_seed);
            hash.update(what);
            let bytes = &hash.finalize()[..8];
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        Network {
            place: number(format!("router {:?}, source {:?}", path.router, path.source)),
            router: router.map(|hardware| number(format!("router {hardware:02x?}"))),
        }
    }

    /// Whether both are the same network, as far as can be told.
    pub(crate) fn is_same(&self, other: &Network) -> bool {
        match (&self.router, &other.router) {
            (Some(one), Some(other)) => one == other,
            _ => self.place == other.place,
        }
    }

    fn number(&self) -> &str {
        self.router.as_ref().unwrap_or(&self.place)
    }
}

/// What is remembered, the latest network first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    networks: Vec<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    network: String,
    /// The endpoint that worked, as [`name`] has it.
    worked: String,
}

/// An endpoint as it is remembered, and logged.
pub(crate) fn name(endpoint: &Endpoint) -> String {
    format!("{} over {}", address(&endpoint.host, endpoint.port), endpoint.transport.name())
}

impl Memory {
    /// The endpoint that worked last on this network, by its place in the profile.
    pub(crate) fn worked(&self, network: &Network, endpoints: &[Endpoint]) -> Option<usize> {
        let known = self.networks.iter().find(|known| known.network == network.number())?;
        endpoints.iter().position(|endpoint| name(endpoint) == known.worked)
    }

    /// It was this one; whether that is anything new.
    pub(crate) fn note(&mut self, network: &Network, endpoint: &Endpoint) -> bool {
        let known = Known { network: network.number().to_owned(), worked: name(endpoint) };
        if self.networks.first() == Some(&known) {
            return false;
        }
        self.networks.retain(|other| other.network != known.network);
        self.networks.insert(0, known);
        self.networks.truncate(NETWORKS);
        true
    }
}

impl Profiles {
    /// What is remembered of a profile's networks.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn memory(&self, name: &str) -> Result<Memory, ProfileError> {
        Ok(files::read_json(&self.memory_path(name)?)?.unwrap_or_default())
    }

    /// Remembers it.
    ///
    /// # Errors
    /// The profile is gone, or the directory is not writable.
    pub(crate) fn save_memory(&self, name: &str, memory: &Memory) -> Result<(), ProfileError> {
        let _lock = self.lock()?;
        if !self.exists(name)? {
            return Err(ProfileError::Missing { name: name.to_owned(), known: self.names()? });
        }
        Ok(files::write_json(&self.memory_path(name)?, memory, 0o600)?)
    }

    /// Removes what belongs to a profile, within the lock.
    pub(super) fn forget_memory(&self, name: &str) -> Result<(), ProfileError> {
        let path = self.memory_path(name)?;
        if path.exists() {
            files::remove(&path)?;
        }
        Ok(())
    }

    /// Moves it along with its profile, within the lock.
    pub(super) fn rename_memory(&self, name: &str, new_name: &str) -> Result<(), ProfileError> {
        // one that cannot be read is not worth keeping
        if let Ok(memory @ Memory { .. }) = self.memory(name)
            && !memory.networks.is_empty()
        {
            files::write_json(&self.memory_path(new_name)?, &memory, 0o600)?;
        }
        self.forget_memory(name)
    }

    fn memory_path(&self, name: &str) -> Result<PathBuf, ProfileError> {
        check_name(name)?;
        Ok(self.dir.join(format!("{name}.networks")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{invitation, store};
    use super::*;

    fn profile() -> Profile {
        let mut invitation = invitation();
        let other = Endpoint { port: 443, ..invitation.endpoints[0].clone() };
        invitation.endpoints.push(other);
        Profile::from_invitation("home".into(), invitation).expect("random bytes")
    }

    fn path(router: u8) -> NetworkPath {
        NetworkPath {
            interface: 1,
            router: Some([192, 0, 2, router].into()),
            source: Some([192, 0, 2, 7].into()),
            carrier: true,
        }
    }

    #[test]
    fn a_network_is_its_router_and_says_nothing_to_others() {
        let [profile, other] = [(); 2].map(|()| profile());
        let here = Network::new(&profile, &path(1), Some(&[1, 2, 3]));
        let is_here = |network: Network| network.is_same(&here);
        assert!(is_here(Network::new(&profile, &path(9), Some(&[1, 2, 3]))), "the same hardware");
        assert!(!is_here(Network::new(&profile, &path(1), Some(&[1, 2, 4]))));
        assert!(is_here(Network::new(&profile, &path(1), None)), "as far as is known");
        assert!(!is_here(Network::new(&profile, &path(2), None)));
        let elsewhere = Network::new(&other, &path(1), Some(&[1, 2, 3]));
        assert_ne!(here.number(), elsewhere.number(), "another device key");
    }

    #[test]
    fn what_worked_last_is_remembered_of_some_networks() {
        let profile = profile();
        let endpoints = &profile.endpoints;
        let network = |number: u8| Network::new(&profile, &path(1), Some(&[number]));
        let mut memory = Memory::default();
        assert_eq!(memory.worked(&network(0), endpoints), None);
        assert!(memory.note(&network(0), &endpoints[1]));
        assert!(!memory.note(&network(0), &endpoints[1]), "nothing new");
        assert_eq!(memory.worked(&network(0), endpoints), Some(1));
        assert_eq!(memory.worked(&network(0), &endpoints[..1]), None, "no longer in the profile");
        for number in 1..=NETWORKS as u8 {
            assert!(memory.note(&network(number), &endpoints[0]));
        }
        assert_eq!(memory.worked(&network(0), endpoints), None, "forgotten");
        assert_eq!(memory.worked(&network(1), endpoints), Some(0));
    }

    #[test]
    fn it_goes_with_its_profile() {
        let (dir, profiles) = store();
        let profile = profile();
        profiles.save(&profile).expect("saved");
        let mut memory = profiles.memory("home").expect("nothing yet");
        let network = Network::new(&profile, &path(1), None);
        memory.note(&network, &profile.endpoints[0]);
        profiles.save_memory("home", &memory).expect("saved");
        profiles.rename("home", "cabin").expect("renamed");
        assert_eq!(profiles.memory("cabin").expect("read"), memory);
        assert_eq!(profiles.memory("home").expect("none"), Memory::default());
        assert_eq!(profiles.names().expect("listed"), ["cabin"], "no profile of its own");
        profiles.remove("cabin").expect("removed");
        let left = fs::read_dir(dir.path().join("state/profiles")).expect("listed").count();
        assert_eq!(left, 0);
        profiles.save_memory("cabin", &memory).expect_err("no profile");
    }
}

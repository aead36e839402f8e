//! The session that goes on when a connection is lost: in memory, and on disk with its profile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cipherwall_proto::{frame::Control, message::Welcome};
use cipherwall_transport::{tls::Pin, tunnel::Sender};

use super::Dialed;
use crate::profile::{Profile, ProfileError, Profiles, Session};

/// How long to wait before saying something again that there was no room for.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps the session of one profile. Clones keep the same one.
#[derive(Clone)]
pub(super) struct Keeper(Arc<Inner>);

struct Inner {
    profiles: Profiles,
    profile: String,
    user: String,
    current: Mutex<Option<Session>>,
    /// Held while the file is written, so that it ends up with what is current.
    file: Mutex<()>,
}

impl Keeper {
    /// With what an earlier process has kept.
    pub(super) fn new(profiles: Profiles, profile: &Profile) -> Self {
        let kept = profiles.session(&profile.name).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the session kept; logging in instead");
            None
        });
        // `login` may have made it another user's profile
        let current = Mutex::new(kept.filter(|session| session.user == profile.user));
        let (name, user) = (profile.name.clone(), profile.user.clone());
        Self(Arc::new(Inner { profiles, profile: name, user, current, file: Mutex::default() }))
    }

    /// The session to go on with.
    pub(super) fn current(&self) -> Option<Session> {
        self.0.current().clone()
    }

    /// Goes on with the session of this connection from now on. Once its token is on disk, the
    /// gateway hears of it, and takes earlier ones no more.
    pub(super) fn keep(&self, dialed: &Dialed) {
        let session = Session::new(&self.0.user, &dialed.welcome, &dialed.endpoint);
        *self.0.current() = Some(session.clone());
        let keeper = self.0.clone();
        let (pins, sender) =
            (new_pins(&dialed.welcome, dialed.endpoint.pins), dialed.link.sender().clone());
        let (used, resumed) = (dialed.endpoint.pins, dialed.resumed);
        tokio::spawn(async move {
            let store = move || {
                if let Some(pins) = pins {
                    keeper.store_pins(used, pins);
                }
                keeper.store(&session)
            };
            if tokio::task::spawn_blocking(store).await.unwrap_or(false) && resumed {
                tell(&sender).await;
            }
        });
    }

    /// The session is over, or this one of them if it is current.
    pub(super) fn forget(&self, only: Option<&Session>) {
        {
            let current = &mut *self.0.current();
            if only.is_some() && current.as_ref() != only {
                return;
            }
            *current = None;
        }
        let _file = self.0.file();
        if let Err(error) = self.0.profiles.forget_session(&self.0.profile) {
            tracing::warn!(%error, "cannot remove the session kept");
        }
    }
}

impl Inner {
    /// Writes a session, unless another one is current by now. Whether it is on disk.
    fn store(&self, session: &Session) -> bool {
        let _file = self.file();
        if self.current().as_ref() != Some(session) {
            return false;
        }
        let saved = self.profiles.save_session(&self.profile, session);
        if let Err(error) = &saved {
            // earlier tokens stay good, since the gateway is not told
            tracing::warn!(%error, "cannot keep the session");
        }
        saved.is_ok()
    }

    /// The gateway has other keys by now (A15).
    fn store_pins(&self, used: [Pin; 2], pins: [Pin; 2]) {
        let updated = self.profiles.update(&self.profile, |profile| replace(profile, used, pins));
        match updated {
            Ok(()) => tracing::info!("the gateway's keys have changed, as it says itself; noted"),
            Err(ProfileError::Missing { .. }) => {}
            Err(error) => tracing::warn!(%error, "cannot keep the gateway's new keys"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Session>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> MutexGuard<'_, ()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pins that the gateway names, if they are others than those it was accepted by.
fn new_pins(welcome: &Welcome, used: [Pin; 2]) -> Option<[Pin; 2]> {
    let [in_use, spare, ..] = welcome.pins.as_slice() else { return None };
    let pins = [in_use.into_array(), spare.into_array()];
    (pins != used).then_some(pins)
}

/// At all endpoints of this gateway.
fn replace(profile: &mut Profile, used: [Pin; 2], pins: [Pin; 2]) {
    for endpoint in profile.endpoints.iter_mut().filter(|endpoint| endpoint.pins == used) {
        endpoint.pins = pins;
    }
}

/// Tells the gateway that the token is on disk. If the connection fails before, the next one does.
async fn tell(sender: &Sender) {
    while let Ok(false) = sender.say(&Control::TokenStored) {
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use cipherwall_proto::invitation::{Endpoint, Invitation, Transport};
    use cipherwall_proto::message::Text;
    use tempfile::TempDir;

    use super::*;

    const PINS: [Pin; 2] = [[1; 32], [2; 32]];

    fn endpoint(host: &str, pins: [Pin; 2]) -> Endpoint {
        Endpoint { host: host.into(), port: 8443, transport: Transport::Tls, pins }
    }

    fn profile() -> (TempDir, Profiles, Profile) {
        let dir = tempfile::tempdir().expect("a directory");
        let invitation = Invitation {
            endpoints: vec![endpoint("a.example", PINS), endpoint("b.example", [[7; 32], [8; 32]])],
            user: "alice".into(),
            salt: [3; 16],
            door_key: [4; 32],
            enrol_secret: [5; 16],
            expires: 0,
            sni: vec![],
        };
        let profile = Profile::from_invitation("home".into(), invitation).expect("random bytes");
        let profiles = Profiles::new(dir.path());
        profiles.save(&profile).expect("saved");
        (dir, profiles, profile)
    }

    fn welcome(token: u8, pins: &[Pin]) -> Welcome {
        Welcome {
            session_id: [1; 16].into(),
            token: [token; 16].into(),
            version: 1,
            cipher: 1,
            v4: Text([10, 8, 0, 2].into()),
            v6: Text([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
            routes: vec![],
            dns: vec![],
            mtu: 1_420,
            keepalive: 15,
            time: 1,
            pins: pins.iter().map(|pin| (*pin).into()).collect(),
            datagram: None,
        }
    }

    fn session(token: u8) -> Session {
        Session::new("alice", &welcome(token, &PINS), &endpoint("a.example", PINS))
    }

    #[test]
    fn what_is_kept_is_there_for_the_next_process_of_the_same_user() {
        let (_dir, profiles, profile) = profile();
        let keeper = Keeper::new(profiles.clone(), &profile);
        assert_eq!(keeper.current(), None);
        *keeper.0.current() = Some(session(1));
        assert!(keeper.0.store(&session(1)));
        let next = Keeper::new(profiles.clone(), &profile);
        assert_eq!(next.current(), Some(session(1)));
        let bobs = Profile { user: "bob".into(), ..profile };
        assert_eq!(Keeper::new(profiles, &bobs).current(), None, "it is alice's");
    }

    #[test]
    fn of_two_connections_the_one_in_use_is_kept_and_the_other_neither_stored_nor_forgotten() {
        let (_dir, profiles, profile) = profile();
        let keeper = Keeper::new(profiles.clone(), &profile);
        *keeper.0.current() = Some(session(2));
        assert!(!keeper.0.store(&session(1)), "a later one is in use by now");
        assert!(keeper.0.store(&session(2)));
        keeper.forget(Some(&session(1)));
        assert_eq!(keeper.current(), Some(session(2)));
        assert_eq!(profiles.session("home").expect("read"), Some(session(2)));
        keeper.forget(Some(&session(2)));
        assert_eq!((keeper.current(), profiles.session("home").expect("read")), (None, None));
        assert!(!keeper.0.store(&session(2)), "a farewell is not undone by a slow disk");
        keeper.forget(None);
    }

    #[test]
    fn a_damaged_file_is_a_session_that_is_gone() {
        let (dir, profiles, profile) = profile();
        std::fs::write(dir.path().join("profiles/home.session"), "{").expect("written");
        assert_eq!(Keeper::new(profiles, &profile).current(), None);
    }

    #[test]
    fn new_keys_of_a_gateway_are_noted_for_its_own_endpoints() {
        let (_dir, profiles, profile) = profile();
        assert_eq!(new_pins(&welcome(1, &PINS), PINS), None);
        assert_eq!(new_pins(&welcome(1, &[[2; 32]]), PINS), None, "one is none: no spare");
        let pins = new_pins(&welcome(1, &[[2; 32], [3; 32]]), PINS).expect("others");
        Keeper::new(profiles.clone(), &profile).0.store_pins(PINS, pins);
        let endpoints = profiles.load("home").expect("loaded").endpoints;
        assert_eq!(endpoints[0].pins, [[2; 32], [3; 32]]);
        assert_eq!(endpoints[1].pins, [[7; 32], [8; 32]]);
    }
}

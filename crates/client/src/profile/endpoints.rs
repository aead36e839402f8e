//! The endpoints of a profile, as front ends change them.

use cipherwall_cli::Failure;
use cipherwall_ipc::daemon::{self, AddEndpoints, Origin, ProfileChange};
use cipherwall_proto::invitation::{Endpoint, Invitation, Transport};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Profile, address};

/// More endpoints than anybody has; each takes its time in a race.
const ENDPOINTS_MAX: usize = 32;

/// What an invitation adds to a profile of the same user at the same gateway, or at one that shares
/// its users.
pub(crate) fn of_invitation(invitation: &Invitation) -> AddEndpoints {
    AddEndpoints {
        endpoints: invitation.endpoints.iter().filter_map(super::editing::endpoint).collect(),
        like: None,
        from: Some(origin(&invitation.user, &invitation.door_key)),
    }
}

/// The endpoints after this change.
///
/// # Errors
/// One that is meant is not there, or what is added does not belong to this profile: wrong usage.
pub(super) fn edited(profile: &Profile, change: &ProfileChange) -> anyhow::Result<Vec<Endpoint>> {
    let mut endpoints = profile.endpoints.clone();
    if let Some(add) = &change.add {
        endpoints = with(profile, endpoints, add)?;
    }
    if let Some(gone) = &change.remove {
        let at = place(&endpoints, gone)?;
        endpoints.remove(at);
        if endpoints.is_empty() {
            return Err(usage(format!("{gone} is the only endpoint of this profile")));
        }
    }
    if let Some(prefer) = &change.prefer {
        let at = place(&endpoints, prefer)?;
        endpoints[..=at].rotate_right(1);
    }
    Ok(endpoints)
}

fn with(
    profile: &Profile,
    mut endpoints: Vec<Endpoint>,
    add: &AddEndpoints,
) -> anyhow::Result<Vec<Endpoint>> {
    if add.from.as_ref().is_some_and(|from| *from != origin(&profile.user, &profile.door_key)) {
        return Err(usage(format!(
            "that invitation is not for {} at the gateway of this profile, nor at one that shares \
             its users: import it as a profile of its own with cipherwall import",
            profile.user
        )));
    }
    let like = match &add.like {
        Some(like) => place(&endpoints, like)?,
        None => 0,
    };
    let pins = endpoints.get(like).map(|endpoint| endpoint.pins).unwrap_or_default();
    for new in &add.endpoints {
        let new = read(new, pins)?;
        let is_same = |known: &Endpoint| {
            (&known.host, known.port, known.transport) == (&new.host, new.port, new.transport)
        };
        match endpoints.iter_mut().find(|known| is_same(known)) {
            Some(known) => *known = new,
            None => endpoints.push(new),
        }
    }
    if endpoints.len() > ENDPOINTS_MAX {
        return Err(usage(format!("a profile has at most {ENDPOINTS_MAX} endpoints")));
    }
    Ok(endpoints)
}

/// With these pins, if it says none.
fn read(endpoint: &daemon::Endpoint, pins: [[u8; 32]; 2]) -> anyhow::Result<Endpoint> {
    let Some(transport) = Transport::from_name(&endpoint.transport) else {
        return Err(usage(format!("{:?} is no transport: tls or kcp", endpoint.transport)));
    };
    if endpoint.pins.is_empty() {
        let (host, port) = (endpoint.host.clone(), endpoint.port);
        return Ok(Endpoint { host, port, transport, pins });
    }
    let read = Endpoint::deserialize(serde_json::to_value(endpoint)?);
    read.map_err(|error| usage(format!("endpoint: {error}")))
}

/// Where the endpoint is that is meant by `HOST:PORT` or `TRANSPORT:HOST:PORT`.
fn place(endpoints: &[Endpoint], meant: &str) -> anyhow::Result<usize> {
    let written = |endpoint: &Endpoint| address(&endpoint.host, endpoint.port);
    let exact = |endpoint: &Endpoint| {
        format!("{}:{}", endpoint.transport.name(), written(endpoint)) == meant
    };
    let found = endpoints.iter().position(exact);
    let found = found.or_else(|| endpoints.iter().position(|it| written(it) == meant));
    found.ok_or_else(|| {
        let known: Vec<_> = endpoints.iter().map(written).collect();
        let known = known.join(", ");
        usage(format!("{meant:?} is not of this profile: {known}"))
    })
}

/// The door key is a secret; its hash is not.
fn origin(user: &str, door_key: &[u8; 32]) -> Origin {
    let hash = Sha256::digest(door_key);
    Origin { user: user.to_owned(), door: hash.iter().map(|byte| format!("{byte:02x}")).collect() }
}

fn usage(why: String) -> anyhow::Error {
    Failure::usage(why).into()
}

#[cfg(test)]
mod tests {
    use super::super::{editing, tests::invitation};
    use super::*;

    fn endpoint(host: &str, transport: Transport) -> Endpoint {
        Endpoint { host: host.into(), port: 8443, transport, pins: [[1; 32], [2; 32]] }
    }

    fn profile(hosts: &[&str]) -> Profile {
        let endpoints = hosts.iter().map(|host| endpoint(host, Transport::Tls)).collect();
        let invitation = Invitation { endpoints, ..invitation() };
        Profile::from_invitation("home".into(), invitation).expect("random bytes")
    }

    fn names(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(super::super::endpoint_name).collect()
    }

    #[test]
    fn the_preferred_endpoint_comes_first_and_the_others_keep_their_order() {
        let hosts = |prefer: &str| {
            let prefer = Some(prefer.to_owned());
            let change = ProfileChange { prefer, ..ProfileChange::default() };
            let all = profile(&["a.example", "2001:db8::1", "c.example"]);
            let sorted = edited(&all, &change)?;
            Ok(sorted.into_iter().map(|endpoint| endpoint.host).collect::<Vec<_>>())
        };
        let sorted = |prefer: &str| -> anyhow::Result<Vec<String>> { hosts(prefer) };
        let of = |prefer| sorted(prefer).expect("known");
        assert_eq!(of("c.example:8443"), ["c.example", "a.example", "2001:db8::1"]);
        assert_eq!(of("[2001:db8::1]:8443"), ["2001:db8::1", "a.example", "c.example"]);
        let error = sorted("a.example:1").expect_err("unknown");
        assert!(error.to_string().contains("a.example:8443"), "{error}");
        let shown = editing::endpoint(&endpoint("a.example", Transport::Tls)).expect("JSON");
        assert_eq!((shown.port, shown.transport.as_str(), shown.pins.len()), (8443, "tls", 2));
    }

    fn adding(add: AddEndpoints) -> ProfileChange {
        ProfileChange { add: Some(Box::new(add)), ..ProfileChange::default() }
    }

    #[test]
    fn an_endpoint_by_hand_is_of_a_gateway_that_is_known() {
        let profile = profile(&["a.example", "b.example"]);
        let new = daemon::Endpoint {
            host: "a.example".into(),
            port: 8443,
            transport: "kcp".into(),
            pins: Vec::new(),
        };
        let add = AddEndpoints { endpoints: vec![new.clone()], ..AddEndpoints::default() };
        let all = edited(&profile, &adding(add)).expect("added");
        assert_eq!(names(&all)[2], "a.example:8443 over kcp");
        assert_eq!(all[2].pins, profile.endpoints[0].pins);

        let with = Profile { endpoints: all, ..profile.clone() };
        let remove = |meant: &str| {
            let remove = Some(meant.to_owned());
            edited(&with, &ProfileChange { remove, ..ProfileChange::default() })
        };
        let left = names(&remove("kcp:a.example:8443").expect("there"));
        assert_eq!(left, ["a.example:8443 over tls", "b.example:8443 over tls"]);
        assert_eq!(names(&remove("a.example:8443").expect("there"))[1], "a.example:8443 over kcp");

        let odd = daemon::Endpoint { transport: "ip".into(), ..new };
        let add = AddEndpoints { endpoints: vec![odd], ..AddEndpoints::default() };
        assert!(edited(&profile, &adding(add)).is_err());
        let only = self::profile(&["a.example"]);
        let remove = Some("a.example:8443".to_owned());
        let error = edited(&only, &ProfileChange { remove, ..ProfileChange::default() });
        assert!(error.expect_err("none left").to_string().contains("only endpoint"));
    }

    #[test]
    fn an_invitation_adds_its_endpoints_to_a_profile_of_the_same_user_and_database() {
        let profile = profile(&["a.example"]);
        let pins = [[7; 32], [8; 32]];
        let there = Endpoint { pins, ..endpoint("b.example", Transport::Tls) };
        let second = Invitation { endpoints: vec![there.clone()], ..invitation() };
        let all = edited(&profile, &adding(of_invitation(&second))).expect("added");
        assert_eq!(all[1], there);
        // once more, with other pins
        let with = Profile { endpoints: all, ..profile.clone() };
        let newer = Endpoint { pins: [[9; 32]; 2], ..there };
        let again = Invitation { endpoints: vec![newer.clone()], ..invitation() };
        let all = edited(&with, &adding(of_invitation(&again))).expect("added");
        assert_eq!((all.len(), &all[1]), (2, &newer));

        let others = [
            Invitation { user: "bob".into(), ..invitation() },
            Invitation { door_key: [9; 32], ..invitation() },
        ];
        for other in others {
            let error = edited(&profile, &adding(of_invitation(&other))).expect_err("another's");
            assert!(error.to_string().contains("cipherwall import"), "{error}");
        }
    }
}

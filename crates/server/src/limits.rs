//! What the system has to grant for many connections: file descriptors, of which each takes one
//! (the usual limit of 1,024 is soon reached), and a kernel that stands a flood of TCP SYNs.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors left for sessions, sockets and the database, for connections on their way out, and
/// for those to another site that is shown.
const RESERVE: u64 = 1_024 + (crate::places::GOING_MAX + crate::site::ASKED_MAX) as u64;

/// Raises the limit of this process to what it may have, and lowers the number of connections
/// that have not logged in to what then fits, so that they cannot keep out sessions.
pub fn for_descriptors(limits: Limits) -> Limits {
    let allowed = raise();
    let connections = fitting(limits.connections, allowed);
    if connections < limits.connections {
        tracing::warn!(
            "at most {allowed} files may be open here: no more than {connections} connections that \
             have not logged in are taken (limits.connections is {}); raise the limit (`ulimit \
             -Hn`, or LimitNOFILE= in a unit of systemd)",
            limits.connections
        );
    }
    Limits { connections, ..limits }
}

/// The number of descriptors that this process may have from now on.
fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None: no limit
    let Some(maximum) = maximum else { return u64::MAX };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: Some(maximum) }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the number of files that may be open");
            current.unwrap_or(maximum)
        }
    }
}

fn fitting(connections: u32, descriptors: u64) -> u32 {
    let room = (descriptors / 2).max(descriptors.saturating_sub(RESERVE));
    u32::try_from(room).map_or(connections, |room| connections.min(room))
}

/// How the kernel should be set before strangers come, where it is not: each with the remedy.
pub fn kernel_hints() -> Vec<String> {
    hints(|name| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

/// `setting` reads one; none if there is no such setting here, as in some containers.
fn hints(setting: impl Fn(&str) -> Option<u64>) -> Vec<String> {
    let least = [
        (
            "net.ipv4.tcp_syncookies",
            1,
            "a flood of TCP SYNs from forged addresses keeps clients out",
        ),
        ("net.core.somaxconn", 1_024, "a rush of connections keeps clients out"),
        ("net.netfilter.nf_conntrack_max", 65_536, "many connections keep clients' new ones out"),
    ];
    let low = least.into_iter().filter_map(|(name, least, harm)| {
        let value = setting(name).filter(|value| *value < least)?;
        Some(format!(
            "{name} is {value}, and {harm}; set it: echo '{name} = {least}' >> \
             /etc/sysctl.d/90-cipherwall.conf && sysctl --system"
        ))
    });
    low.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_set_too_low_is_named_with_the_remedy() {
        let good = |_: &str| Some(1 << 20);
        assert_eq!(hints(good), Vec::<String>::new());
        assert_eq!(hints(|_| None), Vec::<String>::new());
        let hints = hints(|name| Some(if name.ends_with("syncookies") { 0 } else { 1 << 20 }));
        let [hint] = &hints[..] else { panic!("{hints:?}") };
        assert!(hint.starts_with("net.ipv4.tcp_syncookies is 0, and"), "{hint}");
        assert!(hint.contains("echo 'net.ipv4.tcp_syncookies = 1' >>"), "{hint}");
    }

    #[test]
    fn connections_leave_room_for_sessions() {
        assert_eq!(fitting(4096, u64::MAX), 4096);
        assert_eq!(fitting(4096, 1 << 20), 4096);
        assert_eq!(fitting(4096, 4096), 2560);
        assert_eq!(fitting(4096, 1024), 512);
        assert_eq!(fitting(100, 1024), 100);
    }

    #[test]
    fn the_limit_is_raised_to_the_highest() {
        let allowed = raise();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(now.maximum.unwrap_or(u64::MAX), allowed);
    }
}

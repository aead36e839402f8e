//! File descriptors: each connection takes one, and the usual limit of 1,024 is soon reached.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors left for sessions, sockets and the database.
const RESERVE: u64 = 1_024;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_sessions() {
        assert_eq!(fitting(4096, u64::MAX), 4096);
        assert_eq!(fitting(4096, 1 << 20), 4096);
        assert_eq!(fitting(4096, 4096), 3072);
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

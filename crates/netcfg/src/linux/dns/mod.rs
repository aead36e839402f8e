//! The host's resolver: which programs rule it, and one file for each.

pub(super) mod resolved;
pub(super) mod resolver_file;

use std::{
    fs,
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use resolved::Resolved;
use resolver_file::ResolverFile;

use super::{change::Change, command};
use crate::Error;

const RESOLVER_PATH: &str = "/etc/resolv.conf";
/// systemd-resolved listens here while it runs.
const RESOLVED_SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve";

/// What decides about the back ends.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// What the resolver file says.
    resolver_file: String,
    /// The program that controls systemd-resolved, if it is installed.
    resolvectl: Option<PathBuf>,
    /// systemd-resolved is running.
    resolved_runs: bool,
}

/// Which back ends have to be set.
#[derive(Debug, PartialEq, Eq)]
struct Backends {
    resolved: Option<PathBuf>,
    file: bool,
}

/// The changes that send all DNS queries to `servers`, inside the tunnel.
pub(super) fn changes(interface: &str, servers: &[IpAddr]) -> Result<Vec<Change>, Error> {
    let backends = choose(&facts());
    let mut changes = Vec::new();
    if let Some(program) = backends.resolved {
        changes.push(Change::Resolved(Resolved {
            program,
            interface: interface.to_owned(),
            servers: servers.to_vec(),
        }));
    }
    if backends.file {
        let path = Path::new(RESOLVER_PATH);
        changes.push(Change::ResolverFile(ResolverFile::to(path, servers)?));
    }
    Ok(changes)
}

fn facts() -> Facts {
    Facts {
        resolver_file: fs::read(RESOLVER_PATH)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default(),
        resolvectl: command::find("resolvectl"),
        resolved_runs: UnixStream::connect(RESOLVED_SOCKET).is_ok(),
    }
}

/// Where systemd-resolved runs, programs may ask it by other ways than the resolver file (D-Bus,
/// `nss-resolve`), so it is always told. The resolver file needs no change only if it names nothing
/// but systemd-resolved; the variant with the servers of all links would leak.
fn choose(facts: &Facts) -> Backends {
    let resolved = facts.resolvectl.clone().filter(|_| facts.resolved_runs);
    let servers: Vec<&str> = facts
        .resolver_file
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .map(str::trim)
        .collect();
    let asks_resolved = !servers.is_empty()
        && servers.iter().all(|server| matches!(*server, "127.0.0.53" | "127.0.0.54"));
    let file = resolved.is_none() || !asks_resolved;
    Backends { resolved, file }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_ends_follow_from_the_facts() {
        const STUB: &str = "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0\n";
        const LINKS: &str = "nameserver 192.0.2.53\nsearch lan\n";
        let program = PathBuf::from("/usr/bin/resolvectl");
        let cases = [
            // resolver file, resolvectl is there, resolved runs -> resolved, file
            ("Debian without resolved", LINKS, false, false, false, true),
            ("Ubuntu, Fedora", STUB, true, true, true, false),
            ("resolved, but the file names the links' servers", LINKS, true, true, true, true),
            ("resolved is stopped", STUB, true, false, false, true),
            ("resolvectl is missing", STUB, false, true, false, true),
            ("no file", "", false, false, false, true),
            ("no file, resolved runs", "", true, true, true, true),
            (
                "one of two servers is elsewhere",
                "nameserver 127.0.0.53\nnameserver 192.0.2.1",
                true,
                true,
                true,
                true,
            ),
        ];
        for (name, file, has_program, runs, expect_resolved, expect_file) in cases {
            let backends = choose(&Facts {
                resolver_file: file.to_owned(),
                resolvectl: has_program.then(|| program.clone()),
                resolved_runs: runs,
            });
            assert_eq!(backends.resolved.is_some(), expect_resolved, "{name}");
            assert_eq!(backends.file, expect_file, "{name}");
        }
    }
}

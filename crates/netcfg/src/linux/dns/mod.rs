//! The host's resolver: which programs rule it, and one file for each.

pub(super) mod network_manager;
pub(super) mod openresolv;
pub(super) mod outside;
pub(super) mod resolved;
pub(super) mod resolver_file;
pub(super) mod watch;

use std::{
    fs,
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use network_manager::NetworkManager;
use openresolv::Openresolv;
use resolved::Resolved;
use resolver_file::ResolverFile;

use super::{change::Change, command, plan::Plan};
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
    /// openresolv, if it writes the resolver file.
    openresolv: Option<PathBuf>,
}

/// Which back ends have to be set.
#[derive(Debug, PartialEq, Eq)]
struct Backends {
    resolved: Option<PathBuf>,
    openresolv: Option<PathBuf>,
    file: bool,
}

/// Sends all DNS queries to `servers`, inside the tunnel.
pub(super) async fn plan(
    plan: &mut Plan,
    interface: &str,
    servers: &[IpAddr],
    journaled: &[Change],
) -> Result<(), Error> {
    let facts = facts();
    let backends = choose(&facts);
    if let Some(program) = backends.resolved {
        let (interface, servers) = (interface.to_owned(), servers.to_vec());
        plan.push(Change::Resolved(Resolved { program, interface, servers }), false);
    }
    if let Some(program) = backends.openresolv {
        let change = Openresolv::to(program, interface, servers, &facts.resolver_file);
        plan.push(Change::Openresolv(change), false);
    }
    if backends.file {
        // before the file, so that it is not written again at once
        if let Some(manager) = NetworkManager::running().await {
            let is_told = journaled.iter().any(|old| matches!(old, Change::NetworkManager(_)));
            plan.push(Change::NetworkManager(manager), is_told && NetworkManager::in_place());
        }
        let journaled = journaled.iter().find_map(Change::resolver_file);
        let file = ResolverFile::to(Path::new(RESOLVER_PATH), servers, journaled)?;
        let in_place = file.in_place();
        plan.push(Change::ResolverFile(file), in_place);
    }
    Ok(())
}

fn facts() -> Facts {
    let resolver_file = fs::read(RESOLVER_PATH)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    Facts {
        openresolv: Openresolv::program(&resolver_file),
        resolver_file,
        resolvectl: command::find("resolvectl"),
        resolved_runs: UnixStream::connect(RESOLVED_SOCKET).is_ok(),
    }
}

/// Where systemd-resolved runs, programs may ask it by other ways than the resolver file (D-Bus,
/// `nss-resolve`), so it is always told. The resolver file needs no change of ours only if it names
/// nothing but systemd-resolved, or if openresolv writes our servers there; the variant of
/// systemd-resolved with the servers of all links would leak.
fn choose(facts: &Facts) -> Backends {
    let resolved = facts.resolvectl.clone().filter(|_| facts.resolved_runs);
    let servers: Vec<&str> = words_after("nameserver", &facts.resolver_file).collect();
    let asks_resolved = !servers.is_empty()
        && servers.iter().all(|server| matches!(*server, "127.0.0.53" | "127.0.0.54"));
    let is_right = resolved.is_some() && asks_resolved;
    let openresolv = facts.openresolv.clone().filter(|_| !is_right);
    let file = openresolv.is_none() && !is_right;
    Backends { resolved, openresolv, file }
}

/// The words of the lines of a resolver file that begin with `keyword`.
pub(super) fn words_after<'a>(keyword: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().flat_map(move |line| {
        let mut words = line.split_whitespace();
        let is_it = words.next() == Some(keyword);
        words.filter(move |_| is_it)
    })
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
                openresolv: None,
            });
            assert_eq!(backends.resolved.is_some(), expect_resolved, "{name}");
            assert_eq!(backends.file, expect_file, "{name}");
        }
    }
    #[test]
    fn openresolv_writes_the_file_where_it_is_its_own() {
        let openresolv = Some(PathBuf::from("/usr/sbin/resolvconf"));
        let resolvectl = Some(PathBuf::from("/usr/bin/resolvectl"));
        let of = |server: &str, resolved_runs| {
            choose(&Facts {
                resolver_file: format!("# Generated by resolvconf\nnameserver {server}\n"),
                resolvectl: resolvectl.clone(),
                resolved_runs,
                openresolv: openresolv.clone(),
            })
        };
        let alone = Backends { resolved: None, openresolv: openresolv.clone(), file: false };
        assert_eq!(of("192.0.2.53", false), alone);
        let both = Backends { resolved: resolvectl.clone(), ..alone };
        assert_eq!(of("192.0.2.53", true), both);
        assert_eq!(of("127.0.0.53", true), Backends { openresolv: None, ..both });
    }
}

//! The DNS servers that this host uses outside the tunnel, for the gateway's names. They are read
//! where the programs that rule the resolver note them: the resolver itself asks inside by then.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

use super::{RESOLVER_PATH, words_after};
use crate::{Host, linux::change::Change};

const PORT: u16 = 53;

/// Where other programs note servers, the most exact first: systemd-resolved, NetworkManager. The
/// resolver file comes between the two lists.
const NOTES: [&str; 3] = [
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/NetworkManager/resolv.conf",
];

/// What resolvconf and openresolv (old, new) note for each interface, and what they tell dnsmasq.
const NOTES_OF_RESOLVCONF: [&str; 4] = [
    "/run/resolvconf/interface",
    "/run/resolvconf/interfaces",
    "/run/resolvconf/keys",
    "/run/dnsmasq/resolv.conf",
];

impl Host {
    /// The DNS servers that this host uses outside the tunnel, whether or not it is connected; the
    /// likeliest first, and last those on this host itself (dnsmasq, unbound). Empty where the host
    /// knows none.
    #[must_use]
    pub fn outside_resolvers(&self) -> Vec<SocketAddr> {
        find(self.journal.changes(), Path::new("/"))
    }
}

/// `root_dir` is `/`, but in tests.
fn find(changes: &[Change], root_dir: &Path) -> Vec<SocketAddr> {
    let at = |path: &str| root_dir.join(path.trim_start_matches('/'));
    let noted = |paths: &[&str]| -> Vec<SocketAddr> {
        paths.iter().flat_map(|path| texts(&at(path))).flat_map(|text| servers(&text)).collect()
    };
    let resolver_path = at(RESOLVER_PATH);
    let resolver_file = changes
        .iter()
        .find_map(Change::resolver_file)
        .map_or_else(|| read(&resolver_path), |file| file.text_before(&resolver_path));
    // other programs note our servers too; what the resolver file said before us are not ours
    let inside: Vec<IpAddr> = changes.iter().flat_map(inside_servers).copied().collect();
    let is_outside = |server: &SocketAddr| !inside.contains(&server.ip());

    let mut found: Vec<SocketAddr> = noted(&NOTES).into_iter().filter(is_outside).collect();
    found.extend(servers(&resolver_file));
    found.extend(noted(&NOTES_OF_RESOLVCONF).into_iter().filter(is_outside));
    let (own, mut others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|server| server.ip().is_loopback());
    others.extend(own);
    let mut once = Vec::new();
    others.into_iter().for_each(|server| {
        if !once.contains(&server) {
            once.push(server);
        }
    });
    once
}

/// The servers inside the tunnel that we told to other programs.
fn inside_servers(change: &Change) -> &[IpAddr] {
    if let Change::Resolved(resolved) = change {
        return &resolved.servers;
    }
    if let Change::Openresolv(openresolv) = change {
        return &openresolv.servers;
    }
    &[]
}

/// The text of a file, or of each file in a directory.
fn texts(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return vec![read(path)] };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The servers that a text names as the resolver file does.
pub(in crate::linux) fn servers(text: &str) -> Vec<SocketAddr> {
    words_after("nameserver", text).filter_map(server).collect()
}

/// An address; a link-local one has its interface behind a `%`.
fn server(word: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse().ok()?, PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let index = interface.parse().ok().or_else(|| {
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
        name_to_index(&any, interface).ok()
    })?;
    Some(SocketAddrV6::new(address, PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::linux::dns::{resolved::Resolved, resolver_file::ResolverFile};

    /// Path below the root directory, and content.
    type File = (&'static str, &'static str);

    /// A root directory with these files.
    fn host(files: &[File]) -> tempfile::TempDir {
        let root_dir = tempfile::tempdir().unwrap();
        fs::create_dir(root_dir.path().join("etc")).unwrap();
        for (path, text) in files {
            let path = root_dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root_dir
    }

    fn found(changes: &[Change], root_dir: &tempfile::TempDir) -> Vec<String> {
        find(changes, root_dir.path()).iter().map(ToString::to_string).collect()
    }

    fn inside() -> Vec<IpAddr> {
        vec!["10.66.0.1".parse().unwrap()]
    }

    #[test]
    fn servers_are_found_where_each_kind_of_host_notes_them() {
        const STUB: &str = "nameserver 127.0.0.53\noptions edns0\n";
        let cases: [(&str, &[File], &[&str]); 6] = [
            (
                "a plain file",
                &[(
                    "etc/resolv.conf",
                    "search lan\nnameserver 192.0.2.1\n nameserver 2001:db8::1\n",
                )],
                &["192.0.2.1:53", "[2001:db8::1]:53"],
            ),
            (
                "systemd-resolved",
                &[
                    ("etc/resolv.conf", STUB),
                    ("run/systemd/resolve/resolv.conf", "# links\nnameserver 192.0.2.1\n"),
                ],
                &["192.0.2.1:53", "127.0.0.53:53"],
            ),
            (
                "NetworkManager with its dnsmasq",
                &[
                    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
                    ("run/NetworkManager/resolv.conf", "nameserver 127.0.0.1\n"),
                    ("run/NetworkManager/no-stub-resolv.conf", "nameserver 192.0.2.1\n"),
                ],
                &["192.0.2.1:53", "127.0.0.1:53"],
            ),
            (
                "resolvconf with dnsmasq",
                &[
                    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
                    ("run/resolvconf/interface/eth0.dhcp", "nameserver 192.0.2.1\n"),
                    ("run/resolvconf/interface/lo.dnsmasq", "nameserver 127.0.0.1\n"),
                ],
                &["192.0.2.1:53", "127.0.0.1:53"],
            ),
            (
                "a link-local router, damage, and an interface that is not there",
                &[(
                    "etc/resolv.conf",
                    "nameserver fe80::1%lo\nnameserver fe80::2%gone7\nnameserver x\nnameserver\n",
                )],
                &["[fe80::1%1]:53"],
            ),
            ("nothing", &[], &[]),
        ];
        for (name, files, expected) in cases {
            assert_eq!(found(&[], &host(files)), expected, "{name}");
        }
    }

    #[test]
    fn while_connected_it_is_the_servers_from_before() {
        let root_dir = host(&[("etc/resolv.conf", "nameserver 192.0.2.1\n")]);
        let path = root_dir.path().join("etc/resolv.conf");
        let change = ResolverFile::to(&path, &inside(), None).unwrap();
        change.make().unwrap();
        let changes = [Change::ResolverFile(change)];
        assert_eq!(found(&changes, &root_dir), ["192.0.2.1:53"]);
        assert_eq!(found(&[], &root_dir), ["10.66.0.1:53"], "so this test shows something");
    }

    #[test]
    fn while_connected_a_link_is_read_where_it_led() {
        let root_dir = host(&[("run/of-another", "nameserver 192.0.2.1\n")]);
        let path = root_dir.path().join("etc/resolv.conf");
        symlink("../run/of-another", &path).unwrap();
        let change = ResolverFile::to(&path, &inside(), None).unwrap();
        change.make().unwrap();
        assert_eq!(found(&[Change::ResolverFile(change)], &root_dir), ["192.0.2.1:53"]);
    }

    #[test]
    fn our_own_servers_are_left_out_of_what_systemd_resolved_notes() {
        let noted = "nameserver 10.66.0.1\nnameserver 192.0.2.1\n";
        let root_dir = host(&[("run/systemd/resolve/resolv.conf", noted)]);
        let change = Change::Resolved(Resolved {
            program: "/usr/bin/resolvectl".into(),
            interface: "cw0".into(),
            servers: inside(),
        });
        assert_eq!(found(&[change], &root_dir), ["192.0.2.1:53"]);
    }
}

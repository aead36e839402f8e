//! The ssh session that a command runs in, which a full tunnel would cut.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use cipherwall_ipc::daemon::Kept;

/// How many ancestors are looked at; a shell in a `sudo` in a `tmux` has a few.
const ANCESTORS: usize = 32;
const VARIABLE: &str = "SSH_CONNECTION";

/// The connection of the ssh session that this process runs in. `sudo` hides it from its children:
/// then an ancestor tells.
pub(super) fn connection() -> Option<Kept> {
    let own = std::env::var(VARIABLE).ok();
    parse(&own.or_else(of_an_ancestor)?)
}

/// Whether the other end is in a network that stays reachable if the local network is allowed.
pub(super) fn is_local(connection: &Kept) -> bool {
    match connection.peer.ip().to_canonical() {
        IpAddr::V4(address) => {
            address.is_private() || address.is_link_local() || address.is_loopback()
        }
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_unicast_link_local() || address.is_loopback()
        }
    }
}

/// `CLIENT-ADDRESS CLIENT-PORT SERVER-ADDRESS SERVER-PORT`
fn parse(text: &str) -> Option<Kept> {
    let mut words = text.split_ascii_whitespace();
    let mut end = || {
        // a link-local address may have its interface behind it
        let address = words.next()?.split('%').next()?.parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(address.to_canonical(), words.next()?.parse().ok()?))
    };
    let peer = end()?;
    Some(Kept { local: end()?, peer })
}

fn of_an_ancestor() -> Option<String> {
    let mut pid = std::process::id().to_string();
    for _ in 0..ANCESTORS {
        pid = parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.to_owned();
        if pid == "0" {
            return None;
        }
        // those of other users cannot be read without root's rights
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let found = variable(&environment);
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The fourth field; the second, a name in parentheses, may hold anything.
fn parent(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)
}

fn variable(environment: &[u8]) -> Option<String> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let entry = std::str::from_utf8(entry).ok()?;
        entry.strip_prefix(VARIABLE)?.strip_prefix('=').map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_both_ends() {
        let kept = parse("198.51.100.7 50022 192.0.2.1 22").expect("good");
        assert_eq!(kept.peer, "198.51.100.7:50022".parse().expect("good"));
        assert_eq!(kept.local, "192.0.2.1:22".parse().expect("good"));
        let kept = parse("fe80::1%eth0 50022 fe80::2%eth0 22").expect("good");
        assert!(is_local(&kept));
        assert_eq!(kept.peer, "[fe80::1]:50022".parse().expect("good"));
        for bad in ["", "198.51.100.7", "a b c d", "198.51.100.7 50022 192.0.2.1 x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn private_addresses_are_local_and_public_ones_are_not() {
        for (peer, local) in [
            ("10.1.2.3", true),
            ("192.168.1.2", true),
            ("169.254.1.2", true),
            ("fd00::2", true),
            ("198.51.100.7", false),
            ("100.64.0.1", false),
            ("2001:db8::2", false),
        ] {
            let kept = parse(&format!("{peer} 50022 192.0.2.1 22")).expect("good");
            assert_eq!(is_local(&kept), local, "{peer}");
        }
    }

    #[test]
    fn it_is_found_in_the_environment_of_an_ancestor() {
        assert_eq!(parent("12 (a) b) S 7 12 12"), Some("7"));
        let environment = b"HOME=/root\0SSH_CONNECTIONS=no\0SSH_CONNECTION=a b c d\0X=1\0";
        assert_eq!(variable(environment).as_deref(), Some("a b c d"));
        assert_eq!(variable(b"HOME=/root\0\xff\0"), None);
    }
}

//! Names that the host's owner has written down (`/etc/hosts`, hosts(5)).

use std::{fs, net::IpAddr, path::Path};

/// The addresses of `host` there; `None` if there is none, or no such file.
pub(super) fn addresses(hosts_path: &Path, host: &str) -> Option<Vec<IpAddr>> {
    let text = fs::read_to_string(hosts_path).ok()?;
    addresses_in(&text, host)
}

/// The same, in the text of that file.
pub(super) fn addresses_in(text: &str, host: &str) -> Option<Vec<IpAddr>> {
    let host = host.trim_end_matches('.');
    let addresses: Vec<_> = text.lines().filter_map(|line| address(line, host)).collect();
    (!addresses.is_empty()).then_some(addresses)
}

fn address(line: &str, host: &str) -> Option<IpAddr> {
    let mut words = line.split('#').next()?.split_whitespace();
    let address = words.next()?.parse().ok()?;
    words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
}

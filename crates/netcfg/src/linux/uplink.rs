//! What the host can reach, as its routes say.

/// Whether the host has IPv6 to the internet: a default route that leads anywhere.
#[must_use]
pub fn has_ipv6_uplink() -> bool {
    std::fs::read_to_string("/proc/net/ipv6_route").is_ok_and(|routes| has_default(&routes))
}

/// `routes`: the text of `/proc/net/ipv6_route`. Destination, prefix length, source, its length,
/// next hop, metric, references, uses, flags, device, all hexadecimal.
pub(super) fn has_default(routes: &str) -> bool {
    /// `RTF_REJECT`: a route that refuses.
    const REJECT: u32 = 0x200;
    routes.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, _, _, _, _, flags, device] = fields[..] else {
            return false;
        };
        let refuses = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & REJECT != 0);
        destination.bytes().all(|digit| digit == b'0') && device != "lo" && !refuses
    })
}

#[cfg(test)]
mod tests {
    use super::has_default;

    const ZERO: &str = "00000000000000000000000000000000";

    #[test]
    fn a_default_route_counts_unless_it_refuses() {
        let route = |prefix: &str, flags: &str, device: &str| {
            format!("{ZERO} {prefix} {ZERO} 00 {ZERO} 00000400 00000001 00000000 {flags} {device}")
        };
        assert!(has_default(&route("00", "00450003", "eth0")));
        assert!(!has_default(&route("00", "00200200", "lo")));
        assert!(!has_default(&route("00", "00200200", "eth0")));
        assert!(!has_default(&route("01", "00450003", "eth0")));
        assert!(!has_default(""));
    }
}

//! Takes out of a text what says who and where somebody is: names, public addresses, hardware
//! addresses, secrets. The same thing gets the same label everywhere, so that the text still can be
//! followed.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

/// Runs of letters and digits from this length on may be a key or a token.
const SECRET_LEN: usize = 22;

/// Replaces things by labels.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    /// Lower case, with their labels; the longest first.
    names: Vec<(String, String)>,
    labels: HashMap<String, String>,
    counts: HashMap<&'static str, usize>,
}

impl Redactor {
    /// This name becomes `<KIND-N>` wherever it stands as a word.
    pub(super) fn hide(&mut self, kind: &'static str, name: &str) {
        let name = name.trim().to_lowercase();
        let known = self.names.iter().any(|(known, _)| *known == name);
        // shorter ones are everywhere
        if name.len() >= 2 && name.parse::<IpAddr>().is_err() && !known {
            let label = self.label(kind, &name);
            self.names.push((name, label));
            self.names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        }
    }

    /// The text without what is to be hidden.
    pub(super) fn redact(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for line in self.without_names(text).lines() {
            let search = ["search ", "domain "].iter().find(|key| line.starts_with(**key));
            match (search, line.find("cipherwall://")) {
                (Some(key), _) => out += &format!("{key}<names>"),
                (None, Some(at)) => {
                    out += &self.without_addresses(&line[..at]);
                    out += "<invitation>";
                }
                (None, None) => out += &self.without_addresses(line),
            }
            out.push('\n');
        }
        out
    }

    fn without_names(&self, text: &str) -> String {
        let lower = text.to_lowercase();
        // some letters have another length in lower case: then the places do not fit
        let text = if lower.len() == text.len() { text } else { &lower };
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let begins = !out.ends_with(is_word);
            let hit = self.names.iter().find(|(name, _)| {
                begins
                    && lower[at..].starts_with(name)
                    && !lower[at + name.len()..].starts_with(is_word)
            });
            if let Some((name, label)) = hit {
                out += label;
                at += name.len();
            } else if let Some(next) = rest.chars().next() {
                out.push(next);
                at += next.len_utf8();
            }
        }
        out
    }

    /// Addresses consist of letters, digits, dots and colons; what stands around them is kept.
    fn without_addresses(&mut self, line: &str) -> String {
        let is_part =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '+' | '_' | '-');
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while !rest.is_empty() {
            let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(len);
            out += &self.word(word);
            let len = behind.find(is_part).unwrap_or(behind.len());
            out += &behind[..len];
            rest = &behind[len..];
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        let core = word.trim_end_matches(['.', ':', '-']);
        let tail = &word[core.len()..];
        if let Ok(address) = core.parse::<IpAddr>() {
            return self.address(address) + tail;
        }
        if let Ok(address) = core.parse::<SocketAddrV4>() {
            return format!("{}:{}{tail}", self.address(IpAddr::V4(*address.ip())), address.port());
        }
        if is_hardware_address(core) {
            return self.label("mac", core) + tail;
        }
        let digits = core.chars().filter(char::is_ascii_digit).count();
        let is_secret = core.len() >= SECRET_LEN && digits >= 3 && !core.contains(['.', ':']);
        if is_secret { self.label("id", core) + tail } else { word.to_owned() }
    }

    fn address(&mut self, address: IpAddr) -> String {
        let kind = match address {
            IpAddr::V4(v4) if is_common(v4) => return address.to_string(),
            IpAddr::V6(v6) if is_common_v6(v6) => return address.to_string(),
            IpAddr::V4(_) => "address",
            IpAddr::V6(v6) if v6.is_unicast_link_local() => "link-local",
            IpAddr::V6(v6) if v6.is_unique_local() => "local-v6",
            IpAddr::V6(_) => "address-v6",
        };
        self.label(kind, &address.to_string())
    }

    fn label(&mut self, kind: &'static str, thing: &str) -> String {
        if let Some(label) = self.labels.get(thing) {
            return label.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let label = format!("<{kind}-{count}>");
        self.labels.insert(thing.to_owned(), label.clone());
        label
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric()
}

fn is_hardware_address(word: &str) -> bool {
    let mut parts = word.split(':');
    let is_byte = |part: &str| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
    parts.clone().count() == 6 && parts.all(is_byte)
}

/// Addresses that millions of networks have; they help to find out what is wrong.
fn is_common(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_unspecified()
        // carriers' NAT, and the upper half of everything
        || a == 100 && b & 0xc0 == 64
        || address == Ipv4Addr::new(128, 0, 0, 0)
}

fn is_common_v6(address: Ipv6Addr) -> bool {
    let half = Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0);
    let prefix = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address == half
        || address == prefix
        // fc00::/7, the range of local addresses itself
        || address == Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_and_where_is_hidden_and_the_rest_stays() {
        let mut redactor = Redactor::default();
        redactor.hide("gateway", "gw.example.org");
        redactor.hide("user", "Al");
        redactor.hide("gateway", "203.0.113.2");
        let text = "al@GW.example.org: connected to 203.0.113.2:8443 [2001:db8::1]:53, also via\n\
                    default via 192.168.1.1 dev eth0; 203.0.113.2/24 fe80::1%eth0.\n\
                    link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff\n\
                    search home.example corp.example\n\
                    token=Zm9vYmFyYmF6MTIzNDU2Nzg5MA== cipherwall://1/abc def\n\
                    0.0.0.0/1 128.0.0.0/1 8000::/1 fd00::2: at 12:34:56, generally\n";
        let expected = "<user-1>@<gateway-1>: connected to <address-1>:8443 [<address-v6-1>]:53, also via\n\
                        default via 192.168.1.1 dev eth0; <address-1>/24 <link-local-1>%eth0.\n\
                        link/ether <mac-1> brd <mac-2>\n\
                        search <names>\n\
                        token=<id-1>== <invitation>\n\
                        0.0.0.0/1 128.0.0.0/1 8000::/1 <local-v6-1>: at 12:34:56, generally\n";
        assert_eq!(redactor.redact(text), expected);
        assert_eq!(redactor.redact("203.0.113.2"), "<address-1>\n", "the same everywhere");
    }

    #[test]
    fn texts_of_all_languages_get_through() {
        let mut redactor = Redactor::default();
        redactor.hide("user", "علی");
        redactor.hide("user", "É");
        assert_eq!(redactor.redact("سلام علی! İ"), "سلام <user-1>! i\u{307}\n");
        assert_eq!(redactor.redact(""), "");
    }
}

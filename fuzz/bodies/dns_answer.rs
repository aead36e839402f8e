//! Answers to the client's questions for its gateway's name, from whoever is on the way or owns the
//! network's resolver; and `/etc/hosts`.

use cipherwall_transport::resolver::fuzz;

const HOST: &str = "vpn.example.net";

/// First byte: what the rest is. A message; a message whose head and question are made to fit; or the
/// lines of `/etc/hosts`.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let v6 = kind & 4 != 0;
    match kind & 3 {
        0 => answer(v6, data),
        1 | 2 => {
            let Some((counts, records)) = data.split_first_chunk::<3>() else { return };
            fitting(v6, *counts, records);
        }
        _ => {
            let text = String::from_utf8_lossy(data);
            let found = fuzz::hosts(&text, HOST);
            assert!(found.is_none_or(|found| !found.is_empty() && text.contains("vpn")
                || text.to_lowercase().contains(HOST)));
        }
    }
}

fn answer(v6: bool, message: &[u8]) {
    let asked = fuzz::Asked::new(HOST, v6).expect("a name");
    if let Some(addresses) = asked.read(message) {
        // it has repeated the ID and the name, whatever its letters' case
        assert_eq!(message[..2], asked.bytes()[..2]);
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| address.is_ipv6() == v6));
    }
}

/// The question as it was asked, marked as an answer, with so many records of each kind behind it.
fn fitting(v6: bool, counts: [u8; 3], records: &[u8]) {
    let asked = fuzz::Asked::new(HOST, v6).expect("a name");
    let mut message = [asked.bytes(), records].concat();
    message[2] |= 0x80;
    for (at, count) in [7, 9, 11].into_iter().zip(counts) {
        message[at] = count % 8;
    }
    if let Some(addresses) = asked.read(&message) {
        assert!(!addresses.is_empty() && addresses.len() <= usize::from(counts[0] % 8));
        assert!(addresses.iter().all(|address| address.is_ipv6() == v6));
    }
}

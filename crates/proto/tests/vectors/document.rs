//! The vectors as the document has them, and the inputs of its example.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use cipherwall_proto::{
    cipher::CipherId,
    client,
    device::DeviceKey,
    gateway,
    keys::{DoorKey, Root},
    knock::Alpn,
    message::{Text, Welcome},
};

/// The vectors of the document, and which of them have been looked at.
pub(crate) struct Vectors {
    values: BTreeMap<String, Vec<u8>>,
    used: RefCell<BTreeSet<String>>,
}

impl Vectors {
    /// `name = hex` or `name = "text"` in blocks marked `vectors`, continued on indented lines.
    pub(crate) fn read(document: &str) -> Self {
        let mut lines: Vec<String> = Vec::new();
        let mut inside = false;
        for line in document.lines() {
            match line {
                "```vectors" => inside = true,
                "```" => inside = false,
                _ if !inside => {}
                _ if line.starts_with(' ') => lines.last_mut().unwrap().push_str(line.trim()),
                _ => lines.push(line.to_owned()),
            }
        }
        let mut values = BTreeMap::new();
        for line in lines {
            let (name, value) = line.split_once('=').unwrap();
            let value = value.trim();
            let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let bytes = text.map_or_else(|| unhex(value), |text| text.as_bytes().to_vec());
            let earlier = values.insert(name.trim().to_owned(), bytes);
            assert!(earlier.is_none(), "{name} stands twice in the document");
        }
        Self { values, used: RefCell::default() }
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.used.borrow_mut().insert(name.to_owned());
        self.values.get(name).unwrap_or_else(|| panic!("the document has no {name}")).clone()
    }

    pub(crate) fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap()
    }

    /// The code's value must be the document's.
    pub(crate) fn check(&self, name: &str, code: &[u8]) {
        assert_eq!(hex(&self.bytes(name)), hex(code), "{name}: document left, code right");
    }

    /// The code's message: the document has its map as far as the key `pad`.
    pub(crate) fn check_message(&self, name: &str, message: &[u8]) {
        let (header, map) = message.split_at(8);
        assert_eq!(header[..4], *b"IRVP");
        assert_eq!(header[4..], (map.len() as u32).to_be_bytes());
        assert!(message.len().is_multiple_of(1_024), "{name}: {} bytes", message.len());
        let (head, pad) = map.split_at(self.bytes(name).len());
        self.check(name, head);
        // bin 16 of zeros
        let [0xc5, high, low, zeros @ ..] = pad else { panic!("{name}: no pad at its end") };
        assert_eq!(zeros.len(), usize::from(u16::from_be_bytes([*high, *low])));
        assert!(zeros.iter().all(|byte| *byte == 0), "{name}: the pad is not zeros");
    }

    pub(crate) fn unused(&self) -> Vec<&String> {
        let used = self.used.borrow();
        self.values.keys().filter(|name| !used.contains(*name)).collect()
    }

    pub(crate) fn root(&self) -> Root {
        Root(self.array("root"))
    }

    pub(crate) fn door(&self) -> DoorKey {
        DoorKey(self.array("door_key"))
    }

    pub(crate) fn device(&self) -> DeviceKey {
        DeviceKey::from_seed(&self.array("device_seed"))
    }

    /// Both ends of the example's connection.
    pub(crate) fn openings(&self, ciphers: &[CipherId]) -> (client::Opening, gateway::Opening) {
        let (root, door) = (self.root(), self.door());
        let client = client::Opening::new(root, &door, Alpn::Http1, "example 1.0", ciphers);
        (client, gateway::Opening::new(self.root(), true))
    }

    pub(crate) fn welcome(&self) -> Welcome {
        Welcome {
            session_id: self.array::<16>("session_id").into(),
            token: self.array::<16>("token").into(),
            version: 0,
            cipher: 0,
            v4: Text("10.8.0.2".parse().unwrap()),
            v6: Text("fd00::2".parse().unwrap()),
            routes: ["0.0.0.0/1", "128.0.0.0/1"].map(|net| Text(net.parse().unwrap())).to_vec(),
            dns: vec![Text("10.8.0.1".parse().unwrap())],
            mtu: 1420,
            keepalive: 15,
            time: 1_800_000_000,
            pins: ["pin_in_use", "pin_spare"].map(|pin| self.array::<32>(pin).into()).to_vec(),
            datagram: None,
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii(), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

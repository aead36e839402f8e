//! Static mode.

use cipherwall_proto::{
    datagram::{
        packet::OVERHEAD,
        static_mode::{Inside, Policy, Role, Sealer, StaticKey, Stored, start},
    },
    frame,
    keys::expand,
};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::document::Vectors;

pub(crate) fn all(v: &Vectors) {
    let key: [u8; 64] = v.array("static_key");
    let (extracted, _) = Hkdf::<Sha256>::extract(Some(b"cipherwall static"), &key);
    let mut iv_key = [0; 32];
    expand(&extracted, "iv", b"", &mut iv_key);
    v.check("static_iv_key", &iv_key);

    let key = StaticKey::new(key);
    let inside = v.bytes("packet")[frame::HEADER_LEN..].to_vec();
    let mut client = sealer(v, &key, Role::Client);
    v.check("static_datagram_client_0", &sealed(&mut client, &inside));
    v.check("static_datagram_client_1", &sealed(&mut client, &inside));
    v.check("static_datagram_gateway_0", &sealed(&mut sealer(v, &key, Role::Gateway), &inside));
}

fn sealer(v: &Vectors, key: &StaticKey, role: Role) -> Sealer {
    let run = v.bytes("static_run").iter().fold(0, |run, byte| run << 8 | u64::from(*byte));
    let inside = Inside { gateway: [10, 8, 0, 1].into(), client: [10, 8, 0, 2].into() };
    start(key, role, inside, Policy::Auto, Stored::default(), run).unwrap().0
}

fn sealed(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
    let mut datagram = [&[0; OVERHEAD], packet].concat();
    sealer.seal([datagram.as_mut_slice()].into_iter());
    datagram
}

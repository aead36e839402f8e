//! KCP: the first datagram of a client, and its answer.

use std::{net::SocketAddr, time::Instant};

use cipherwall_proto::{
    kcp::{Conversation, Door, Transmit},
    keys::expand,
};

use crate::document::Vectors;

pub(crate) fn all(v: &Vectors) {
    let (door_key, conversation) = (v.door(), v.array("kcp_conversation"));
    for (name, label, context) in
        [("kcp_head_key", "kcp head", &[][..]), ("kcp_key", "kcp key", &conversation)]
    {
        let mut key = [0; 32];
        expand(&door_key.0, label, context, &mut key);
        v.check(name, &key);
    }

    let time_s = u32::from_be_bytes(v.array("kcp_time"));
    let address = SocketAddr::from(([192, 0, 2, 1], 443));
    let (now, door) = (Instant::now(), Door::new(&door_key));
    let mut client = Conversation::client(now, &door, conversation, address);
    client.ask();
    let mut question = sent(&mut client, now, time_s);
    v.check("kcp_datagram_c2s_0", &question);
    let head = door.head(&question).unwrap();
    let begun = Conversation::gateway(now, &door, &head, address, &mut question, [9; 32]);
    let (mut gateway, time) = begun.unwrap();
    assert_eq!(time, time_s);
    v.check("kcp_datagram_s2c_0", &sent(&mut gateway, now, time_s));
}

/// The only datagram that is sent now.
fn sent(conversation: &mut Conversation, now: Instant, time_s: u32) -> Vec<u8> {
    conversation.poll(now);
    let mut room = [0; 100];
    let outcome = conversation.transmit(time_s, |len| room.get_mut(..len));
    let Transmit::Written(len) = outcome else { panic!("{outcome:?}") };
    assert_eq!(conversation.transmit(time_s, |_| None), Transmit::Nothing);
    room[..len].to_vec()
}

//! Who gets datagrams, and with which keys: log-in and resume, with ends that do not know of them.

use std::time::Instant;

use cipherwall_proto::{
    VERSION,
    cipher::{CipherId, DatagramCipher, TAG_LEN},
    client::{self, Answer, Credential, OpeningError, Resumable},
    datagram::Masks,
    device::DeviceKey,
    frame,
    gateway::{self, Demand},
    knock::OPENER_LEN,
    message::RefusalCode,
    record::PREFIX_LEN,
};

use crate::ends::{CIPHERS, INDEX, MASK_KEY, offer, open, openings, packet, seal, welcome};

fn device() -> DeviceKey {
    DeviceKey::from_seed(&[5; 32])
}

fn session() -> Resumable {
    let cipher = CipherId::Aes256Gcm;
    Resumable { token: [2; 16], session_id: [1; 16], version: VERSION, cipher }
}

fn ask(client: &mut client::Opening, gateway: &mut gateway::Opening) -> Demand {
    let credential = Credential::Invitation { secret: &[4; 16] };
    let request = client.request(&credential, &device());
    gateway.handle_record(&request[OPENER_LEN..]).unwrap().unwrap()
}

/// Whether a record of the client's opens at the gateway.
fn streams_agree(sealer: &mut cipherwall_proto::record::Sealer, theirs: &mut gateway::Established) {
    let ping = frame::ping([1; 8]);
    let mut record = [&[0; PREFIX_LEN][..], &ping, &[0; TAG_LEN]].concat();
    sealer.seal(Instant::now(), &mut record).unwrap();
    let mut plaintext = vec![0; record.len()];
    assert_eq!(theirs.opener.open(&mut record, &mut plaintext), Ok(ping.len()));
}

#[test]
fn the_gateway_takes_the_first_cipher_that_both_know() {
    for (aes, offered, chosen) in [
        (true, vec![CIPHERS[1], CIPHERS[0]], CIPHERS[1]),
        (false, vec![CIPHERS[1], CIPHERS[0]], CIPHERS[0]),
        (false, vec![CIPHERS[2], CIPHERS[0]], CIPHERS[2]),
    ] {
        let (mut client, _) = openings(9);
        let root = cipherwall_proto::keys::Root([9; 32]);
        let mut gateway = gateway::Opening::new(root, aes);
        client.offer_datagrams(&offered);
        ask(&mut client, &mut gateway);
        assert_eq!(gateway.datagram_cipher(), Some(chosen));
        let (answer, mut theirs) = gateway.welcome(welcome(Some(offer())));
        let Ok(Some(Answer::Welcome(mut ours))) = client.handle_record(&answer) else { panic!() };
        let channel = client.channel(&ours.welcome).unwrap();
        assert_eq!((channel.cipher(), channel.index()), (chosen, INDEX));
        streams_agree(&mut ours.sealer, &mut theirs);
        let masks = Masks::new(&MASK_KEY);
        let (mut sealer, _) = channel.into_halves(&masks, [1; 32]);
        let (_, mut opener) = theirs.datagram.unwrap().into_halves(&masks, [2; 32]);
        let now = Instant::now();
        let datagram = seal(&mut sealer, now, &packet(100, 1));
        assert!(open(&mut opener, now, &datagram).is_some());
    }
}

#[test]
fn an_end_without_datagrams_gets_the_keys_of_one_that_never_heard_of_them() {
    for (wants, offers) in [(true, false), (false, true), (false, false)] {
        let (mut client, mut gateway) = openings(9);
        if wants {
            client.offer_datagrams(&CIPHERS);
        }
        ask(&mut client, &mut gateway);
        let (answer, mut theirs) = gateway.welcome(welcome(offers.then(offer)));
        assert!(theirs.datagram.is_none());
        let Ok(Some(Answer::Welcome(mut ours))) = client.handle_record(&answer) else { panic!() };
        assert!(client.channel(&ours.welcome).is_none());
        assert_eq!(ours.welcome.datagram, None);
        streams_agree(&mut ours.sealer, &mut theirs);
    }
}

#[test]
fn a_resumed_session_gets_another_channel_with_keys_of_its_own() {
    for cipher in CIPHERS {
        let masks = Masks::new(&MASK_KEY);
        let mut datagrams = Vec::new();
        for root in [9, 10] {
            let (mut client, mut gateway) = openings(root);
            // more than one would leave open which keys the first records have
            client.offer_datagrams(&[cipher, CIPHERS[0], CIPHERS[1]]);
            let (request, mut resumed) = client.resume(&session(), &device());
            let demand = gateway.handle_record(&request[OPENER_LEN..]).unwrap().unwrap();
            assert!(matches!(demand, Demand::Resume { .. }));
            let (answer, mut theirs) = gateway.welcome(welcome(Some(offer())));
            streams_agree(&mut resumed.sealer, &mut theirs);
            let Ok(Some(Answer::Resumed(welcome))) = client.handle_record(&answer) else {
                panic!()
            };
            let channel = client.channel(&welcome).unwrap();
            assert_eq!(channel.cipher(), cipher);
            let (mut sealer, _) = channel.into_halves(&masks, [1; 32]);
            let (_, mut opener) = theirs.datagram.unwrap().into_halves(&masks, [2; 32]);
            let now = Instant::now();
            datagrams.push(seal(&mut sealer, now, &packet(100, 1)));
            let opened = datagrams.iter().filter(|d| open(&mut opener, now, d).is_some()).count();
            assert_eq!(opened, 1, "{cipher}: the present channel's, not the former one's");
        }
    }
}

/// The gateway's owner has switched datagrams off meanwhile: the session goes on without.
#[test]
fn a_resume_with_datagrams_succeeds_where_there_is_no_channel_any_more() {
    let (mut client, mut gateway) = openings(9);
    client.offer_datagrams(&CIPHERS);
    let (request, mut resumed) = client.resume(&session(), &device());
    gateway.handle_record(&request[OPENER_LEN..]).unwrap().unwrap();
    let (answer, mut theirs) = gateway.welcome(welcome(None));
    assert!(theirs.datagram.is_none());
    streams_agree(&mut resumed.sealer, &mut theirs);
    let Ok(Some(Answer::Resumed(welcome))) = client.handle_record(&answer) else { panic!() };
    assert!(client.channel(&welcome).is_none());
}

/// A gateway of an earlier version ignores the wish, and has other keys for the stream.
#[test]
fn a_resume_with_datagrams_at_an_older_gateway_is_told_from_one_that_succeeded() {
    let (mut client, mut gateway) = openings(9);
    client.offer_datagrams(&CIPHERS);
    client.resume(&session(), &device());
    let (mut older, _) = openings(9);
    let (request, _) = older.resume(&session(), &device());
    gateway.handle_record(&request[OPENER_LEN..]).unwrap().unwrap();
    let (answer, _) = gateway.welcome(welcome(None));
    assert_eq!(client.handle_record(&answer).unwrap_err(), OpeningError::Datagrams);
}

#[test]
fn a_cipher_that_was_not_offered_ends_the_opening() {
    let (mut client, mut gateway) = openings(9);
    client.offer_datagrams(&[CIPHERS[0]]);
    ask(&mut client, &mut gateway);
    let (mut picky, _) = openings(9);
    picky.offer_datagrams(&[CIPHERS[1]]);
    let (answer, _) = gateway.welcome(welcome(Some(offer())));
    assert_eq!(picky.handle_record(&answer).unwrap_err(), OpeningError::Datagrams);
}

/// Its records follow at once, with keys that nobody else has.
#[test]
fn a_resume_that_wants_a_cipher_of_a_later_version_is_refused() {
    let (_, mut gateway) = openings(9);
    let request = cipherwall_proto::message::ClientMessage {
        offer: cipherwall_proto::message::Offer {
            versions: (1, 1),
            program: "later".into(),
            ciphers: vec![2],
            transport: "tls".into(),
            datagrams: vec![9],
        },
        request: cipherwall_proto::message::Request::Resume(cipherwall_proto::message::Resume {
            token: [2; 16].into(),
            sig: [0; 64].into(),
        }),
    };
    let bytes = cipherwall_proto::message::encode(&request);
    let demand = gateway.handle_record(&bytes).unwrap().unwrap();
    assert!(matches!(demand, Demand::Refuse(refused) if refused.code == RefusalCode::Version));
    assert_eq!(DatagramCipher::from_wire(9), None);
}

//! The steps of rekeys, from a peer that is authenticated but not trusted, at any time.

use std::time::{Duration, Instant};

use cipherwall_proto::{
    cipher::CipherId,
    client::{self, Answer},
    frame::{Control, Frame, RekeyFrame},
    gateway,
    keys::{DoorKey, Root},
    knock::{Alpn, OPENER_LEN},
    liveness::Keepalive,
    message::{Text, Welcome},
    record::{Opener, Usage},
    rekey::{Limits, Policy, Randomness, Side},
    tunnel::{Reason, Tunnel},
};

/// First byte: which end this is. Then what happens, three bytes each: what, and two for how.
pub(crate) fn run(data: &[u8]) {
    let Some((&side, data)) = data.split_first() else { return };
    let (client, gateway) = openers();
    let (side, mut opener) = match side & 1 {
        0 => (Side::Client(Limits { records: 1_000, bytes: 1 << 20, ..Limits::default() }), client),
        _ => (
            Side::Gateway(Policy { interval: Duration::from_secs(1), ..Policy::default() }),
            gateway,
        ),
    };
    let mut now = Instant::now();
    let mut tunnel = Tunnel::new(now, Keepalive::default(), side, 1);
    let mut sealed = Usage::default();
    for &[what, high, low] in data.as_chunks::<3>().0 {
        let number = u16::from_be_bytes([high, low]);
        let before = opener.usage().epoch;
        let frame = match what % 7 {
            0 => RekeyFrame::Start {
                epoch: before + u32::from(high % 3),
                random: [low; 32],
                public: public(low),
            },
            1 => RekeyFrame::Reply { epoch: before + u32::from(high % 3), public: public(low) },
            2 => RekeyFrame::Done { epoch: before + u32::from(high % 3) },
            3 => {
                now += Duration::from_millis(number.into());
                if tunnel.poll_timeout().1 == Reason::Rekey && tunnel.handle_timeout(now).is_err() {
                    return;
                }
                continue;
            }
            4 => {
                sealed.records = number.into();
                tunnel.handle_usage(&sealed, &opener.usage());
                continue;
            }
            5 => {
                let please = Frame::Control(Control::RekeyPlease);
                assert_eq!(tunnel.handle_frame(now, &please, &mut opener), Ok(None));
                continue;
            }
            _ => {
                let randomness = Randomness { secret: [high; 32], random: [low; 32] };
                if tunnel.handle_randomness(now, &randomness, &opener).is_err() {
                    return;
                }
                send(&mut tunnel, &mut sealed);
                continue;
            }
        };
        let done = tunnel.handle_frame(now, &Frame::Rekey(frame), &mut opener);
        let after = opener.usage().epoch;
        match (done, frame, side) {
            (Ok(None), RekeyFrame::Start { epoch, .. }, Side::Client(_)) => {
                assert_eq!((epoch, after), (before + 1, before));
            }
            (Ok(None), RekeyFrame::Reply { epoch, .. }, Side::Gateway(_))
            | (Ok(None), RekeyFrame::Done { epoch }, Side::Client(_)) => {
                assert_eq!((epoch, after), (before + 1, before + 1));
            }
            (Ok(_), ..) => panic!("{frame:?} is not for this end"),
            (Err(error), ..) => {
                assert_eq!(before, after);
                assert!(!error.to_string().is_empty());
                return;
            }
        }
        send(&mut tunnel, &mut sealed);
    }
}

/// Some keys of small order among them.
fn public(low: u8) -> [u8; 32] {
    if low < 8 { std::array::from_fn(|at| if at == 0 { low } else { 0 }) } else { [low; 32] }
}

/// Takes what is to be sent, of which there is never much, as a sender would.
fn send(tunnel: &mut Tunnel, sealed: &mut Usage) {
    let mut count = 0;
    while let Some(outgoing) = tunnel.poll_outgoing() {
        if outgoing.next_keys.is_some() {
            *sealed = Usage { epoch: sealed.epoch + 1, ..Usage::default() };
        }
        count += 1;
        assert!(count <= 2, "one step, and perhaps a wish");
        tunnel.outgoing_taken();
    }
}

/// What opens records at the client and at the gateway, made as the programs make it.
fn openers() -> (Opener, Opener) {
    let root = || Root([9; 32]);
    let ciphers = [CipherId::Aes256Gcm];
    let mut client = client::Opening::new(root(), &DoorKey([1; 32]), Alpn::Http1, "fuzz", &ciphers);
    let mut gateway = gateway::Opening::new(root(), true);
    let request = client.request_salt("fuzz");
    gateway.handle_record(&request[OPENER_LEN..]).expect("a request");
    let (answer, gateway) = gateway.welcome(welcome());
    let Ok(Some(Answer::Welcome(client))) = client.handle_record(&answer) else {
        unreachable!("the client understands the gateway");
    };
    (client.opener, gateway.opener)
}

fn welcome() -> Welcome {
    Welcome {
        session_id: [5; 16].into(),
        token: [6; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text([10, 8, 0, 2].into()),
        v6: Text([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
        routes: Vec::new(),
        dns: Vec::new(),
        mtu: 1_420,
        keepalive: 15,
        time: 0,
        pins: Vec::new(),
        datagram: None,
    }
}

//! Stories of sessions, in the layout of `bodies/session/mod.rs`, and of KCP, in that of
//! `bodies/kcp.rs`.

use crate::write;

const UP: u8 = 0;
const DOWN: u8 = 0x10;
/// A second, and half a minute.
const SECOND: [u8; 2] = [4, 250];
const LONG: [u8; 2] = [5, 120];
const CUT: [u8; 2] = [6, 1];
const WHOLE: [u8; 2] = [6, 0];

/// Packets of several lengths in both directions.
fn traffic() -> Vec<u8> {
    [[UP, 10], [DOWN, 250], [UP, 255], [DOWN, 0], SECOND].concat()
}

pub(crate) fn sessions() {
    let stories: [(&str, Vec<u8>); 20] = [
        ("idle", [LONG, LONG, LONG].concat()),
        ("traffic", traffic().repeat(8)),
        ("cut_for_a_moment", [&traffic()[..], &CUT, &traffic(), &WHOLE, &traffic()].concat()),
        ("cut_for_good", [&traffic()[..], &CUT, &LONG, &LONG, &WHOLE, &traffic()].concat()),
        ("stalled", [&[7, 1][..], &traffic(), &traffic(), &[7, 0], &traffic()].concat()),
        ("gateway_stalled", [&[0x17, 1][..], &traffic(), &LONG, &LONG, &[0x17, 0]].concat()),
        ("datagrams_closed", [&LONG[..], &[8, 1], &traffic(), &LONG, &[8, 0], &traffic()].concat()),
        ("roams", [&SECOND[..], &[0x18, 7], &traffic(), &[0x18, 9], &traffic()].concat()),
        ("lost", [&SECOND[..], &[9, 20], &traffic().repeat(4)].concat()),
        ("doubled", [&SECOND[..], &[9, 0x5f], &traffic().repeat(4)].concat()),
        ("late", [&SECOND[..], &[9, 0x9f], &traffic().repeat(4), &SECOND].concat()),
        ("asks_for_keys", [&[10, 0][..], &traffic(), &[10, 0], &SECOND, &SECOND].concat()),
        ("resumes", [&traffic()[..], &[11, 3], &traffic(), &[11, 7], &traffic()].concat()),
        ("answer_lost", [&traffic()[..], &[11, 11], &traffic(), &[11, 8], &traffic()].concat()),
        ("changed", [&traffic()[..4], &[12, 30], &traffic(), &traffic()].concat()),
        ("truncated", [&traffic()[..4], &[0x2c, 30], &traffic(), &LONG, &traffic()].concat()),
        ("replayed", [&traffic()[..], &[13, 3], &traffic(), &[0x1d, 5], &traffic()].concat()),
        ("farewell", [&traffic()[..], &[14, 0], &traffic()].concat()),
        ("kicked", [&traffic()[..], &[0x1e, 0], &traffic()].concat()),
        ("doubts", [&traffic()[..], &[15, 0], &[0x1f, 0], &traffic()].concat()),
    ];
    for (number, (name, story)) in (0..).zip(stories) {
        for (kind, way) in [(0, "stream"), (4, "datagrams"), (14, "packets")] {
            let settings = [kind | number & 1, 10 + number];
            write("session", &format!("{name}_{way}"), &[&settings[..], &story].concat());
        }
    }
}

pub(crate) fn kcp() {
    const PUSH: u8 = 1;
    const ACK: u8 = 2;
    const ASK: u8 = 3;
    write("kcp", "stranger", &[&[0][..], &[0x5a; 100]].concat());
    write("kcp", "stranger_short", &[&[0][..], &[0x5a; 35]].concat());
    let exchange = [[0, 200], [8, 200], [0, 10], [8, 10]].concat();
    for (name, what) in [
        ("lost", 1),
        ("repeated", 2),
        ("reordered", 3),
        ("changed", 4),
        ("held", 5),
        ("moved", 6),
        ("whole", 0),
    ] {
        let story = [exchange.clone(), [[what, 40], [8 | what, 40]].concat()].concat().repeat(12);
        write("kcp", &format!("way_{name}"), &[&[1][..], &story].concat());
    }
    for (side, kind) in [("gateway", 2), ("client", 3)] {
        let in_order: Vec<u8> =
            (0..20).flat_map(|number| [PUSH, 100, number, 0, 1, 50, 2, 32]).collect();
        let backwards: Vec<u8> =
            (0..20).rev().flat_map(|number| [PUSH, 100, number, 0, 1, 50, 2, 4]).collect();
        let acks: Vec<u8> =
            (0..20).flat_map(|number| [ACK, 1, number, number, 1, 0, 30, 8]).collect();
        for (name, segments) in [
            ("in_order", in_order),
            ("backwards", backwards),
            ("acknowledged", acks),
            ("asks", [ASK, 0, 0, 0, 0, 0, 200, 8].repeat(10)),
            ("far", [PUSH, 9, 200, 250, 192, 10, 9, 1].repeat(10)),
            ("damaged", [PUSH, 9, 3, 2, 1, 10, 9, 2].repeat(10)),
            ("ends", [PUSH, 9, 1, 2, 1, 0, 100, 24].repeat(10)),
        ] {
            write("kcp", &format!("{name}_{side}"), &[&[kind][..], &segments].concat());
        }
    }
}

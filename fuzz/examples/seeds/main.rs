//! Writes the seeds of the corpora: for each target what well-behaved peers and careful people
//! write, which is where fuzzing starts from. `cargo run --example seeds` in this directory, also
//! after a change of a format.

mod host;
mod sessions;

use std::{fs, path::Path};

use cipherwall_packet::offload::{
    GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, OffloadHeader,
};
use cipherwall_proto::{
    VERSION,
    device::{DeviceKey, Purpose},
    frame::{self, Control, KickReason, RekeyFrame},
    invitation::{Endpoint, Invitation, Transport},
    keys::{DoorKey, Root},
    knock::{self, Alpn},
    message::{
        ClientMessage, Enrol, GatewayMessage, Login, Offer, RefusalCode, Refused, Reply, Request,
        Resume, Text, Welcome,
    },
};

/// The secret of the connection in the targets.
const ROOT: [u8; 32] = [9; 32];
/// The gateway's door keys there.
const DOORS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

fn main() {
    frames();
    records();
    rekeys();
    datagrams();
    messages();
    openers();
    invitations();
    ip_packets();
    configs();
    static_datagrams();
    sessions::sessions();
    sessions::kcp();
    host::texts();
    host::messages();
    host::questions();
    host::answers();
    host::visits();
    host::frames();
}

fn write(target: &str, name: &str, data: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(name), data).expect("a file");
}

/// Runs of frames, by name.
fn runs_of_frames() -> Vec<(&'static str, Vec<u8>)> {
    let kick = |reason| frame::control(&Control::Kick { reason });
    let packet = udp_v4(20);
    let offload = [&tcp_header(GSO_TCPV4, 40, 100).encode()[..], &tcp_v4(250)].concat();
    let framed = |kind, payload: &[u8]| [&frame::header(kind, payload.len())[..], payload].concat();
    let packets = [framed(frame::PACKET, &packet), framed(frame::OFFLOAD, &offload)].concat();
    vec![
        ("ping", frame::ping([7; 8])),
        ("pong", frame::pong([8; 8])),
        ("close", frame::control(&Control::Close)),
        ("token_stored", frame::control(&Control::TokenStored)),
        ("superseded", kick(KickReason::Superseded)),
        ("revoked", kick(KickReason::Revoked)),
        ("stopping", kick(KickReason::Stopping)),
        ("rekey_please", frame::control(&Control::RekeyPlease)),
        ("rekey", RekeyFrame::Start { epoch: 1, random: [2; 32], public: [9; 32] }.to_bytes()),
        ("rekey_reply", RekeyFrame::Reply { epoch: 1, public: [9; 32] }.to_bytes()),
        ("rekey_done", RekeyFrame::Done { epoch: 1 }.to_bytes()),
        ("packet", framed(frame::PACKET, &packet)),
        ("offload", framed(frame::OFFLOAD, &offload)),
        ("padding", framed(frame::PADDING, &[0; 40])),
        ("of_a_later_version", framed(0xff, b"?")),
        ("of_unknown_type", framed(0x40, b"?")),
        ("too_long", frame::header(frame::PACKET, frame::PAYLOAD_MAX + 1).to_vec()),
        ("cut", framed(frame::PACKET, &packet)[..30].to_vec()),
        ("several", [frame::ping([1; 8]), packets, frame::control(&Control::Close)].concat()),
    ]
}

fn frames() {
    for (name, bytes) in runs_of_frames() {
        write("frame", name, &bytes);
    }
}

/// The layout is that of `bodies/record.rs`.
fn records() {
    for (name, frames) in runs_of_frames() {
        let save = |kind: &str, settings: [u8; 7]| {
            write("record", &format!("{name}_{kind}"), &[&settings[..], &frames].concat());
        };
        save("whole", [3, 255, 0, 0, 0, 255, 0]);
        save("in_pieces", [2, 0, 0, 0, 0, 0, 1]);
        save("changed", [2, 3, 128, 0, 1, 0, 9]);
        save("many", [2, 60, 0, 0, 0, 255, 255]);
    }
    write("record", "tls_handshake", &[&[0, 0, 0x16, 3, 3, 0, 40][..], &[0; 40]].concat());
    write("record", "not_ours", &[&[0, 0, 0x17, 3, 3, 0, 40][..], &[0; 40]].concat());
    write("record", "too_long", &[1, 0, 0x17, 3, 3, 0xff, 0xff]);
    write("record", "too_short", &[1, 0, 0x17, 3, 3, 0, 24]);
}

/// The layout is that of `bodies/rekey.rs`.
fn rekeys() {
    const CLIENT: u8 = 0;
    const GATEWAY: u8 = 1;
    const START: [u8; 3] = [0, 1, 9];
    const REPLY: [u8; 3] = [1, 1, 9];
    const DONE: [u8; 3] = [2, 1, 0];
    const WAIT: [u8; 3] = [3, 0x08, 0];
    const SEALED: [u8; 3] = [4, 0x10, 0];
    const PLEASE: [u8; 3] = [5, 0, 0];
    const RANDOMNESS: [u8; 3] = [6, 1, 2];
    let whole_client = [START, RANDOMNESS, DONE].concat();
    let whole_gateway = [WAIT, RANDOMNESS, REPLY].concat();
    for (name, side, steps) in [
        ("client", CLIENT, whole_client.clone()),
        ("client_again", CLIENT, whole_client.repeat(20)),
        ("client_asks", CLIENT, [&SEALED[..], &whole_client, &SEALED].concat()),
        ("client_twice_started", CLIENT, [START, START].concat()),
        ("client_done_too_early", CLIENT, [START, DONE].concat()),
        ("client_replied_to", CLIENT, [START, RANDOMNESS, REPLY].concat()),
        ("client_left_alone", CLIENT, [&START, &RANDOMNESS, &WAIT.repeat(20)[..]].concat()),
        ("client_wrong_epoch", CLIENT, vec![0, 2, 9]),
        ("client_no_secret", CLIENT, [[0, 1, 0], RANDOMNESS].concat()),
        ("gateway", GATEWAY, whole_gateway.clone()),
        ("gateway_again", GATEWAY, whole_gateway.repeat(20)),
        ("gateway_asked", GATEWAY, [&PLEASE[..], &WAIT, &PLEASE, &RANDOMNESS, &REPLY].concat()),
        ("gateway_used_up", GATEWAY, [SEALED, RANDOMNESS, REPLY].concat()),
        ("gateway_started_by_client", GATEWAY, START.to_vec()),
        ("gateway_reply_too_early", GATEWAY, REPLY.to_vec()),
        ("gateway_replied_twice", GATEWAY, [&whole_gateway[..], &REPLY].concat()),
        ("gateway_left_alone", GATEWAY, [&WAIT, &RANDOMNESS, &WAIT.repeat(20)[..]].concat()),
        ("gateway_no_secret", GATEWAY, [WAIT, RANDOMNESS, [1, 1, 0]].concat()),
    ] {
        write("rekey", name, &[&[side][..], &steps].concat());
    }
}

/// The layout is that of `bodies/datagram.rs`.
fn datagrams() {
    // what a peer may do, two bytes each
    const RECEIVED: [u8; 2] = [1, 150];
    const ELSEWHERE: [u8; 2] = [0x11, 150];
    const ANSWER: [u8; 2] = [2, 0];
    const PING: [u8; 2] = [3, 3];
    const CHALLENGE: [u8; 2] = [3, 9];
    const SENT: [u8; 2] = [6, 0];
    const SECOND: [u8; 2] = [7, 1];
    let answers: Vec<u8> = (0..60).flat_map(|n| [[1, 150], [2, n], [0, 5]].concat()).collect();
    let up = [&RECEIVED[..], &SECOND, &answers].concat();
    let cut: Vec<u8> = [SENT, SECOND].concat().repeat(10);
    for cipher in 0..3u8 {
        let save = |name: &str, kind: u8, data: &[u8]| {
            write(
                "datagram",
                &format!("{name}_{cipher}"),
                &[&[cipher | kind << 2][..], data].concat(),
            );
        };
        save("noise", 0, &[0x5a; 100]);
        save(
            "packet_in_the_clear",
            0,
            &[&frame::header(frame::PACKET, 28)[..], &[0x45; 28]].concat(),
        );
        let order: Vec<u8> =
            [1, 0, 2, 2, 100, 50, 255, 0].iter().flat_map(|n| [*n, 0, 0]).collect();
        save("reordered", 1, &order);
        let changed: Vec<u8> = (0..90).flat_map(|at| [at, at, 1 << (at % 8)]).collect();
        save("changed", 1, &[&changed[..], &order].concat());
        for (name, end) in [("client", 2), ("gateway", 2 | 4)] {
            save(&format!("{name}_up"), end, &up);
            save(&format!("{name}_cut_off"), end, &[&up[..], &cut].concat());
            save(
                &format!("{name}_roams"),
                end,
                &[&up[..], &ELSEWHERE, &SECOND, &RECEIVED].concat(),
            );
            save(
                &format!("{name}_asked"),
                end,
                &[&RECEIVED[..], &PING, &CHALLENGE, &ANSWER].concat(),
            );
            save(&format!("{name}_too_long"), end, &[&up[..], &[4, 90], &[4, 10], &cut].concat());
            save(&format!("{name}_doubts"), end, &[&up[..], &[5, 0], &SECOND.repeat(5)].concat());
        }
    }
}

/// The layout is that of `bodies/message.rs`.
fn messages() {
    const GATEWAY: u8 = 0;
    const CLIENT: u8 = 2;
    const RESUMING: u8 = CLIENT | 0x80;
    let save = |reader: u8, name: &str, body: &[u8]| {
        write("message", name, &[&[reader | 1, 0], body].concat());
        let header = [b"IRVP", &(body.len() as u32).to_be_bytes()[..]].concat();
        write("message", &format!("{name}_in_pieces"), &[&[reader, 9], &header[..], body].concat());
    };
    for (name, request) in requests() {
        let message = ClientMessage { offer: offer((VERSION, VERSION)), request };
        save(GATEWAY, name, &packed(&message));
    }
    let later = ClientMessage {
        offer: offer((VERSION + 1, VERSION + 9)),
        request: Request::GetSalt { user: "ali".into() },
    };
    save(GATEWAY, "of_a_later_version", &packed(&later));
    for (name, reply) in replies() {
        let message = packed(&GatewayMessage { reply });
        save(CLIENT, name, &message);
        save(RESUMING, &format!("resuming_{name}"), &message);
    }
    // {"a": 1, "a": 1}, nine arrays in each other, an array said to be of 4 billion
    save(GATEWAY, "key_twice", b"\x82\xa1a\x01\xa1a\x01");
    save(CLIENT, "deep", &[&[0x91; 9][..], &[0xc0]].concat());
    save(CLIENT, "huge", &[0xdd, 0xff, 0xff, 0xff, 0xff]);
    write("message", "web_site", b"\x02\0HTTP/1.1 400 Bad Request\r\n\r\n");
    let after_http2 = [&[4, 0][..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], b"IRVP\0\0\0\x01\xc0"].concat();
    write("message", "behind_http2", &after_http2);
}

fn packed(message: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(message).expect("MessagePack")
}

fn offer(versions: (u8, u8)) -> Offer {
    Offer {
        versions,
        program: "seed 1".into(),
        ciphers: vec![2, 1],
        transport: "tls".into(),
        datagrams: vec![],
    }
}

fn requests() -> Vec<(&'static str, Request)> {
    let device = DeviceKey::from_seed(&[3; 32]);
    let public = device.public().into();
    let sig = |purpose| device.sign(purpose, &Root(ROOT).proof()).into();
    let login = |user: &str, sig| {
        Request::Login(Login { user: user.into(), prehash: [4; 32].into(), device: public, sig })
    };
    let enrol = |prehash: Option<[u8; 32]>| {
        Request::Enrol(Enrol {
            secret: [5; 16].into(),
            device: public,
            sig: sig(Purpose::Enrol),
            prehash: prehash.map(Into::into),
        })
    };
    let resume = |sig| Request::Resume(Resume { token: [7; 16].into(), sig });
    vec![
        ("get_salt", Request::GetSalt { user: "ali".into() }),
        ("login", login("ali", sig(Purpose::Login))),
        ("login_with_wrong_signature", login("ali", sig(Purpose::Enrol))),
        ("enrol", enrol(None)),
        ("enrol_with_password", enrol(Some([6; 32]))),
        ("resume", resume(sig(Purpose::Resume))),
        ("resume_with_wrong_signature", resume(sig(Purpose::Login))),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let refused = |code| Reply::Refused(Refused::new(code));
    let welcome = |cipher| {
        Reply::Welcome(Box::new(Welcome {
            session_id: [5; 16].into(),
            token: [6; 16].into(),
            version: VERSION,
            cipher,
            v4: Text([10, 8, 0, 2].into()),
            v6: Text([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
            routes: ["0.0.0.0/1", "::/1"].map(|net| Text(net.parse().expect("a net"))).into(),
            dns: vec![Text([10, 8, 0, 1].into())],
            mtu: 1_420,
            keepalive: 15,
            time: 1_900_000_000,
            pins: vec![[1; 32].into(), [2; 32].into()],
            datagram: None,
        }))
    };
    let busy = Refused { retry_after: Some(9), ..Refused::new(RefusalCode::Busy) };
    let version = Refused { versions: Some((2, 3)), ..Refused::new(RefusalCode::Version) };
    let full = Refused {
        detail: Some("10.8.0.0/24, 253 addresses".into()),
        ..Refused::new(RefusalCode::Full)
    };
    vec![
        ("salt", Reply::Salt { salt: [7; 16].into() }),
        ("welcome", welcome(1)),
        ("welcome_not_offered", welcome(2)),
        ("rejected", refused(RefusalCode::Rejected)),
        ("used", refused(RefusalCode::Used)),
        ("busy", Reply::Refused(busy)),
        ("version", Reply::Refused(version)),
        ("full", Reply::Refused(full)),
    ]
}

/// The layout is that of `bodies/opener.rs`.
fn openers() {
    const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let root = Root(ROOT);
    let save = |kind: u8, name: &str, bytes: &[u8]| {
        write("opener", name, &[&[kind, 0], bytes].concat());
        write("opener", &format!("{name}_in_pieces"), &[&[kind, 7], bytes].concat());
    };
    for (door, age) in DOORS.into_iter().zip(["current", "previous"]) {
        let door = DoorKey(door);
        let h1 = knock::opener(&root, &door, Alpn::Http1);
        let h2 = knock::opener(&root, &door, Alpn::Http2);
        save(0, &format!("h1_{age}"), &[&h1[..], b"IRVP\0\0\0\x01\xc0"].concat());
        save(1, &format!("h2_{age}"), &h2);
        let (head, frame) = h2.split_at(24 + 9);
        save(1, &format!("h2_{age}_late"), &[head, &SETTINGS_ACK, &SETTINGS_ACK, frame].concat());
        save(1, &format!("h2_{age}_too_late"), &[head, &SETTINGS_ACK.repeat(3), frame].concat());
    }
    save(0, "h1_request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    save(0, "h1_like_ours", b"IRVP /AAAAAAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\n");
    save(
        1,
        "h2_of_a_browser",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    );
    save(
        2,
        "skip_two_frames",
        &[&SETTINGS_ACK[..], &[0, 0, 2, 7, 0, 0, 0, 0, 0], b"IIIRVP"].concat(),
    );
    save(2, "skip_nothing", b"IRVP\0\0\0\x01\xc0");
    save(2, "skip_web_site", b"HTTP/1.1 400 Bad Request\r\n\r\n");
}

fn invitations() {
    let endpoint = |host: &str| Endpoint {
        host: host.into(),
        port: 8443,
        transport: Transport::Tls,
        pins: [[1; 32], [2; 32]],
    };
    let with = |endpoints: Vec<Endpoint>, sni: &[&str]| Invitation {
        endpoints,
        user: "ali".into(),
        salt: [3; 16],
        door_key: [4; 32],
        enrol_secret: [5; 16],
        expires: 1_900_000_000,
        sni: sni.iter().map(|&name| name.to_owned()).collect(),
    };
    let links = [
        ("name", with(vec![endpoint("gateway.example")], &[])),
        ("v4", with(vec![endpoint("192.0.2.1")], &["www.example"])),
        ("v6", with(vec![endpoint("2001:db8::1")], &["a.example", "b.example"])),
        ("two", with(vec![endpoint("a.example"), endpoint("b.example")], &[])),
        ("none", with(vec![], &[])),
    ];
    for (name, invitation) in links {
        let link = invitation.to_link();
        write("invitation", &format!("link_{name}"), &[b"\0", link.as_bytes()].concat());
        let folded = link.as_bytes().chunks(60).collect::<Vec<_>>().join(&b"\r\n "[..]);
        write("invitation", &format!("folded_{name}"), &[b"\0", &folded[..]].concat());
        let (_, text) = link.rsplit_once('/').expect("a slash");
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text);
        let bytes = bytes.expect("base64");
        let body = &bytes[..bytes.len() - 4];
        write("invitation", &format!("body_{name}"), &[b"\x01", body].concat());
    }
    for (name, text) in [
        ("newer", "cipherwall://2/AAAA"),
        ("cut", "cipherwall://1/"),
        ("other", "https://example.org/"),
        ("empty_map", "cipherwall://1/gA"),
    ] {
        write("invitation", name, &[b"\0", text.as_bytes()].concat());
    }
}

fn ip_packets() {
    let save = |name: &str, header: &OffloadHeader, packet: &[u8]| {
        write("ip_packet", name, &[&header.encode()[..], packet].concat());
    };
    let none = OffloadHeader::NONE;
    let sum_only = OffloadHeader { header_len: 0, ..tcp_header(0, 0, 0) };
    save("udp_v4", &none, &udp_v4(20));
    save("tcp_v4", &none, &tcp_v4(20));
    save("tcp_v4_checksum", &sum_only, &tcp_v4(20));
    save("tcp_v4_pieces", &tcp_header(GSO_TCPV4, 40, 100), &tcp_v4(250));
    let mut cwr = tcp_v4(250);
    cwr[33] |= 0x80;
    save("tcp_v4_ecn", &tcp_header(GSO_TCPV4 | GSO_ECN, 40, 100), &cwr);
    save("tcp_v4_from_kernel", &tcp_header(GSO_TCPV4, 2_000, 100), &tcp_v4(250));
    save("tcp_v4_many", &tcp_header(GSO_TCPV4, 40, 1), &tcp_v4(300));
    save("tcp_v4_too_large", &tcp_header(GSO_TCPV4, 40, 1_000), &tcp_v4(250));
    let v6 = |header| OffloadHeader { csum_start: 40, ..header };
    save("tcp_v6", &none, &over_v6(6, &tcp(20)));
    save("tcp_v6_pieces", &v6(tcp_header(GSO_TCPV6, 60, 100)), &over_v6(6, &tcp(250)));
    let udp_header = OffloadHeader { csum_offset: 6, ..tcp_header(GSO_UDP_L4, 28, 50) };
    save("udp_v4_pieces", &udp_header, &udp_v4(120));
    let udp_v6 = OffloadHeader { header_len: 48, ..v6(udp_header) };
    save("udp_v6_pieces", &udp_v6, &over_v6(17, &udp(120)));
    // next header TCP, 8 bytes in all, PadN
    let options = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp(250)].concat();
    let behind = OffloadHeader { csum_start: 48, ..tcp_header(GSO_TCPV6, 68, 100) };
    save("tcp_v6_options", &behind, &over_v6(60, &options));
    let fragment = [&[17, 0, 0, 1, 0, 0, 0, 7][..], &udp(20)].concat();
    save("udp_v6_fragment", &none, &over_v6(44, &fragment));
    let mut v4_fragment = udp_v4(20);
    v4_fragment[6] = 0x20;
    save("udp_v4_fragment", &none, &v4_fragment);
    save("cut", &none, &udp_v4(20)[..18]);
}

fn tcp_header(gso_type: u8, header_len: u16, gso_size: u16) -> OffloadHeader {
    OffloadHeader {
        flags: NEEDS_CSUM,
        gso_type,
        header_len,
        gso_size,
        csum_start: 20,
        csum_offset: 16,
    }
}

fn tcp_v4(payload: usize) -> Vec<u8> {
    over_v4(6, &tcp(payload))
}

fn udp_v4(payload: usize) -> Vec<u8> {
    over_v4(17, &udp(payload))
}

fn tcp(payload: usize) -> Vec<u8> {
    let header = [0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x19, 0xff, 0xff, 0, 0, 0, 0];
    [&header[..], &vec![b'x'; payload]].concat()
}

fn udp(payload: usize) -> Vec<u8> {
    let length = (8 + payload as u16).to_be_bytes();
    [&[0x1f, 0x90, 0, 53][..], &length, &[0, 0], &vec![b'x'; payload]].concat()
}

fn over_v4(protocol: u8, segment: &[u8]) -> Vec<u8> {
    let length = (20 + segment.len() as u16).to_be_bytes();
    let start = [0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    [&start[..], &[10, 8, 0, 2, 192, 0, 2, 1], segment].concat()
}

fn over_v6(next: u8, segment: &[u8]) -> Vec<u8> {
    let length = (segment.len() as u16).to_be_bytes();
    let start = [0x60, 0, 0, 0, length[0], length[1], next, 64];
    [&start[..], &[0xfd; 16], &[0x20; 16], segment].concat()
}

fn configs() {
    const MINIMAL: &str = "endpoint: vpn.example.net\nnetworks:\n  v6: fd12:3456:789a::/64\n";
    write("config", "minimal", MINIMAL.as_bytes());
    for (name, line) in [
        ("endpoint_v6", "endpoint: \"[2001:db8::1]:443\""),
        ("endpoint_port", "endpoint: vpn.example.net:99999"),
        ("listen", "listen: [\"[::]:8443\", \"0.0.0.0:443\"]"),
        ("listen_none", "listen: []"),
        ("uplink", "uplink: ens3"),
        ("interface", "interface: cw%d"),
        ("mtu", "mtu: 1280"),
        ("mtu_small", "mtu: 12"),
        ("upstreams", "dns:\n  upstreams: [10.202.10.202, \"[fd00::1]:53\"]"),
        ("allow_private", "allow_private: [192.168.1.0/24, fd00:1::/64]"),
        ("sni", "sni: [www.example.net, a.example]"),
        ("keepalive", "keepalive:\n  interval_s: 15\n  timeout_s: 30"),
        ("limits", "limits:\n  handshake_s: 10\n  connections: 64\n  connections_per_address: 1"),
        ("log", "log: {level: debug, format: json, file: /var/log/gw.log}"),
        ("unknown_key", "endpont: x"),
        ("unknown_level", "log:\n  level: loud"),
        ("key_twice", "mtu: 1400\nmtu: 1400"),
        ("anchor", "sni: &a [*a, *a]"),
        ("not_yaml", "sni: [a"),
        ("tab", "dns:\n\tupstreams: []"),
    ] {
        write("config", name, format!("{MINIMAL}{line}\n").as_bytes());
    }
    write("config", "network", b"endpoint: a\nnetworks: {v4: 10.0.0.0/8, v6: fd00::/64}\n");
    write("config", "network_small", b"endpoint: a\nnetworks: {v4: 10.0.0.0/31, v6: fd00::/64}\n");
}

/// Key files, datagrams of strangers, and of peers that have the key: with a counter, with random
/// IVs, again, and with contents that are not for the tunnel.
fn static_datagrams() {
    let digits = "0123456789abcdefFEDCBA9876543210".repeat(4);
    let key_file = |text: &str| [&[0], text.as_bytes()].concat();
    write("static_datagram", "key", &key_file(&format!("{digits}\n")));
    write("static_datagram", "key_of_windows", &key_file(&format!("{digits}\r\n")));
    write("static_datagram", "key_too_short", &key_file(&digits[2..]));
    write("static_datagram", "stranger", &[&[0x40][..], &[0x5a; 148]].concat());
    write("static_datagram", "stranger_short", &[&[0x40][..], &[0x5a; 48]].concat());
    let client = |first: u8, packet: &[u8]| {
        let length = (16 + packet.len()) as u16;
        [&length.to_be_bytes()[..], &[first; 16], packet].concat()
    };
    let mut inside = udp_v4(20);
    inside[12..20].copy_from_slice(&[10, 8, 0, 2, 198, 51, 100, 7]);
    let mut back = inside.clone();
    back[12..20].copy_from_slice(&[198, 51, 100, 7, 10, 8, 0, 2]);
    let counted = client(0, &inside).repeat(6);
    let random: Vec<u8> = (0..6).flat_map(|iv| client(2 * iv + 1, &inside)).collect();
    for (name, policy) in [("auto", 0), ("counter", 1), ("seen", 2), ("off", 3)] {
        let kind = 0x80 | policy << 1;
        let both = [&[kind][..], &random, &counted, &random].concat();
        write("static_datagram", &format!("counted_{name}"), &[&[kind][..], &counted].concat());
        write("static_datagram", &format!("both_{name}"), &both);
    }
    let to_client =
        [&[0x81][..], &client(0, &back), &client(1, &back), &client(3, &inside)].concat();
    write("static_datagram", "to_the_client", &to_client);
    let cut = client(0, &inside[..inside.len() - 1]);
    write("static_datagram", "cut", &[&[0x80][..], &cut, &client(0, &[0x45]), &counted].concat());
}

//! What other programs on a host write, messages of its local socket, and DNS.

use cipherwall_ipc::{daemon, fuzz};

use crate::write;

const RULESET: &str = r#"{"nftables":[{"metainfo":{"version":"1.0.6"}},
{"table":{"family":"ip","name":"filter","handle":1}},
{"chain":{"family":"ip","table":"filter","name":"FORWARD","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"drop"}},
{"chain":{"family":"ip","table":"filter","name":"DOCKER-USER","handle":2}},
{"rule":{"family":"ip","table":"filter","chain":"FORWARD","handle":3,"expr":[{"counter":{"packets":1,"bytes":2}},{"jump":{"target":"DOCKER-USER"}}]}},
{"rule":{"family":"ip","table":"filter","chain":"DOCKER-USER","handle":4,"comment":"x","expr":[{"drop":null}]}},
{"chain":{"family":"inet","table":"firewalld","name":"filter_INPUT","handle":5,"type":"filter","hook":"input","prio":10,"policy":"accept"}},
{"rule":{"family":"inet","table":"firewalld","chain":"filter_INPUT","handle":6,"expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"firewalld","chain":"filter_INPUT","handle":7,"expr":[{"reject":{"type":"icmpx","expr":"admin-prohibited"}}]}}]}"#;

/// The first byte says which text, as in `bodies/host_text.rs`.
pub(crate) fn texts() {
    const ROUTES: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                          fe800000000000000000000000000001 00000400 00000001 00000000 00450003 eth0\n";
    let journal = "{\"origin\":{\"boot_id\":\"b\",\"net_namespace\":1}}\n\
                   {\"change\":{\"foreign_rule\":{\"family\":\"ip\",\"table\":\"filter\",\"chain\":\"INPUT\",\
                   \"rule\":\"accept\",\"comment\":\"c\"}}}\n\
                   {\"change\":{\"sysctl\":{\"key\":\"net/ipv4/ip_forward\",\"value\":\"1\",\"old\":\"0\"}}}\n";
    let strange = RULESET.replace("FORWARD", "F; flush ruleset");
    for (name, kind, text) in [
        ("nft", 0, RULESET),
        ("nft_strange_name", 0, strange.as_str()),
        ("nft_empty", 0, r#"{"nftables":[]}"#),
        ("nft_no_json", 0, "table ip filter {}"),
        ("iptables", 1, "-P INPUT DROP\n-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with x\n"),
        ("iptables_ours", 1, "-P FORWARD DROP\n-A FORWARD -i cw0 -j ACCEPT\n"),
        (
            "resolvers",
            2,
            "# a\nsearch lan\nnameserver 192.0.2.1\n nameserver fe80::1%1\nnameserver x\n",
        ),
        (
            "resolver_file",
            3,
            "domain lan\noptions edns0 trust-ad\nnameserver 192.0.2.1 192.0.2.2\n",
        ),
        ("resolver_file_odd", 3, "search nameserver 192.0.2.1\r\n\tnameserver\t::1\noptions\n"),
        ("routes", 4, ROUTES),
        ("journal", 5, journal),
        ("journal_cut", 5, &journal[..journal.len() - 5]),
    ] {
        write("host_text", name, &[&[kind], text.as_bytes()].concat());
    }
}

/// The layout is that of `bodies/ipc.rs`.
pub(crate) fn messages() {
    let requests = [
        ("status", r#""status""#),
        ("connect", r#"{"connect":{"profile":"home","transport":"auto"}}"#),
        ("disconnect", r#""disconnect""#),
        ("login", r#"{"login":{"profile":"home","login":"AAAA"}}"#),
        ("unknown", r#"{"fly":{"to":"moon"}}"#),
        ("deep", "[[[[[[[[[[[[[[[[[[[["),
    ];
    for (name, json) in requests {
        write("ipc", &format!("request_{name}"), &[&[1], json.as_bytes()].concat());
        write("ipc", &format!("reply_{name}"), &[&[3], json.as_bytes()].concat());
    }
    let whole = fuzz::bytes(&daemon::Request::Status).expect("a short message");
    write("ipc", "bytes", &[&[0], &whole[..]].concat());
    write("ipc", "bytes_twice", &[&[0], &whole[..], &whole].concat());
    write("ipc", "bytes_cut", &[&[0], &whole[..9]].concat());
    write("ipc", "too_long", &[0, 0xff, 0xff, 0xff, 0xff, b'{']);
    let error = daemon::Reply::Error { message: "no".into(), code: 1 };
    let error = fuzz::bytes(&error).expect("a short message");
    write("ipc", "bytes_error", &[&[2], &error[..]].concat());
}

/// Head, and name of a question.
fn message(flags: u8, counts: [u8; 4], name: &str, kind: u8) -> Vec<u8> {
    let [questions, answers, authorities, additional] = counts;
    let mut message = vec![7, 9, flags, 0, 0, questions, 0, answers, 0, authorities, 0, additional];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, kind, 0, 1]);
    message
}

/// What comes to the gateway's forwarder.
pub(crate) fn questions() {
    let plain = message(1, [1, 0, 0, 0], "www.example.net", 1);
    let extended =
        [&message(1, [1, 0, 0, 1], "www.example.net", 28)[..], b"\0\0\x29\x04\xd0\0\0\0\0\0\0"];
    let answer = message(0x81, [1, 0, 0, 0], "WWW.example.net", 1);
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    for (name, bytes) in [
        ("plain", plain.clone()),
        ("extended", extended.concat()),
        ("with_answer", [&plain[..], &answer].concat()),
        ("answer", answer),
        ("update", message(0x28, [1, 0, 0, 0], "a", 6)),
        ("two", message(1, [2, 0, 0, 0], "a", 1)),
        ("root", message(1, [1, 0, 0, 0], "", 2)),
        ("longest", message(1, [1, 0, 0, 0], &long, 1)),
        ("compressed", [&message(1, [1, 0, 0, 0], "", 1)[..12], &[0xc0, 12, 0, 1, 0, 1]].concat()),
        ("cut", plain[..20].to_vec()),
        ("resolv_conf", b"nameserver 192.0.2.1\nnameserver ::1\nnameserver fe80::1%2\n".to_vec()),
    ] {
        write("dns_message", name, &bytes);
    }
}

/// What comes to the client; the layout is that of `bodies/dns_answer.rs`.
pub(crate) fn answers() {
    const V4: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";
    const V6: &[u8] =
        b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10 \x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07";
    const ALIAS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01a\xc0\x10";
    const LOOP: &[u8] = b"\xc0\x21\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";
    for (name, kind, records) in [
        ("v4", 1, V4.to_vec()),
        ("v6", 5, V6.to_vec()),
        ("v4_to_v6", 5, V4.to_vec()),
        ("two", 1, [V4, V4].concat()),
        ("alias", 1, [ALIAS, V4].concat()),
        ("pointer_to_itself", 1, LOOP.to_vec()),
        ("cut", 1, V4[..14].to_vec()),
        ("none", 1, Vec::new()),
    ] {
        let count =
            if records.is_empty() { 0 } else { 1 + u8::from(records.len() > 20 && kind == 1) };
        write("dns_answer", name, &[&[kind, count, 0, 0][..], &records].concat());
    }
    let whole = [&message(0x81, [1, 1, 0, 0], "vpn.example.net", 1)[..], V4].concat();
    write("dns_answer", "whole", &[&[0], &whole[..]].concat());
    let hosts = "127.0.0.1 localhost\n192.0.2.9\tVPN.example.net vpn # mine\n::1 x\n";
    write("dns_answer", "hosts", &[&[3], hosts.as_bytes()].concat());
}

/// Visits of the web site in HTTP/1; the first byte: in which pieces bodies come.
pub(crate) fn visits() {
    let big = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9_000));
    for (name, text) in [
        ("page", "GET / HTTP/1.1\r\nHost: www.example.net\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"),
        ("two", "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b?c=d#e HTTP/1.0\r\n\r\n"),
        ("old", "GET /\r\n"),
        ("absolute", "GET http://www.example.net:80/x HTTP/1.1\r\nHost: y\r\n\r\n"),
        ("odd_lines", "\r\n\nPOST  /  HTTP/1.1 \nHost: [::1]:8443\nA_b: c\n\n"),
        ("up", "GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("coded", "GET /%2e%2e/%2fetc/%41//./b%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "body",
            "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
        ),
        (
            "chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n0\r\nT: u\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        ),
        (
            "both_lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no_host", "GET / HTTP/1.1\r\n\r\n"),
        ("two_hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("tls", "\u{16}\u{3}\u{1}\u{2}"),
        ("connect", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("long", &big),
        (
            "range",
            "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-\r\nIf-None-Match: \"x\"\r\nConnection: close\r\n\r\n",
        ),
    ] {
        for piece in [0, 3] {
            write("http1", &format!("{name}_{piece}"), &[&[piece], text.as_bytes()].concat());
        }
    }
}

/// The same in HTTP/2; the layout is that of `bodies/http2.rs`.
pub(crate) fn frames() {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let [_, a, b, c] = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, stream][..], payload].concat()
    };
    let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 4, 0, 1, 0, 0]);
    // GET https://a/index.html by indices, a name, and letters in Huffman's code
    let fields = b"\x82\x87\x85\x41\x01a\x40\x01x\x01y\x7a\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f";
    let get = |stream| frame(1, 5, stream, fields);
    let padded = [&[3][..], fields, &[0; 3]].concat();
    let [first, second] = [&fields[..4], &fields[4..]];
    let up = b"\x82\x87\x04\x06/../..\x41\x01a";
    for (name, frames) in [
        ("page", [&settings[..], &get(1), &frame(4, 1, 0, &[])].concat()),
        ("two", [&settings[..], &get(1), &get(3)].concat()),
        ("continued", [frame(1, 1, 1, first), frame(9, 4, 1, second)].concat()),
        ("padded", frame(1, 0x0d, 1, &padded)),
        ("priority", frame(1, 0x25, 1, &[&[0, 0, 0, 0, 16][..], fields].concat())),
        ("body", [frame(1, 4, 1, fields), frame(0, 1, 1, b"data")].concat()),
        ("up", frame(1, 5, 1, up)),
        ("ping", [frame(6, 0, 0, b"12345678"), frame(8, 0, 0, &[0, 0, 1, 0])].concat()),
        ("goaway", frame(7, 0, 0, &[0; 8])),
        ("reset", [get(1), frame(3, 0, 1, &[0, 0, 0, 8])].concat()),
        ("unknown", [frame(0x49, 0, 0, &[0; 21]), get(1)].concat()),
        ("table", frame(1, 5, 1, &[0x3f, 0xe1, 0x1f, 0x82, 0xbe, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("too_long", vec![0xff, 0xff, 0xff, 1, 5, 0, 0, 0, 1]),
        ("pushed", frame(5, 4, 1, &[0; 4])),
    ] {
        for piece in [0, 5] {
            write("http2", &format!("{name}_{piece}"), &[&[piece], &frames[..]].concat());
        }
    }
    write("http2", "preface_wrong", b"\x80PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
}

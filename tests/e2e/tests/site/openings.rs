//! What visitors send: requests of every kind, right and wrong, and random bytes.

use crate::visitor::{Opening, Speech};

/// A request in HTTP/1 with these fields.
pub(crate) fn request(line: &str, fields: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: www.example.net\r\n{fields}\r\n").into_bytes()
}

/// Bytes behind a preface of HTTP/2 and empty settings.
pub(crate) fn http2(frames: &[Vec<u8>]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frames.concat()].concat()
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is not compressed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap_or(126);
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// A request in HTTP/2: GET, https, these fields.
pub(crate) fn headers(stream: u32, flags: u8, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x87];
    block.extend(field(":path", path));
    block.extend(field(":authority", "www.example.net"));
    block.extend(fields.iter().flat_map(|(name, value)| field(name, value)));
    frame(1, flags, stream, &block)
}

/// The same by any method.
fn by_method(method: &str, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = [field(":method", method), vec![0x87, 0x84]].concat();
    block.extend(field(":authority", "www.example.net"));
    block.extend(fields.iter().flat_map(|(name, value)| field(name, value)));
    frame(1, flags, 1, &block)
}

const CHROME: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/120.0.0.0 Safari/537.36\r\n";

/// HTTP/1, by name.
pub(crate) fn in_http1() -> Vec<(String, Vec<u8>)> {
    let get = |fields: &str| request("GET /", fields);
    let long = |count: usize| "a".repeat(count);
    let many = |count: usize| get(&format!("X: {}\r\n", long(4_000)).repeat(count));
    let post =
        |fields: &str, body: &str| [request("POST /", fields), body.as_bytes().to_vec()].concat();
    let mut cases = Vec::new();
    for (line, fields) in [
        ("GET /", ""),
        ("GET /", "Connection: close\r\n"),
        ("HEAD /", ""),
        ("GET /nothing", ""),
        ("GET /nothing", CHROME),
        ("GET /nothing", "Accept-Encoding: gzip, deflate\r\n"),
        ("GET /", "Accept-Encoding: gzip\r\n"),
        ("GET /blog/", "Accept-Encoding: gzip\r\n"),
        ("HEAD /", "Accept-Encoding: gzip\r\n"),
        ("GET /", "Accept-Encoding: gzip;q=0\r\n"),
        ("GET /style.css", "Accept-Encoding: gzip\r\n"),
        ("GET /large.bin", ""),
        ("GET /empty.txt", ""),
        ("GET /bread.svg", ""),
        ("GET /sub", ""),
        ("GET /sub?a=b", ""),
        ("GET /sub/", ""),
        ("GET /sub/a.txt/", ""),
        ("GET /empty/", ""),
        ("PUT /empty/", ""),
        ("GET //sub/../sub/./a%2etxt?x#y", ""),
        ("GET /..", ""),
        ("GET /%00", ""),
        ("GET /%zz", ""),
        ("GET /\u{e9}", ""),
        ("OPTIONS /", ""),
        ("OPTIONS *", ""),
        ("TRACE /", ""),
        ("CONNECT www.example.org:443", ""),
        ("CONNECT /", ""),
        ("DELETE /nothing", ""),
        ("FOO /", ""),
        ("get /", ""),
        ("GET http://b.example/sub", ""),
        ("GET /", "Range: bytes=0-9\r\n"),
        ("GET /", "Range: bytes=-9\r\n"),
        ("GET /", "Range: bytes=0-1,5-9\r\n"),
        ("GET /", "Range: bytes=9999-\r\n"),
        ("GET /", "Range: bytes=x\r\n"),
        ("GET /large.bin", "Range: bytes=50000-\r\n"),
        ("GET /", "If-None-Match: *\r\n"),
        ("GET /", "If-None-Match: \"x\"\r\n"),
        ("GET /", "If-Match: \"x\"\r\n"),
        ("GET /", "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\n"),
        ("GET /", "If-Modified-Since: yesterday\r\n"),
        ("GET /", "If-Unmodified-Since: yesterday\r\n"),
        ("GET /", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        ("GET /", "Expect: 100-continue\r\nContent-Length: 5\r\n"),
        ("GET /", "Host: twice\r\n"),
        ("GET /", "Bad Field: x\r\n"),
        ("GET /", "No-Colon\r\n"),
        ("GET /", "under_score: x\r\n"),
        ("GET /", ": x\r\n"),
        ("GET /", "X: \0\r\n"),
        ("GET /", "Content-Length: x\r\n"),
        ("GET /", "Content-Length: 1\r\nContent-Length: 1\r\n"),
        ("GET /", "Transfer-Encoding: gzip\r\n"),
        ("GET /", "Transfer-Encoding: chunked\r\n"),
        ("GET /", "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
        ("GET /", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ] {
        cases.push((format!("{line} {fields:.40}"), request(line, fields)));
    }
    for (name, bytes) in [
        ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("HTTP/1.0 kept", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec()),
        ("HTTP/0.9", b"GET /\r\n".to_vec()),
        ("HTTP/0.9 POST", b"POST /\r\n".to_vec()),
        ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_vec()),
        ("HTTP/1.7", b"GET / HTTP/1.7\r\nHost: a\r\n\r\n".to_vec()),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("bad host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec()),
        ("line feeds", b"\n\nGET / HTTP/1.1\nHost: a\n\n".to_vec()),
        ("three at once", [get(""), request("GET /nothing", ""), get("")].concat()),
        ("POST", post("Content-Length: 5\r\n", "hello")),
        ("POST, body to come", post("Content-Length: 50\r\n", "hello")),
        ("POST, too large", post("Content-Length: 5000000\r\n", "hello")),
        (
            "POST in chunks, then GET",
            [post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), get("")].concat(),
        ),
        ("no chunks", post("Transfer-Encoding: chunked\r\n", "zz\r\n")),
        ("long line", request(&format!("GET /{}", long(9_000)), "")),
        ("long line and more", request(&format!("GET /{}", long(17_000)), "")),
        ("long line and much more", request(&format!("GET /{}", long(30_000)), "")),
        ("line almost too long", request(&format!("GET /{}", long(8_100)), "")),
        ("many ranges", get(&format!("Range: bytes={}\r\n", "7-7,".repeat(40) + "8-9"))),
        ("very many ranges", {
            let list = "7-7,".repeat(1_500) + "8-9";
            request("GET /large.bin", &format!("Range: bytes={list}\r\n"))
        }),
        ("as many fields as may be", get(&"X:\r\n".repeat(999))),
        ("a field too many", get(&"X:\r\n".repeat(1_000))),
        ("a range behind many fields", {
            get(&("X:\r\n".repeat(900) + "Range: bytes=0-9\r\nConnection: close\r\n"))
        }),
        ("long field", get(&format!("X: {}\r\n", long(9_000)))),
        ("fields that fit", many(7)),
        ("too many fields", many(10)),
        ("half a request", b"GET / HT".to_vec()),
        ("an opener of another", b"IRVP /AXLbtzPwWBzDcKR29wUGECKYhvsq".to_vec()),
        ("the same and a line", b"IRVP /AXLbtzPwWBzDcKR29wUGECKYhvsq\r\n\r\n".to_vec()),
        (
            "the same and a message",
            b"IRVP /AXLbtzPwWBzDcKR29wUGECKYhvsqIRVP\0\0\x04\0\x83".to_vec(),
        ),
        ("binary", b"\x01\x02\x03\x04".to_vec()),
        ("HTTP/2 without ALPN", http2(&[])),
    ] {
        cases.push((name.to_owned(), bytes));
    }
    cases
}

/// HTTP/2, by name.
pub(crate) fn in_http2() -> Vec<(&'static str, Vec<u8>)> {
    let get = |fields: &[(&str, &str)]| headers(1, 5, "/", fields);
    let ask = |fields: &[(&str, &str)]| http2(&[get(fields)]);
    let block = |block: &[u8]| http2(&[frame(1, 5, 1, block)]);
    let one = |kind, flags, stream, payload: &[u8]| http2(&[frame(kind, flags, stream, payload)]);
    let priorities = |count| http2(&vec![frame(2, 0, 3, b"\0\0\0\0\x01"); count]);
    vec![
        ("nothing", Vec::new()),
        ("half a preface", b"PRI * HT".to_vec()),
        ("no preface", request("GET /", "")),
        ("half wrong preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
        ("settings alone", http2(&[])),
        ("GET", ask(&[])),
        ("GET nothing", http2(&[headers(1, 5, "/nothing", &[])])),
        ("GET large", http2(&[headers(1, 5, "/large.bin", &[])])),
        (
            "GET large, wide windows",
            http2(&[
                frame(4, 0, 0, b"\0\x04\0\x7f\xff\xff"),
                frame(8, 0, 0, b"\0\x7f\0\0"),
                headers(1, 5, "/large.bin", &[]),
            ]),
        ),
        ("GET, no window", http2(&[frame(4, 0, 0, b"\0\x04\0\0\0\0"), get(&[])])),
        (
            "GET, small window",
            http2(&[frame(4, 0, 0, b"\0\x04\0\0\0\x0a"), get(&[]), frame(8, 0, 1, b"\0\0\0\x0a")]),
        ),
        ("GET two", http2(&[get(&[]), headers(3, 5, "/nothing", &[])])),
        ("GET compressed", ask(&[("accept-encoding", "gzip")])),
        ("GET part", ask(&[("range", "bytes=0-9")])),
        ("GET wrong part", ask(&[("range", "bytes=9999-")])),
        ("GET known", ask(&[("if-none-match", "*")])),
        ("GET by a wrong date", ask(&[("if-modified-since", "yesterday")])),
        ("GET with cookies", ask(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")])),
        ("GET other", ask(&[("if-match", "\"x\"")])),
        ("GET moved", http2(&[headers(1, 5, "/sub", &[])])),
        ("GET forbidden", http2(&[headers(1, 5, "/empty/", &[])])),
        ("GET empty", http2(&[headers(1, 5, "/empty.txt", &[])])),
        ("GET above", http2(&[headers(1, 5, "/../..", &[])])),
        ("GET with length", ask(&[("content-length", "5")])),
        ("GET unfinished", http2(&[headers(1, 4, "/", &[])])),
        ("HEAD", http2(&[by_method("HEAD", 5, &[])])),
        ("POST", http2(&[by_method("POST", 4, &[]), frame(0, 1, 1, b"hello")])),
        ("POST too large", http2(&[by_method("POST", 4, &[("content-length", "5000000")])])),
        ("TRACE", http2(&[by_method("TRACE", 5, &[])])),
        ("odd method", http2(&[by_method("FOO", 5, &[])])),
        ("wrong method", http2(&[by_method("f o", 5, &[])])),
        ("upper case", ask(&[("Foo", "b")])),
        ("upper case without a value, and more", ask(&[("Foo", ""), ("x", "y")])),
        ("upper case with a long value, and more", {
            let long = "a".repeat(120);
            let fields = [&[("Foo", long.as_str())][..], &[("x", "y"); 300]].concat();
            ask(&fields)
        }),
        ("underscore", ask(&[("f_oo", "b")])),
        ("line in a value", ask(&[("foo", "b\nx")])),
        ("second host", ask(&[("host", "b")])),
        ("second path", ask(&[(":path", "/")])),
        ("unknown pseudo field", ask(&[(":foo", "b")])),
        ("nothing behind a wrong field", block(b"\x82\x00\x04:foo\x01a\x00\x00\x01a")),
        ("no path", block(b"\x82\x87")),
        ("no authority", block(b"\x82\x87\x84")),
        ("wrong index", block(b"\xff\xff\x01")),
        ("no index", block(b"\x80")),
        ("long integer", block(b"\xff\xff\xff\xff\xff\xff")),
        ("cut field", block(b"\x82\x87\x84\x41\x8a")),
        ("name without a value", block(b"\x82\x87\x84\x00\x01a")),
        ("wrong name without a value", block(b"\x82\x00\x81\x1c")),
        (
            "name and no more",
            http2(&[frame(1, 1, 1, b"\x82\x87\x84\x00\x01a"), frame(9, 4, 1, b"")]),
        ),
        (
            "wrong name and no value yet",
            one(1, 1, 1, b"\x82\x87\x84\x00\x84\xff\xff\xff\xff\x05val"),
        ),
        ("as many fields as may be", ask(&[("x", ""); 1_000])),
        ("a field too many", ask(&[("x", ""); 1_001])),
        ("as many cookies as one likes", ask(&[("cookie", ""); 1_001])),
        ("continued by nothing, often", {
            let nothing = frame(9, 0, 1, b"").repeat(50);
            let first = frame(1, 1, 1, b"\x82\x87\x84\x00\x04name");
            http2(&[first, nothing, frame(9, 4, 1, b"\x05value\x41\x01a")])
        }),
        ("wrong code", block(b"\x00\x81\x1c\x81\xff")),
        ("table too large", block(b"\x3f\xff\x7f\x82\x87\x84")),
        ("empty block", one(1, 5, 1, b"")),
        ("padding too long", one(1, 13, 1, b"\xff\x82")),
        ("even stream", http2(&[headers(2, 5, "/", &[])])),
        ("stream 0", http2(&[headers(0, 5, "/", &[])])),
        ("backwards", http2(&[headers(5, 5, "/", &[]), headers(3, 5, "/", &[])])),
        ("continued", http2(&[frame(1, 1, 1, b"\x82\x87"), frame(9, 4, 1, b"\x84\x41\x01a")])),
        ("continued by another", http2(&[frame(1, 1, 1, b"\x82"), frame(6, 0, 0, b"12345678")])),
        ("continuation alone", one(9, 4, 1, b"\x82")),
        ("data on stream 0", one(0, 0, 0, b"x")),
        ("data nobody waits for", one(0, 0, 1, b"x")),
        ("data, empty padding", one(0, 8, 1, b"")),
        ("ping", one(6, 0, 0, b"12345678")),
        ("short ping", one(6, 0, 0, b"1234567")),
        (
            "answer that waits, then an error",
            http2(&[frame(4, 0, 0, b"\0\x04\0\0\0\x0a"), get(&[]), frame(6, 0, 1, b"12345678")]),
        ),
        (
            "refusal that waits, then an error",
            http2(&[
                frame(4, 0, 0, b"\0\x04\0\0\0\x0a"),
                frame(1, 5, 1, b"\x82\x87"),
                frame(6, 0, 1, b"12345678"),
            ]),
        ),
        (
            "refusal that waits, then an error in its block",
            http2(&[frame(4, 0, 0, b"\0\x04\0\0\0\x0a"), frame(1, 5, 1, b"\x82\x87\x84\x84\x80")]),
        ),
        (
            "not found that waits, then an error",
            http2(&[
                frame(4, 0, 0, b"\0\x04\0\0\0\x0a"),
                headers(1, 5, "/nothing", &[]),
                frame(6, 0, 1, b"12345678"),
            ]),
        ),
        (
            "body that waits, then an error",
            http2(&[
                frame(4, 0, 0, b"\0\x04\0\0\0\x0a"),
                by_method("POST", 4, &[]),
                frame(6, 0, 1, b"12345678"),
            ]),
        ),
        ("ping on a stream", one(6, 0, 1, b"12345678")),
        ("reset on stream 0", one(3, 0, 0, b"\0\0\0\0")),
        ("reset of nothing", one(3, 0, 5, b"\0\0\0\0")),
        ("promise", one(5, 4, 1, b"\0\0\0\x02")),
        ("farewell", http2(&[frame(7, 0, 0, &[0; 8]), get(&[])])),
        ("short farewell", one(7, 0, 0, &[0; 7])),
        ("window of nothing", one(8, 0, 0, b"\0\0\0\0")),
        ("window too large", one(8, 0, 0, b"\x7f\xff\xff\xff")),
        ("odd settings", one(4, 0, 0, b"12345")),
        ("settings on a stream", one(4, 0, 1, b"")),
        ("settings, window too large", one(4, 0, 0, b"\0\x04\xff\xff\xff\xff")),
        ("settings, frames too small", one(4, 0, 0, b"\0\x05\0\0\0\x01")),
        ("settings, table", http2(&[frame(4, 0, 0, b"\0\x01\0\0\0\0"), get(&[])])),
        ("priority", priorities(1)),
        ("too many priorities", priorities(300)),
        ("priority on itself", one(2, 0, 3, b"\0\0\0\x03\x01")),
        ("unknown frames", http2(&[frame(0x49, 0, 0, &[7; 21]), get(&[])])),
        (
            "an opener of another",
            one(0x49, 0, 0, b"\x01\x72\xdb\xb7\x33\xf0\x58\x1c\xc3\x70\xa4\x76"),
        ),
        ("a huge frame", [http2(&[]), b"\xff\xff\xff\0\0\0\0\0\x01x".to_vec()].concat()),
    ]
}

/// Not TLS, or hardly.
pub(crate) fn in_plain() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("GET", request("GET /", "")),
        ("GET by Chrome", request("GET /", CHROME)),
        ("GET compressed", request("GET /", "Accept-Encoding: gzip\r\n")),
        ("HTTP/0.9", b"GET /\r\n".to_vec()),
        ("POST", [request("POST /", "Content-Length: 5\r\n"), b"hello".to_vec()].concat()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()),
        ("zeros", vec![0; 10]),
        ("HTTP/2", http2(&[])),
        ("RTSP", b"OPTIONS / RTSP/1.0\r\n\r\n".to_vec()),
        ("half", b"GET / HT".to_vec()),
        ("a line feed", b"\n".to_vec()),
        ("TLS alert", b"\x15\x03\x03\0\x02\x02\x28".to_vec()),
        ("no version of TLS", b"\x16\x05\x01\0\x05hello".to_vec()),
        ("no hello", b"\x16\x03\x01\0\x05hello".to_vec()),
        ("no hello, twice", b"\x16\x03\x01\0\x05hello".repeat(2)),
        ("an empty record", b"\x16\x03\x01\0\0".to_vec()),
        ("an empty record, then HTTP", b"\x16\x03\x01\0\0GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("as many empty records as may be", b"\x16\x03\x01\0\0".repeat(32)),
        ("many empty records", b"\x16\x03\x01\0\0".repeat(33)),
        ("very many empty records", b"\x16\x03\x01\0\0".repeat(206)),
        ("an empty record, then a long one", {
            [&b"\x16\x03\x01\0\0\x16\x03\x01\x30\0"[..], &[0x16; 90]].concat()
        }),
        ("half a message's header, no record", b"\x16\x03\x01\0\x02hello".to_vec()),
        ("a long record", [b"\x16\x03\x03\x40\x01".to_vec(), vec![b'a'; 1_000]].concat()),
        ("a short SSL 2", b"\x80\x02\x01\x03\x01".to_vec()),
        ("high bytes", vec![0xff; 30]),
        ("one high byte", vec![0x80]),
    ]
}

/// Anything, decided by `seed` alone: bytes without sense, and requests that were spoilt.
pub(crate) fn random(seed: u64) -> Opening {
    let mut random = fastrand::Rng::with_seed(seed);
    let speech = [Speech::Plain, Speech::Http1, Speech::Http2][random.usize(..3)];
    let bytes = if random.u8(..3) == 0 {
        let most = if random.bool() { 40 } else { 2_000 };
        let length = random.usize(1..=most);
        std::iter::repeat_with(|| random.u8(..)).take(length).collect()
    } else {
        let known = match speech {
            Speech::Plain => pick(&mut random, in_plain()),
            Speech::Http1 => pick(&mut random, in_http1()),
            Speech::Http2 => pick(&mut random, in_http2()),
        };
        spoil(&mut random, known)
    };
    let cut = random.usize(..=bytes.len());
    let pieces = match random.u8(..4) {
        0 if cut > 0 && cut < bytes.len() => vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()],
        _ => vec![bytes],
    };
    Opening { speech, pieces }
}

fn pick<T>(random: &mut fastrand::Rng, mut cases: Vec<(T, Vec<u8>)>) -> Vec<u8> {
    let at = random.usize(..cases.len());
    cases.swap_remove(at).1
}

/// Changes a few bytes, cuts, or doubles.
fn spoil(random: &mut fastrand::Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.is_empty() {
        return vec![random.u8(..)];
    }
    match random.u8(..5) {
        0 => {}
        1 => bytes.truncate(random.usize(1..=bytes.len())),
        2 => bytes.extend_from_within(..),
        _ => {
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
        }
    }
    bytes
}

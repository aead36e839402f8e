//! The first bytes of a connection: TLS, plain HTTP, or what OpenSSL would refuse at sight.

use std::io;

use cipherwall_transport::Carrier;
use tokio::{io::Interest, net::TcpStream};

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// Perhaps a TLS handshake.
    Tls,
    /// Something else; nginx takes it for plain HTTP.
    Plain,
    /// No handshake.
    Refused(Refusal),
}

/// How a connection without a handshake ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is said, if anything.
    alert: Option<[u8; 7]>,
    /// How many bytes OpenSSL would have read, at most.
    read: usize,
}

/// How much has to come to know more.
#[derive(Debug, PartialEq, Eq)]
struct More {
    /// So many bytes.
    needed: usize,
    /// Where the record ends, if its header is there: OpenSSL reads no further.
    end: Option<usize>,
}

/// What OpenSSL reads at a time, in bytes.
const READ_MAX: usize = 16_704;
/// A record's header, the kind of one that carries a handshake, the header of a message in it, and the
/// kind of the first message.
const HEADER: usize = 5;
const HANDSHAKE: u8 = 0x16;
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
/// The longest record that OpenSSL waits for, in bytes.
const RECORD_MAX: usize = 16_704;
/// The same with SSL 2, as lengths that are too short, and too long.
const SSL2_HEADER: usize = 2;
const SSL2_MIN: usize = 9;
const SSL2_MAX: usize = RECORD_MAX + HEADER - SSL2_HEADER + 1;
const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
/// So many empty records in a row are passed over (`MAX_EMPTY_RECORDS`).
const EMPTY_MAX: usize = 32;

/// What OpenSSL says before it closes.
fn alert(description: u8) -> First {
    refused(Some([0x15, 3, 3, 0, 2, 2, description]))
}

fn refused(alert: Option<[u8; 7]>) -> First {
    First::Refused(Refusal { alert, read: READ_MAX })
}

/// Looks at the first bytes, and leaves them where they are, but for empty records in front of a TLS
/// handshake: OpenSSL passes them over, and the TLS library would not.
///
/// # Errors
/// The connection has failed or ended.
pub async fn first_bytes(carrier: &Carrier) -> io::Result<First> {
    // nobody comes here who does not hold a door key
    let Carrier::Tcp(tcp) = carrier else { return Ok(First::Tls) };
    let mut more = More { needed: 1, end: None };
    loop {
        let seen = peek(tcp, more.needed).await?;
        let first = match judge(&seen.bytes, seen.count) {
            Err(next) if next.needed > seen.count => {
                more = next;
                continue;
            }
            // what is there is not enough, and yet all that is asked for: no use in asking again
            Err(_) => First::Tls,
            Ok(first) => first,
        };
        return Ok(match (first, more.end) {
            (First::Refused(refusal), Some(read)) => First::Refused(Refusal { read, ..refusal }),
            (First::Tls, _) => {
                carrier.try_read(&mut vec![0; empty_in_front(&seen.bytes)])?;
                First::Tls
            }
            (first, _) => first,
        });
    }
}

/// How many bytes of empty records there are at the beginning.
fn empty_in_front(seen: &[u8]) -> usize {
    let is_empty = |record: &&[u8]| matches!(record, [HANDSHAKE, 3, _, 0, 0]);
    seen.chunks_exact(HEADER).take_while(is_empty).count() * HEADER
}

/// Says what OpenSSL says, and takes what it would have read, before the connection is closed.
pub fn refuse(carrier: &Carrier, refusal: Refusal) {
    let _ = carrier.try_read(&mut vec![0; refusal.read]);
    // so few bytes always fit
    let _ = refusal.alert.map(|alert| carrier.try_write(&alert));
}

/// What these bytes begin, of which there are `count`.
fn judge(seen: &[u8], count: usize) -> Result<First, More> {
    let mut begun = Begun::default();
    loop {
        let passed = begun.passed;
        let rest = seen.get(passed..).unwrap_or_default();
        let header_of = |length| More { needed: passed + length, end: None };
        let Some(&first) = rest.first() else { return Err(header_of(1)) };
        // only the first record may be something else than TLS
        let is_first = passed == 0;
        if is_first && first != HANDSHAKE && first & 0x80 == 0 {
            return Ok(First::Plain);
        }
        let Some(header) = rest.first_chunk::<HEADER>() else { return Err(header_of(HEADER)) };
        if is_first && first & 0x80 != 0 && header[2] == 1 {
            return judge_ssl2(u16::from_be_bytes([first & 0x7f, header[1]]).into(), count);
        }
        if header[1] != 3 {
            return Ok(if is_first { refused(None) } else { alert(PROTOCOL_VERSION) });
        }
        if let Some(first) = begun.judge_record(header, rest.get(HEADER).copied(), count)? {
            return Ok(first);
        }
    }
}

/// A handshake of which not even the first message's header is there.
#[derive(Default)]
struct Begun {
    /// The records before, in bytes.
    passed: usize,
    /// How many of them were empty, in a row up to the last one.
    empty: usize,
    /// Of which kind the message is, and so many bytes of it are there.
    message: Option<(u8, usize)>,
}

impl Begun {
    /// The next record, with this header, whose content begins with `byte`, of `count` bytes that have
    /// come in all. `None`: it says no more than those before.
    fn judge_record(
        &mut self,
        header: &[u8; HEADER],
        byte: Option<u8>,
        count: usize,
    ) -> Result<Option<First>, More> {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > RECORD_MAX {
            return Ok(Some(alert(RECORD_OVERFLOW)));
        }
        let end = self.passed + HEADER + length;
        let more = |needed| Err(More { needed, end: Some(end) });
        if header[0] != HANDSHAKE {
            // of the record's own version
            let alert = [0x15, 3, header[2], 0, 2, 2, UNEXPECTED_MESSAGE];
            return if count < end { more(end) } else { Ok(Some(refused(Some(alert)))) };
        }
        if length == 0 {
            (self.passed, self.empty) = (end, self.empty + 1);
            return Ok((self.empty > EMPTY_MAX).then(|| alert(UNEXPECTED_MESSAGE)));
        }
        let Some(byte) = byte else { return more(self.passed + HEADER + 1) };
        let (kind, there) = self.message.unwrap_or((byte, 0));
        let is_told = there + length >= MESSAGE_HEADER;
        match kind {
            CLIENT_HELLO if is_told => Ok(Some(First::Tls)),
            // the TLS library waits for all of it, too
            _ if end > PEEK_MAX => Ok(Some(First::Tls)),
            _ if count < end => more(end),
            _ if is_told => Ok(Some(alert(UNEXPECTED_MESSAGE))),
            _ => {
                *self = Begun { passed: end, empty: 0, message: Some((kind, there + length)) };
                Ok(None)
            }
        }
    }
}

/// A hello of SSL 2 of this length, of which `count` bytes have come.
fn judge_ssl2(length: usize, count: usize) -> Result<First, More> {
    let end = SSL2_HEADER + length;
    match length {
        ..SSL2_MIN => Ok(alert(DECODE_ERROR)),
        SSL2_MAX.. => Ok(alert(RECORD_OVERFLOW)),
        _ if count < end => Err(More { needed: end, end: Some(end) }),
        _ => Ok(alert(DECODE_ERROR)),
    }
}

/// How much is looked at, at most, in bytes.
const PEEK_MAX: usize = 1_024;

/// What has come.
struct Seen {
    /// The first [`PEEK_MAX`] of them.
    bytes: Vec<u8>,
    count: usize,
}

/// How many bytes have come.
fn there(tcp: &TcpStream) -> io::Result<usize> {
    Ok(usize::try_from(rustix::io::ioctl_fionread(tcp)?).unwrap_or(usize::MAX))
}

/// Waits until so many bytes are there, and looks at them.
async fn peek(tcp: &TcpStream, needed: usize) -> io::Result<Seen> {
    let mut space = [0; PEEK_MAX];
    loop {
        let is_over = tcp.ready(Interest::READABLE).await?.is_read_closed();
        let looked = tcp.try_io(Interest::READABLE, || {
            let flags = rustix::net::RecvFlags::PEEK;
            let (count, _) = rustix::net::recv(tcp, &mut space, flags)?;
            let all = if count < PEEK_MAX { count } else { there(tcp)? };
            // too few: wait for the next ones to come
            if all < needed { Err(io::ErrorKind::WouldBlock.into()) } else { Ok((count, all)) }
        });
        match looked {
            Ok((count, all)) => return Ok(Seen { bytes: space[..count].to_vec(), count: all }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_over => {}
            // the end of a connection is ready for ever
            Err(_) if is_over => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_are_judged_as_by_openssl() {
        let header = |needed| Err(More { needed, end: None });
        let rest = |needed, end| Err(More { needed, end: Some(end) });
        for (bytes, expected) in [
            (&b"GET /"[..], Ok(First::Plain)),
            (b"\x00", Ok(First::Plain)),
            (b"\x15\x03\x03", Ok(First::Plain)),
            (b"\x16", header(5)),
            (b"\x80", header(5)),
            (b"\x16\x03\x01\x02\x00", rest(6, 517)),
            (b"\x16\x03\x01\x02\x00\x01", Ok(First::Tls)),
            (b"\x16\x05\x01\x02\x00", Ok(refused(None))),
            (b"\xff\xff\xff\xff\xff", Ok(refused(None))),
            (b"\x16\x03\x03\x50\x01", Ok(alert(RECORD_OVERFLOW))),
            (b"\x90\x03\x0d\x00\x02a", rest(7, 7)),
            (b"\x90\x03\x0d\x00\x02ab", Ok(refused(Some(*b"\x15\x03\x0d\0\x02\x02\x0a")))),
            (b"\x16\x03\x01\x00\x00", header(6)),
            (b"\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00", header(11)),
            (b"\x16\x03\x01\x00\x05hello", Ok(alert(UNEXPECTED_MESSAGE))),
            (b"\x16\x03\x01\x00\x03hel", header(9)),
            (b"\x16\x03\x01\x00\x03hello...", Ok(alert(PROTOCOL_VERSION))),
            (b"\x16\x03\x01\x00\x03hel\x16\x03\x01\x00\x01l", Ok(alert(UNEXPECTED_MESSAGE))),
            (b"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x03abc", Ok(First::Tls)),
            (b"\x80\x02\x01\x03\x01", Ok(alert(DECODE_ERROR))),
            (b"\x80\x2e\x01\x03\x01", rest(48, 48)),
            (b"\x80\x09\x01\x03\x01\0\0\0\0\0\0", Ok(alert(DECODE_ERROR))),
            (b"\xc1\x43\x01\x03\x01", rest(16_709, 16_709)),
            (b"\xc1\x44\x01\x03\x01", Ok(alert(RECORD_OVERFLOW))),
        ] {
            assert_eq!(judge(bytes, bytes.len()), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn empty_records_are_passed_over_up_to_openssl_s_bound() {
        let behind = |count: usize, bytes: &[u8]| {
            let bytes = [b"\x16\x03\x01\0\0".repeat(count).as_slice(), bytes].concat();
            judge(&bytes, bytes.len())
        };
        assert_eq!(behind(32, b""), Err(More { needed: 161, end: None }));
        assert_eq!(behind(32, b"\x16\x03\x01\x02\0\x01"), Ok(First::Tls));
        assert_eq!(behind(33, b""), Ok(alert(UNEXPECTED_MESSAGE)));
        assert_eq!(behind(5_000, b""), Ok(alert(UNEXPECTED_MESSAGE)));
        assert_eq!(behind(1, b"GET"), Err(More { needed: 10, end: None }));
        for later in [&b"GET /"[..], b"\x80\x2e\x01\x03\x01", b"\x16\x05\x01\0\0"] {
            assert_eq!(behind(1, later), Ok(alert(PROTOCOL_VERSION)), "{later:x?}");
        }
        assert_eq!(behind(1, b"\x17\x03\x03\0\0"), Ok(alert(UNEXPECTED_MESSAGE)));
    }

    #[test]
    fn no_bytes_keep_a_thread_for_good() {
        use std::{io::Write, net::TcpListener, sync::mpsc, thread, time::Duration};
        for sent in [b"\x16\x03\x01\0\0".repeat(206), vec![0x80; 3_000], vec![0x16; 3_000]] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let mut visitor = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            visitor.write_all(&sent).unwrap();
            let (tcp, _) = listener.accept().unwrap();
            tcp.set_nonblocking(true).unwrap();
            let (tell, told) = mpsc::channel();
            // not joined: it would never end
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let looked = runtime.unwrap().block_on(async {
                    first_bytes(&Carrier::from(TcpStream::from_std(tcp).unwrap())).await
                });
                let _ = tell.send(looked.is_ok());
            });
            assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(true), "{:x?}", &sent[..5]);
        }
    }

    #[tokio::test]
    async fn empty_records_in_front_of_a_handshake_do_not_reach_the_tls_library() {
        use tokio::{io::AsyncWriteExt, net::TcpListener};
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut visitor = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let carrier = Carrier::from(listener.accept().await.unwrap().0);
        let hello = b"\x16\x03\x01\x02\0\x01";
        visitor.write_all(&[&b"\x16\x03\x01\0\0".repeat(3), &hello[..]].concat()).await.unwrap();
        assert_eq!(first_bytes(&carrier).await.unwrap(), First::Tls);
        let mut left = [0; 20];
        let count = carrier.try_read(&mut left).unwrap();
        assert_eq!(&left[..count], hello);
    }

    #[tokio::test]
    async fn half_a_header_and_an_end_are_the_end() {
        use tokio::{io::AsyncWriteExt, net::TcpListener};
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        for (sent, expected) in [(&b"\x16\x03"[..], None), (b"GET", Some(First::Plain))] {
            let mut visitor = TcpStream::connect(address).await.unwrap();
            let carrier = Carrier::from(listener.accept().await.unwrap().0);
            visitor.write_all(sent).await.unwrap();
            visitor.shutdown().await.unwrap();
            let time = std::time::Duration::from_secs(5);
            let first = tokio::time::timeout(time, first_bytes(&carrier)).await.unwrap();
            assert_eq!(first.ok(), expected);
        }
    }
}

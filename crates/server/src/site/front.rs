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
    /// No handshake. It ends with this alert, if with any.
    Refused(Option<[u8; 7]>),
}

/// What OpenSSL reads at a time, in bytes.
const READ_MAX: usize = 16_704;
/// A record's header.
const HEADER: usize = 5;
/// The longest record that OpenSSL waits for, in bytes.
const RECORD_MAX: usize = 16_704;
const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;
const DECODE_ERROR: u8 = 50;

/// What OpenSSL says before it closes.
fn alert(description: u8) -> First {
    First::Refused(Some([0x15, 3, 3, 0, 2, 2, description]))
}

/// Looks at the first bytes, and leaves them where they are.
///
/// # Errors
/// The connection has failed or ended.
pub async fn first_bytes(carrier: &Carrier) -> io::Result<First> {
    match carrier {
        Carrier::Tcp(tcp) => {
            let mut needed = 1;
            loop {
                let seen = peek(tcp, needed).await?;
                match judge(&seen) {
                    Ok(first) => return Ok(first),
                    Err(more) => needed = more,
                }
            }
        }
        // nobody comes here who does not hold a door key
        Carrier::Kcp(_) => Ok(First::Tls),
    }
}

/// Says what OpenSSL says, and takes what it would have read, before the connection is closed.
pub fn refuse(carrier: &Carrier, alert: Option<[u8; 7]>) {
    let _ = carrier.try_read(&mut [0; READ_MAX]);
    // so few bytes always fit
    let _ = alert.map(|alert| carrier.try_write(&alert));
}

/// What these bytes begin, or how many of them it takes to know.
fn judge(mut seen: &[u8]) -> Result<First, usize> {
    let mut passed = 0;
    // an empty record says nothing
    while let [0x16, 3, _, 0, 0, rest @ ..] = seen {
        seen = rest;
        passed += HEADER;
    }
    let Some(&first) = seen.first() else { return Err(passed + 1) };
    if first != 0x16 && first & 0x80 == 0 {
        return Ok(if passed > 0 { alert(UNEXPECTED_MESSAGE) } else { First::Plain });
    }
    let Some(header) = seen.first_chunk::<HEADER>() else { return Err(passed + HEADER) };
    if first & 0x80 != 0 && header[2] == 1 {
        // a hello of SSL 2
        return Ok(alert(DECODE_ERROR));
    }
    if header[1] != 3 {
        return Ok(First::Refused(None));
    }
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > RECORD_MAX {
        return Ok(alert(RECORD_OVERFLOW));
    }
    if first != 0x16 {
        return Ok(alert(UNEXPECTED_MESSAGE));
    }
    let needed = passed + HEADER + length;
    match seen.get(HEADER) {
        None => Err(passed + HEADER + 1),
        Some(1) => Ok(First::Tls),
        // the TLS library waits for all of it, too
        Some(_) if needed > PEEK_MAX => Ok(First::Tls),
        Some(_) if seen.len() < HEADER + length => Err(needed),
        Some(_) => Ok(alert(UNEXPECTED_MESSAGE)),
    }
}

/// How much is looked at, at most, in bytes.
const PEEK_MAX: usize = 1_024;

/// Waits until so many bytes are there, and looks at them.
async fn peek(tcp: &TcpStream, needed: usize) -> io::Result<Vec<u8>> {
    let mut space = [0; PEEK_MAX];
    loop {
        let is_over = tcp.ready(Interest::READABLE).await?.is_read_closed();
        let looked = tcp.try_io(Interest::READABLE, || {
            let flags = rustix::net::RecvFlags::PEEK;
            let (count, _) = rustix::net::recv(tcp, &mut space, flags)?;
            // too few: wait for the next ones to come
            if count < needed { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        });
        match looked {
            Ok(count) => return Ok(space[..count].to_vec()),
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
        for (bytes, expected) in [
            (&b"GET /"[..], Ok(First::Plain)),
            (b"\x00", Ok(First::Plain)),
            (b"\x15\x03\x03", Ok(First::Plain)),
            (b"\x16", Err(5)),
            (b"\x80", Err(5)),
            (b"\x16\x03\x01\x02\x00", Err(6)),
            (b"\x16\x03\x01\x02\x00\x01", Ok(First::Tls)),
            (b"\x16\x05\x01\x02\x00", Ok(First::Refused(None))),
            (b"\xff\xff\xff\xff\xff", Ok(First::Refused(None))),
            (b"\x16\x03\x03\x50\x01", Ok(alert(RECORD_OVERFLOW))),
            (b"\x16\x03\x01\x00\x00", Err(6)),
            (b"\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00", Err(11)),
            (b"\x16\x03\x01\x00\x05hello", Ok(alert(UNEXPECTED_MESSAGE))),
            (b"\x80\x02\x01\x03\x01", Ok(alert(DECODE_ERROR))),
            (b"\x80\x2e\x01\x03\x01", Ok(alert(DECODE_ERROR))),
        ] {
            assert_eq!(judge(bytes), expected, "{bytes:x?}");
        }
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

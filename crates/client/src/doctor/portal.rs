//! Whether the network lets this host out, or answers in everybody's place until somebody logs in
//! (captive portals, RFC 8952).

use std::{net::SocketAddr, time::Duration};

use cipherwall_transport::{resolver::Resolver, socket::SocketFactory};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// The one name that is asked for outside besides the gateway's: Android devices and Chromium ask it
/// for the same, so that the question says nothing of this host.
pub(crate) const PROBE_NAME: &str = "connectivitycheck.gstatic.com";
const PORT: u16 = 80;
const TIME: Duration = Duration::from_secs(5);
/// The head of an answer is shorter, and the rest does not count.
const ANSWER_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// What the probe met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Portal {
    /// The internet itself has answered.
    None,
    /// Somebody else has, and wants a browser to go there if that is said.
    Found(Option<String>),
    /// Somebody has, with nothing that can be made sense of.
    Unknown(String),
    /// Nobody has answered.
    Silent(String),
}

/// Asks for a page that is always empty.
pub(crate) async fn probe(resolver: &Resolver, sockets: &SocketFactory) -> Portal {
    let addresses = match resolver.addresses(PROBE_NAME).await {
        Ok(addresses) => addresses,
        Err(error) => return Portal::Silent(format!("{PROBE_NAME}: {error}")),
    };
    let mut last = Portal::Silent(format!("{PROBE_NAME} did not answer"));
    // IPv4 first: portals are mostly about that
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv4());
    for address in v4.into_iter().take(2).chain(v6.into_iter().take(1)) {
        match timeout(TIME, ask(sockets, SocketAddr::new(address, PORT))).await {
            Ok(Ok(answer)) => return judge(&answer),
            Ok(Err(error)) => last = Portal::Silent(format!("{PROBE_NAME}, {address}: {error}")),
            Err(_) => {}
        }
    }
    last
}

/// The answer as far as it came.
async fn ask(sockets: &SocketFactory, address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = sockets.connect(address).await?;
    let request = format!(
        "GET /generate_204 HTTP/1.1\r\nHost: {PROBE_NAME}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_MAX && !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

/// Other codes than these are no portal's: a filter may forbid this page only.
fn judge(answer: &[u8]) -> Portal {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let _ = response.parse(answer);
    match response.code {
        Some(204) => Portal::None,
        Some(200 | 300..=399 | 511) => {
            let location = response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("location"))
                .and_then(|header| std::str::from_utf8(header.value).ok());
            Portal::Found(location.map(printable))
        }
        Some(code) => Portal::Unknown(format!("{PROBE_NAME} answered with code {code}")),
        None => Portal::Unknown(format!("{PROBE_NAME} gave no answer of a web server")),
    }
}

/// Somebody unknown has written it, and a terminal is to show it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_is_not_the_pages_own_is_a_portal() {
        assert_eq!(judge(b"HTTP/1.1 204 No Content\r\n\r\n"), Portal::None);
        let redirect = b"HTTP/1.0 302 Found\r\nlocation: http://login.hotel.example/\r\n\r\n";
        assert_eq!(judge(redirect), Portal::Found(Some("http://login.hotel.example/".into())));
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n\r\n<html>"), Portal::Found(None));
        for unclear in [&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], b"", b"SSH-2.0-x\r\n", b"HTTP/1.1"]
        {
            assert!(matches!(judge(unclear), Portal::Unknown(_)));
        }
        let nasty = b"HTTP/1.1 302 x\r\nLocation: http://a/\x1b[2J\r\n\r\n";
        assert!(!matches!(judge(nasty), Portal::Found(Some(text)) if text.contains('\x1b')));
    }
}

//! The web site that everybody sees who is no client (A19; docs/security.md, "What a stranger
//! sees"): whatever it is sent, it answers as the nginx 1.22 of Debian does.
//!
//! The web site reads a connection from its first byte. On the way to it the bytes pass a
//! [`Watch`]; once that sees a valid opener, the connection is taken away from the web site,
//! which never learns what came behind it. Whatever is no valid opener is a visit, with the same
//! answers and time-outs as any other.
//!
//! ```text
//!  front     the first bytes: TLS, plain HTTP, or what OpenSSL would refuse
//!  http1/    http2/    requests in, answers out; conn: the bytes, and how they end
//!  content   what there is: a page, a folder, or (proxy) another site
//!  answer, filter, body: answers as nginx forms them
//! ```

mod answer;
mod body;
mod conn;
mod content;
mod date;
mod filter;
mod front;
mod http1;
mod http2;
mod mime;
mod proxy;
mod request;
mod uri;

use std::{io, path::Path, sync::Arc, time::Duration};

use cipherwall_proto::knock::{Alpn, Watch};
use cipherwall_transport::{Carrier, tls::TlsStream};
use tokio::time::Instant;

use self::{
    conn::{Conn, Ending, Stop},
    content::Content,
    proxy::Proxy,
};
use crate::config;

pub use front::{First, first_bytes, refuse};
pub use proxy::ASKED_MAX;

/// How long a request's header may take, counted from the TCP connection on, as with nginx.
pub const HEADER_TIME: Duration = Duration::from_secs(60);
/// How long a connection is kept between two requests, as with nginx.
const KEEP_TIME: Duration = Duration::from_secs(75);
/// Requests of one connection, as with nginx.
const REQUESTS_MAX: u32 = 1_000;
/// How old a connection may become with requests.
const TIME_MAX: Duration = Duration::from_secs(3_600);
/// What is held of bodies for another site, for each connection, in bytes.
const BODY_KEPT_MAX: usize = 32 * 1024;

/// A connection that turned out to be a client's.
pub struct Knocked {
    /// The connection, taken away from the web site.
    pub stream: TlsStream,
    /// What came behind the opener in the same TLS record.
    pub rest: Vec<u8>,
}

/// The web site of a gateway.
#[derive(Clone)]
pub struct Site {
    content: Arc<Content>,
}

impl Site {
    /// As configured. The built-in page pretends to be as old as the file at `as_old_as`.
    ///
    /// # Errors
    /// The folder cannot be read, or the site to show cannot be reached safely.
    pub fn new(config: &config::Site, as_old_as: &Path) -> io::Result<Self> {
        let content = match config {
            config::Site::Welcome => Content::welcome(as_old_as),
            config::Site::Folder(path) => Content::folder(path)?,
            config::Site::Proxy(target) => Content::Proxy(Proxy::new(target)?),
        };
        Ok(Self { content: Arc::new(content) })
    }

    /// Serves a connection that was accepted at `since` until it ends (`None`) or knocks rightly.
    pub async fn serve(
        &self,
        stream: TlsStream,
        watch: Watch,
        alpn: Alpn,
        since: Instant,
    ) -> Option<Knocked> {
        let mut conn = Conn::tls(stream, watch);
        let ended = match alpn {
            Alpn::Http1 => http1::serve(&mut conn, &self.content, since).await,
            Alpn::Http2 => http2::serve(&mut conn, &self.content, since).await,
        };
        match conn.into_knocked() {
            Ok((stream, rest)) => Some(Knocked { stream, rest }),
            Err(conn) => {
                end(*conn, ended).await;
                None
            }
        }
    }

    /// Tells who speaks plain HTTP that TLS is spoken here.
    pub async fn serve_plain(&self, carrier: Carrier, since: Instant) {
        let mut conn = Conn::plain(carrier);
        let ended = http1::serve(&mut conn, &self.content, since).await;
        end(conn, ended).await;
    }
}

async fn end(conn: Conn, ended: Result<Ending, Stop>) {
    let ending = match ended {
        Ok(ending) => ending,
        Err(Stop::Closed) => Ending::Close,
        Err(Stop::Knocked | Stop::TimedOut | Stop::Failed) => Ending::Silent,
    };
    conn.end(ending).await;
}

//! The gateway's end. Whatever a client does or leaves undone, it holds a connection for a bounded
//! time, and 64 KiB at most beside the buffers of its sockets.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    CHUNK, MAX_SECONDS, STALL, ZEROS,
    places::{Guest, Places},
    request::{Answer, REQUEST_LEN, Request},
};

/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// The longest test: both transfers, and the round trips before them.
const TEST_TIME: Duration = Duration::from_secs(2 * MAX_SECONDS as u64 + 30);
/// What a transfer may take beyond the time that was asked for; the client ends it earlier.
const GRACE: Duration = Duration::from_secs(2);
/// How often a client hears how much of its upload has arrived.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Bytes that are sent back at once.
const ECHO_LEN: usize = 64;
/// Pause after a failing system call, which might fail for long (out of descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// The running service; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    /// Aborts its tasks when dropped, and they those of their connections.
    _listeners: JoinSet<()>,
}

/// Which client an address belongs to, where clients have several.
type Owner = dyn Fn(IpAddr) -> IpAddr + Send + Sync;

struct Shared {
    places: Arc<Places>,
    owner: Box<Owner>,
}

impl Server {
    /// Listens on each address. `owner` maps all addresses of a client to one of them, so that it
    /// has no more than one test. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// An address cannot be listened on; the message names it and says what to do.
    pub fn start(
        listen: &[SocketAddr],
        owner: impl Fn(IpAddr) -> IpAddr + Send + Sync + 'static,
    ) -> io::Result<Server> {
        let listeners = listen.iter().map(|address| bind(*address));
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        Ok(Server::serve(listeners, owner))
    }

    pub(crate) fn serve(
        listeners: Vec<TcpListener>,
        owner: impl Fn(IpAddr) -> IpAddr + Send + Sync + 'static,
    ) -> Server {
        let shared = Arc::new(Shared { places: Arc::default(), owner: Box::new(owner) });
        let serving = listeners.into_iter().map(|listener| accept(listener, Arc::clone(&shared)));
        Server { _listeners: serving.collect() }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("places", &self.places).finish_non_exhaustive()
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|error| {
        let remedy = if error.kind() == io::ErrorKind::AddrInUse {
            "; another program has this port: set `speedtest` in the configuration to another \
             one, or to off"
        } else {
            ""
        };
        let message = format!("cannot listen for speed tests on {address}: {error}{remedy}");
        io::Error::new(error.kind(), message)
    })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    // one too many is closed at once
                    let guest = shared.places.enter((shared.owner)(client.ip()));
                    let Some(guest) = guest else { continue };
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, &guest).await {
                            tracing::debug!(%error, "speed test");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "listener for speed tests");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, guest: &Guest) -> io::Result<()> {
    let mut request = [0; REQUEST_LEN];
    timeout(REQUEST_TIME, stream.read_exact(&mut request)).await??;
    stream.set_nodelay(true)?;
    match Request::parse(request) {
        None => answer(&mut stream, Answer::Refused).await,
        Some(Request::Echo) => match guest.begin_test() {
            Err(refusal) => answer(&mut stream, refusal).await,
            Ok(_test) => {
                go(&mut stream).await?;
                timeout(TEST_TIME, echo(stream)).await?
            }
        },
        Some(Request::Download(seconds)) => transfer(stream, guest, seconds, download).await,
        Some(Request::Upload(seconds)) => transfer(stream, guest, seconds, upload).await,
    }
}

async fn answer(stream: &mut TcpStream, answer: Answer) -> io::Result<()> {
    timeout(STALL, stream.write_all(&[answer as u8])).await?
}

async fn go(stream: &mut TcpStream) -> io::Result<()> {
    answer(stream, Answer::Go).await?;
    // what a client does not take is not kept for it when the connection ends
    stream.set_zero_linger()
}

/// Carries out a transfer until its time is over or the test that it belongs to.
async fn transfer<F: Future<Output = io::Result<()>>>(
    mut stream: TcpStream,
    guest: &Guest,
    seconds: u8,
    carry_out: impl FnOnce(TcpStream) -> F,
) -> io::Result<()> {
    let Some(end_of_test) = guest.end_of_test() else {
        return answer(&mut stream, Answer::Refused).await;
    };
    go(&mut stream).await?;
    let time = Duration::from_secs(seconds.into()) + GRACE;
    tokio::select! {
        done = timeout(time, carry_out(stream)) => done?,
        () = end_of_test => Ok(()),
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buf = [0; ECHO_LEN];
    loop {
        let read = timeout(STALL, stream.read(&mut buf)).await??;
        if read == 0 {
            return Ok(());
        }
        timeout(STALL, stream.write_all(&buf[..read])).await??;
    }
}

async fn download(mut stream: TcpStream) -> io::Result<()> {
    loop {
        timeout(STALL, stream.write(&ZEROS)).await??;
        give_way().await;
    }
}

/// The gateway's real work has its turn after each piece: a task that is always ready would keep the
/// runtime from looking at sockets and timers for megabytes.
async fn give_way() {
    tokio::task::yield_now().await;
}

/// Counts, and tells every now and then how much it is so far: 8 bytes, big-endian.
async fn upload(mut stream: TcpStream) -> io::Result<()> {
    let mut buf = vec![0; CHUNK];
    let (mut count, mut reported) = (0_u64, Instant::now());
    loop {
        let read = timeout(STALL, stream.read(&mut buf)).await??;
        if read == 0 {
            return Ok(());
        }
        count += read as u64;
        give_way().await;
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            timeout(STALL, stream.write_all(&count.to_be_bytes())).await??;
        }
    }
}

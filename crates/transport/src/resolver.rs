//! Names without the host's own resolver, for the client (A12, A23): the questions leave by marked
//! sockets, and so outside of the tunnel, whichever resolver the host has at the moment.
//!
//! All servers are asked, one shortly after the other, and the first that knows an address wins.
//! The answers are not to be trusted, and need not be: a gateway is recognised by its key.

mod ask;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod hosts;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::socket::SocketFactory;

/// How long a name may take.
const TIME: Duration = Duration::from_secs(5);
/// How long a server is waited for before the next one is asked beside it.
const STAGGER: Duration = Duration::from_millis(300);
/// How long others are waited for once there is something to go on with: addresses of one family
/// (RFC 8305, 3), or a server's word that there are none.
const OTHERS: Duration = Duration::from_millis(500);
const HOSTS_PATH: &str = "/etc/hosts";

/// Asks DNS servers for addresses, by sockets of one factory.
#[derive(Debug, Clone)]
pub struct Resolver {
    sockets: SocketFactory,
    servers: Vec<SocketAddr>,
    hosts_path: PathBuf,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Such a name cannot be.
    #[error("{0:?} is no host name")]
    NotAName(String),
    /// Nobody to ask.
    #[error("this computer knows no DNS server")]
    NoServers,
    /// A server said that there is none.
    #[error("the DNS server {server} knows no address of that name")]
    NotFound {
        /// The first one that said so.
        server: SocketAddr,
    },
    /// No server gave an answer that could be used.
    #[error("{}", list(.0))]
    Failed(Vec<(SocketAddr, ServerError)>),
}

/// What was wrong with one server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It said that there is no address of that name.
    #[error("knows no address of that name")]
    NotFound,
    /// It did not answer.
    #[error("did not answer within {} s", TIME.as_secs())]
    Silent,
    /// It answered that it cannot or does not want to answer.
    #[error("answered: {}", .0.to_str())]
    Refused(ResponseCode),
    /// It cannot be asked.
    #[error("cannot be asked: {0}")]
    Unreachable(#[from] io::Error),
}

/// All servers with what was wrong with each.
fn list(failures: &[(SocketAddr, ServerError)]) -> impl fmt::Display {
    let failures =
        failures.iter().map(|(server, error)| format!("the DNS server {server} {error}"));
    failures.collect::<Vec<_>>().join("; ")
}

impl Resolver {
    /// Asks `servers`, the first one first. Names of `/etc/hosts` are taken from there.
    #[must_use]
    pub fn new(sockets: SocketFactory, servers: Vec<SocketAddr>) -> Self {
        Self { sockets, servers, hosts_path: HOSTS_PATH.into() }
    }

    /// The addresses of `host`, which may be an address itself; at least one, IPv6 first. Takes at
    /// most five seconds.
    ///
    /// # Errors
    /// No server knows one, or none answers.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(known) = self.known(host) {
            return Ok(known);
        }
        self.ask(&name(host)?).await
    }

    /// What each server says by itself, whether or not others have answered: for those who look for
    /// what is wrong. Takes at most five seconds.
    ///
    /// # Errors
    /// It is no name, or there is no server.
    pub async fn opinions(&self, host: &str) -> Result<Vec<Opinion>, ResolveError> {
        let name = name(host)?;
        if self.servers.is_empty() {
            return Err(ResolveError::NoServers);
        }
        let mut asked = JoinSet::new();
        for (place, server) in self.servers.iter().copied().enumerate() {
            let alone = Self { servers: vec![server], ..self.clone() };
            let name = name.clone();
            asked.spawn(async move {
                let addresses = alone.ask(&name).await.map_err(ResolveError::of_one_server);
                (place, Opinion { server, addresses })
            });
        }
        let mut opinions = asked.join_all().await;
        opinions.sort_by_key(|(place, _)| *place);
        Ok(opinions.into_iter().map(|(_, opinion)| opinion).collect())
    }

    /// The addresses of `host` where nobody has to be asked: it is one, or `/etc/hosts` has it.
    #[must_use]
    pub fn known(&self, host: &str) -> Option<Vec<IpAddr>> {
        match host.parse() {
            Ok(address) => Some(vec![address]),
            Err(_) => hosts::addresses(&self.hosts_path, host),
        }
    }

    /// Both families at once; when one of them has addresses, the other one is not waited for much
    /// longer.
    async fn ask(&self, name: &Name) -> Found {
        let until = Instant::now() + TIME;
        let mut v6 = pin!(self.race(name, RecordType::AAAA, until));
        let mut v4 = pin!(self.race(name, RecordType::A, until));
        let (v6, v4) = tokio::select! {
            v6 = &mut v6 => {
                let wait = if v6.is_ok() { soon(until) } else { until + OTHERS };
                (Some(v6), timeout_at(wait, v4).await.ok())
            }
            v4 = &mut v4 => {
                let wait = if v4.is_ok() { soon(until) } else { until + OTHERS };
                (timeout_at(wait, v6).await.ok(), Some(v4))
            }
        };
        match (v6, v4) {
            (Some(Ok(v6)), Some(Ok(v4))) => Ok([v6, v4].concat()),
            (Some(Ok(one)), _) | (_, Some(Ok(one))) => Ok(one),
            // names without an IPv6 address are many, so that IPv4 says more
            (_, Some(error)) | (Some(error), None) => error,
            (None, None) => Err(ResolveError::NoServers),
        }
    }

    /// The servers one after the other: the next one after a while, or at once when one has failed.
    async fn race(&self, name: &Name, kind: RecordType, until: Instant) -> Found {
        let mut waiting = self.servers.iter().copied();
        let mut asked = JoinSet::new();
        let mut failed = Vec::new();
        let mut next_at = Instant::now();
        // set when a server has said that there is none
        let mut end = None;
        loop {
            tokio::select! {
                Some(answer) = asked.join_next() => match answer {
                    Ok((_, Ok(addresses))) => return Ok(addresses),
                    Ok((server, Err(error))) => {
                        if matches!(error, ServerError::NotFound) {
                            end.get_or_insert_with(|| soon(until));
                        }
                        failed.push((server, error));
                        next_at = Instant::now();
                    }
                    Err(error) => tracing::debug!(%error, "a question ended"),
                },
                () = sleep_until(next_at), if waiting.len() > 0 => {
                    if let Some(server) = waiting.next() {
                        let ask = ask::addresses(self.sockets, server, name.clone(), kind);
                        asked.spawn(async move {
                            let answer = timeout_at(until, ask).await;
                            (server, answer.unwrap_or(Err(ServerError::Silent)))
                        });
                        next_at = Instant::now() + STAGGER;
                    }
                }
                () = sleep_until(end.unwrap_or(until)), if end.is_some() && !asked.is_empty() => {
                    return Err(ResolveError::of_all(failed));
                }
                else => return Err(ResolveError::of_all(failed)),
            }
        }
    }
}

/// What one server says.
#[derive(Debug)]
pub struct Opinion {
    /// The server.
    pub server: SocketAddr,
    /// The addresses that it gives, or why it gives none.
    pub addresses: Result<Vec<IpAddr>, ServerError>,
}

type Found = Result<Vec<IpAddr>, ResolveError>;

impl ResolveError {
    fn of_all(failed: Vec<(SocketAddr, ServerError)>) -> Self {
        if failed.is_empty() {
            return Self::NoServers;
        }
        let not_found = |(_, error): &&_| matches!(error, ServerError::NotFound);
        match failed.iter().find(not_found) {
            Some((server, _)) => Self::NotFound { server: *server },
            None => Self::Failed(failed),
        }
    }

    /// Of a question to a single server.
    fn of_one_server(self) -> ServerError {
        match self {
            Self::NotFound { .. } => ServerError::NotFound,
            Self::Failed(failed) => {
                failed.into_iter().next().map_or(ServerError::Silent, |(_, error)| error)
            }
            Self::NotAName(_) | Self::NoServers => ServerError::Silent,
        }
    }
}

fn name(host: &str) -> Result<Name, ResolveError> {
    match Name::from_utf8(host) {
        Ok(mut name) if name.num_labels() > 0 => {
            name.set_fqdn(true);
            Ok(name)
        }
        Ok(_) | Err(_) => Err(ResolveError::NotAName(host.to_owned())),
    }
}

fn soon(until: Instant) -> Instant {
    until.min(Instant::now() + OTHERS)
}

//! Wrong log-ins, by somebody who has an invitation's door key and no right password.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cipherwall_proto::cipher::CipherId;
use cipherwall_proto::client::{Answer, Credential, Opening};
use cipherwall_proto::device::DeviceKey;
use cipherwall_proto::invitation::Invitation;
use cipherwall_proto::keys::DoorKey;
use cipherwall_proto::message::RefusalCode;
use cipherwall_transport::tls::{ClientConfig, Pin, TlsStream};
use e2e::{Node, address};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// The gateway takes so many requests on a connection.
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// Who guesses, and what for.
pub(crate) struct Guesser {
    door: DoorKey,
    pins: Vec<Pin>,
    /// Whose passwords are guessed.
    users: Vec<String>,
    /// Log-ins that were begun, and that are wanted.
    begun: AtomicUsize,
    count: usize,
    stop: AtomicBool,
    answers: Mutex<HashMap<&'static str, usize>>,
}

impl Guesser {
    /// Knows what this invitation says about the gateway, and guesses `count` times in all.
    pub(crate) fn new(link: &str, users: &[&str], count: usize) -> Result<Guesser> {
        let invitation = Invitation::from_link(link).context("an invitation of the gateway")?;
        let endpoint = invitation.endpoints.first().context("no endpoint")?;
        Ok(Guesser {
            door: DoorKey(invitation.door_key),
            pins: endpoint.pins.to_vec(),
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            begun: AtomicUsize::new(0),
            count,
            stop: AtomicBool::new(false),
            answers: Mutex::default(),
        })
    }

    /// Guesses from these addresses of `node`, from each of them over one connection at a time,
    /// until enough was guessed or somebody stops it.
    pub(crate) fn work(&self, node: &Node, addresses: &[Ipv4Addr]) -> Result<()> {
        node.enter_network()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let all = addresses.iter().map(|from| self.guess_from(*from));
        runtime.block_on(async {
            let mut all: Vec<_> = all.map(Box::pin).collect();
            std::future::poll_fn(|cx| {
                all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
                if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        });
        Ok(())
    }

    /// Lets [`Guesser::work`] end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How many were begun so far.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// How many were answered so: `rejected`, `busy`, or `cut short` if there was no answer.
    pub(crate) fn answered(&self, how: &str) -> usize {
        self.answers().get(how).copied().unwrap_or(0)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, usize>> {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn guess_from(&self, from: Ipv4Addr) {
        while !self.stop.load(Ordering::Relaxed) {
            let first = self.begun.fetch_add(TRIES, Ordering::Relaxed);
            if first >= self.count {
                return;
            }
            let user = &self.users[(first / TRIES) % self.users.len()];
            if !matches!(timeout(PATIENCE, self.guess(from, user)).await, Ok(Ok(()))) {
                *self.answers().entry("cut short").or_default() += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// All tries of one connection.
    async fn guess(&self, from: Ipv4Addr, user: &str) -> Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let tcp = socket.connect((address::GATEWAY, 8443).into()).await?;
        // without the tickets of earlier ones, which would spare the gateway half of its work
        let config = ClientConfig::new(self.pins.clone())?;
        let (mut stream, agreed) = config.handshake(tcp, "www.lab.test").await?;
        let ciphers = [CipherId::ChaCha20Poly1305];
        let mut opening = Opening::new(agreed.root, &self.door, agreed.alpn, "guesser", &ciphers);
        let device = DeviceKey::from_seed(&crate::strangers::random());
        for _ in 0..TRIES {
            let prehash: [u8; 32] = crate::strangers::random();
            let credential = Credential::Password { user, prehash: &prehash };
            stream.send(&opening.request(&credential, &device)).await?;
            let code = answer(&mut stream, &mut opening).await?;
            let is_busy = code == RefusalCode::Busy;
            ensure!(
                is_busy || code == RefusalCode::Rejected,
                "the gateway answers {code:?} to a wrong password"
            );
            let how = if is_busy { "busy" } else { "rejected" };
            *self.answers().entry(how).or_default() += 1;
        }
        Ok(())
    }
}

async fn answer(stream: &mut TlsStream, opening: &mut Opening) -> Result<RefusalCode> {
    loop {
        let plaintext = stream.read_record().await?.context("the gateway closed the connection")?;
        match opening.handle_record(&plaintext)? {
            Some(Answer::Refused(refused)) => return Ok(refused.code),
            Some(other) => bail!("the gateway answered {other:?} to a wrong password"),
            None => {}
        }
    }
}

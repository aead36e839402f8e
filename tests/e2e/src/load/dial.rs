//! A log-in as the client program makes it: TCP, TLS with the pinned key, the opening.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cipherwall_proto::cipher::CipherId;
use cipherwall_proto::client::{Answer, Credential, Established, Opening};
use cipherwall_proto::device::DeviceKey;
use cipherwall_proto::invitation::Invitation;
use cipherwall_proto::keys::DoorKey;
use cipherwall_proto::liveness::Keepalive;
use cipherwall_proto::rekey::{Limits, Side};
use cipherwall_transport::hardware;
use cipherwall_transport::socket::SocketFactory;
use cipherwall_transport::tls::{ClientConfig, TlsStream};
use cipherwall_transport::tunnel::{Link, Start};

/// How long a log-in may take; a thousand of them wait for each other.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tunnel of a session.
pub(super) struct Dialed {
    pub(super) link: Link,
    /// The address inside the tunnel.
    pub(super) address: Ipv4Addr,
    /// The MTU inside the tunnel.
    pub(super) mtu: u16,
}

/// Enrols a new device by `invitation`.
pub(super) async fn dial(invitation: &Invitation) -> Result<Dialed> {
    tokio::time::timeout(PATIENCE, log_in(invitation))
        .await
        .context("the gateway did not answer in time")?
        .with_context(|| format!("log-in of {}", invitation.user))
}

async fn log_in(invitation: &Invitation) -> Result<Dialed> {
    let endpoint = invitation.endpoints.first().context("no endpoint")?;
    let address = (endpoint.host.parse::<Ipv4Addr>()?, endpoint.port).into();
    let tcp = SocketFactory::default().connect(address).await?;
    let config = ClientConfig::new(endpoint.pins.to_vec())?;
    let (mut stream, agreed) = config.handshake(tcp, &endpoint.host).await?;

    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let door = DoorKey(invitation.door_key);
    let ciphers = CipherId::auto(hardware::aes());
    let mut opening = Opening::new(agreed.root, &door, agreed.alpn, "load generator", &ciphers);
    let credential = Credential::Invitation { secret: &invitation.enrol_secret };
    stream.send(&opening.request(&credential, &DeviceKey::from_seed(&seed))).await?;
    loop {
        let plaintext = stream.read_record().await?.context("the gateway closed the connection")?;
        match opening.handle_record(&plaintext)? {
            Some(Answer::Welcome(established)) => return start(stream, *established),
            Some(other) => bail!("the gateway answered {other:?}"),
            None => {}
        }
    }
}

fn start(stream: TlsStream, established: Established) -> Result<Dialed> {
    let Established { welcome, sealer, opener, .. } = established;
    let (carrier, leftover) = stream.into_parts();
    let interval = Duration::from_secs(welcome.keepalive.into());
    ensure!(!interval.is_zero(), "a keepalive of 0 s");
    let keepalive = Keepalive { interval, ..Keepalive::default() };
    let side = Side::Client(Limits::default());
    let mut link = Link::new(Start { carrier, sealer, opener, keepalive, side });
    link.begin(&leftover);
    Ok(Dialed { link, address: welcome.v4.0, mtu: welcome.mtu })
}

//! Traffic flows.

use std::{io, net::IpAddr, pin::Pin, sync::Arc};

use anyhow::anyhow;

use cipherwall_cli::Failure;
use cipherwall_ipc::daemon;
use cipherwall_netcfg::{ClientNetwork, MARK_DEFAULT, TABLE_DEFAULT, Wanted};
use cipherwall_packet::{ip, offload::OffloadHeader};
use cipherwall_proto::{
    frame::{Control, KickReason},
    message::Welcome,
    tunnel::Event,
};
use cipherwall_tun::Device;
use ipnet::IpNet;

use super::{Addresses, Context, State};
use crate::{
    dial::{DialError, Dialed, Dialer},
    engine::{Pump, host_error, open_tun},
};

/// What ended the wait in this state.
enum End {
    Stop,
    Lost(String),
    Kicked(KickReason),
    /// The TUN device is gone.
    DeviceLost(io::Error),
    /// Another connection has taken over.
    Replaced(Box<Dialed>),
}

impl Context<'_> {
    /// Sets the host up for this connection and serves it until it ends.
    pub(crate) async fn connected(&mut self, mut dialed: Dialed) -> State {
        let tun = match self.set_up(&dialed.welcome).await {
            Ok(tun) => tun,
            Err(error) => return State::Disconnecting(Some(Box::new(dialed.link)), Err(error)),
        };
        let first = self.live.status().since.is_none();
        self.live.connected(tun.name(), dialed.address, dialed.cipher, &dialed.welcome);
        if first && let Err(error) = announce(&dialed) {
            return State::Disconnecting(Some(Box::new(dialed.link)), Err(error));
        }
        let end = self.serve(&mut dialed, &tun).await;
        match end {
            End::Stop => State::Disconnecting(Some(Box::new(dialed.link)), Ok(())),
            End::Lost(why) => State::Reconnecting(why),
            End::Kicked(KickReason::Stopping) => {
                State::Reconnecting("the gateway is stopping".to_owned())
            }
            End::Kicked(reason @ (KickReason::Superseded | KickReason::Revoked)) => {
                State::Disconnecting(None, Err(kicked(reason)))
            }
            End::DeviceLost(error) => {
                let link = Some(Box::new(dialed.link));
                let why = "the tunnel's network device is gone; did another program remove it?";
                State::Disconnecting(link, Err(anyhow::Error::from(error).context(why)))
            }
            End::Replaced(dialed) => {
                // so that the counters go on
                self.live.enter(daemon::State::Reconnecting);
                State::Connected(dialed)
            }
        }
    }

    /// The TUN device and the host settings. Both stay while the client reconnects.
    async fn set_up(&mut self, welcome: &Welcome) -> anyhow::Result<Arc<Device>> {
        let tun = match &self.tun {
            Some(tun) => tun.clone(),
            None => self.tun.insert(Arc::new(open_tun()?)).clone(),
        };
        let mtu = self.mtu.map_or(welcome.mtu, |mtu| mtu.min(welcome.mtu));
        let wanted = ClientNetwork {
            interface: tun.name().to_owned(),
            addresses: vec![
                IpNet::from(IpAddr::from(welcome.v4.0)),
                IpNet::from(IpAddr::from(welcome.v6.0)),
            ],
            mtu: mtu.into(),
            mark: MARK_DEFAULT,
            table: TABLE_DEFAULT,
            routes: welcome.routes.iter().map(|route| route.0).collect(),
            allow_lan: self.allow_lan,
            dns: welcome.dns.iter().map(|address| address.0).collect(),
        };
        let report = self.host.apply(&Wanted::Client(wanted)).await.map_err(host_error)?;
        for warning in &report.warnings {
            tracing::warn!("{warning}");
        }
        Ok(tun)
    }

    async fn serve(&mut self, dialed: &mut Dialed, tun: &Arc<Device>) -> End {
        let mut pump = Pump::start(tun.clone(), dialed.link.sender().clone());
        let inner = (dialed.welcome.v4.0, dialed.welcome.v6.0);
        let mut on_packet = |header: &OffloadHeader, packet: &[u8]| {
            let ours = ip::addresses(packet).is_ok_and(|(_, destination)| match destination {
                IpAddr::V4(address) => address == inner.0,
                IpAddr::V6(address) => address == inner.1,
            });
            // a gateway has no business with other addresses of this host or behind it
            if ours && let Err(error) = tun.write(header, packet) {
                log_write(&error);
            }
        };
        if let Err(error) = dialed.link.ping() {
            return End::Lost(error.to_string());
        }
        let mut race = Race::default();
        loop {
            let event = tokio::select! {
                event = dialed.link.run(&mut on_packet) => event,
                replacement = race.won() => return End::Replaced(replacement),
                error = pump.device_lost() => return End::DeviceLost(error),
                () = self.asked_to_stop() => return End::Stop,
            };
            self.live.measured(dialed.link.traffic(), dialed.link.round_trip());
            if !dialed.link.is_suspect() {
                race.call_off();
            }
            match event {
                Ok(None) => {}
                Ok(Some(Event::Suspect)) => {
                    tracing::info!("no answer for a while: trying another connection as well");
                    race.start(self.dialer.clone(), self.addresses.clone());
                }
                // the gateway's answer to our own second connection
                Ok(Some(Event::Peer(Control::Kick { reason: KickReason::Superseded })))
                    if race.was_run() =>
                {
                    return End::Lost("a second connection of ours was called off".to_owned());
                }
                Ok(Some(Event::Dead)) => return End::Lost("the gateway fell silent".to_owned()),
                Ok(Some(Event::Peer(Control::Kick { reason }))) => return End::Kicked(reason),
                Ok(Some(Event::Peer(Control::Close))) => {
                    return End::Lost("the gateway closed the session".to_owned());
                }
                Err(error) => return End::Lost(error.to_string()),
            }
        }
    }
}

type Dial = Pin<Box<dyn Future<Output = Result<Dialed, DialError>> + Send>>;

/// Another connection, tried beside one that may be dead (A8).
#[derive(Default)]
struct Race {
    dial: Option<Dial>,
    was_run: bool,
}

impl Race {
    fn start(&mut self, dialer: Dialer, addresses: Addresses) {
        self.was_run = true;
        self.dial = Some(Box::pin(async move { dialer.dial(&addresses).await }));
    }

    /// The old connection has come back to life.
    fn call_off(&mut self) {
        self.dial = None;
    }

    /// Whether a second connection was ever tried: the gateway may know of it though we do not.
    fn was_run(&self) -> bool {
        self.was_run
    }

    /// Waits for the other connection; for ever if there is none, or it fails.
    async fn won(&mut self) -> Box<Dialed> {
        if let Some(dial) = &mut self.dial {
            match dial.await {
                Ok(dialed) => return Box::new(dialed),
                Err(error) => tracing::debug!(%error, "no other connection either"),
            }
            self.dial = None;
        }
        std::future::pending().await
    }
}

/// The line that scripts wait for.
fn announce(dialed: &Dialed) -> anyhow::Result<()> {
    let Dialed { welcome, cipher, address, .. } = dialed;
    let inner = welcome.v4.0;
    cipherwall_cli::print(format_args!("connected: {inner} through {address} (tls, {cipher})"))
}

fn kicked(reason: KickReason) -> anyhow::Error {
    match reason {
        KickReason::Superseded => anyhow!(
            "another connection with this device's key has taken over; if it is not yours, the \
             profile was copied: ask the gateway's owner for a new invitation"
        ),
        KickReason::Revoked => Failure::rejected(
            "the gateway's owner has ended this session; ask them, then connect again",
        )
        .into(),
        KickReason::Stopping => anyhow!("the gateway is stopping"),
    }
}

/// The TUN device refuses a packet: not worth more than a word to whoever looks for it.
fn log_write(error: &io::Error) {
    tracing::debug!(%error, "a packet from the gateway was dropped");
}

//! Traffic flows.

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cipherwall_cli::Failure;
use cipherwall_ipc::daemon;
use cipherwall_netcfg::{ClientNetwork, MARK_DEFAULT, Protocol, TABLE_DEFAULT};
use cipherwall_packet::{ip, offload::OffloadHeader};
use cipherwall_proto::{
    frame::{Control, KickReason},
    invitation::Endpoint,
    message::Welcome,
    tunnel::Event,
};
use cipherwall_transport::tunnel::{LinkError, Sender};
use cipherwall_tun::Device;
use ipnet::IpNet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    Context, Over, Redial, State,
    climb::{Climb, Step},
    race::Race,
    way::Reception,
};
use crate::{
    dial::Dialed,
    engine::{
        Change, IsOurs, Monitor, Order, Pump, Second, deliver, host_error, open_tun, opening,
    },
    split,
};

/// How long a connection that was replaced may bring what it has.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How much longer than the gateway's word to the old connection its word to the new one may take.
const TAKE_OVER_TIME: Duration = Duration::from_secs(2);

/// How long a race may take before the connection counts as lost, if the gateway has a name: while
/// the connection stands nobody asks whether that leads elsewhere now (A23).
const RACE_TIME: Duration = Duration::from_secs(4);

const SECOND: Duration = Duration::from_secs(1);

/// What ended the wait in this state.
enum End {
    Ordered(Order),
    /// The connection is of no use any more; with the race for another one that is on.
    Lost(String, Option<Box<Redial>>),
    Kicked(KickReason),
    /// The TUN device is gone.
    DeviceLost(io::Error),
    /// Another connection has taken over.
    Replaced(Box<Dialed>),
}

impl Context<'_> {
    /// Sets the host up for this connection and serves it until it ends.
    pub(crate) async fn connected(&mut self, mut dialed: Dialed) -> State {
        self.dialer.keep(&dialed);
        self.remember(&dialed);
        let tun = match self.set_up(&dialed).await {
            Ok(tun) => tun,
            Err(error) => {
                return State::Disconnecting(Some(Box::new(dialed.link)), Over::Failed(error));
            }
        };
        self.live.enter(daemon::State::Connected);
        let first = self.live.status().since.is_none();
        self.live.connected(tun.name(), &dialed.welcome);
        self.way.look(&dialed, &self.live);
        if first && let Err(error) = self.announce(&dialed) {
            return State::Disconnecting(Some(Box::new(dialed.link)), Over::Failed(error));
        }
        let mut pump = self.start_pump(dialed.link.sender(), &tun);
        let end = self.serve(&mut dialed, &tun, &mut pump).await;
        // it goes on: what cannot be sent now is kept for the next connection
        self.pump = Some(pump);
        match end {
            End::Ordered(order) => {
                State::Disconnecting(Some(Box::new(dialed.link)), Over::Order(order))
            }
            End::Lost(why, redial) => State::Reconnecting(why, redial),
            End::Kicked(KickReason::Stopping) => {
                self.dialer.rungs().ended();
                State::Reconnecting("the gateway is stopping".to_owned(), None)
            }
            // by a copy of this profile, or by a connection of our own that we have given up: if our
            // token is still good, it was that
            End::Kicked(KickReason::Superseded) => {
                self.dialer.rungs().ended();
                let why = "another connection has taken over the session";
                State::Reconnecting(why.to_owned(), None)
            }
            End::Kicked(KickReason::Revoked) => {
                self.dialer.forget_session();
                State::failed(revoked())
            }
            End::DeviceLost(error) => {
                let link = Some(Box::new(dialed.link));
                let why = "the tunnel's network device is gone; did another program remove it?";
                State::Disconnecting(link, Over::Failed(anyhow::Error::from(error).context(why)))
            }
            End::Replaced(next) => {
                drain(dialed, &tun);
                self.live.replaced();
                State::Connected(next)
            }
        }
    }

    /// The TUN device and the host settings. Both stay while the client reconnects.
    async fn set_up(&mut self, dialed: &Dialed) -> anyhow::Result<Arc<Device>> {
        let tun = match &self.tun {
            Some(tun) => tun.clone(),
            None => self.tun.insert(Arc::new(open_tun()?)).clone(),
        };
        let network = self.network(&dialed.welcome, tun.name());
        let protection = &mut self.service.protection;
        protection.apply(network).await.map_err(host_error)?;
        let mut gateways = self.gateways();
        let datagrams = dialed.datagrams.as_ref();
        gateways.extend(datagrams.map(|it| opening(it.gateway, Protocol::Udp)));
        let name = tun.name().to_owned();
        let protection = &mut self.service.protection;
        let opened = protection.flow(|flow| {
            flow.gateways = gateways;
            flow.tunnel = Some(name);
            flow.resolvers = false;
        });
        opened.await?;
        self.service.show();
        Ok(tun)
    }

    fn network(&self, welcome: &Welcome, interface: &str) -> ClientNetwork {
        let mtu = self.wanted.mtu.map_or(welcome.mtu, |mtu| mtu.min(welcome.mtu));
        let dns: Vec<IpAddr> = welcome.dns.iter().map(|address| address.0).collect();
        let routes = match self.wanted.only.as_slice() {
            [] => welcome.routes.iter().map(|route| route.0).collect(),
            only => {
                let resolvers = dns.iter().copied().map(IpNet::from);
                split::routes_of(&resolvers.chain(only.iter().copied()).collect::<Vec<_>>())
            }
        };
        let exceptions = &self.wanted.exceptions;
        ClientNetwork {
            interface: interface.to_owned(),
            addresses: vec![
                IpNet::from(IpAddr::from(welcome.v4.0)),
                IpNet::from(IpAddr::from(welcome.v6.0)),
            ],
            mtu: mtu.into(),
            mark: MARK_DEFAULT,
            table: TABLE_DEFAULT,
            routes,
            allow_lan: exceptions.allow_lan,
            direct: exceptions.direct.clone(),
            keep: exceptions.keep.clone(),
            dns,
        }
    }

    /// The line that scripts wait for, or the answer to the front end that wanted to connect.
    fn announce(&mut self, dialed: &Dialed) -> anyhow::Result<()> {
        if let Some(answer) = self.wanted.answer.take() {
            answer.give(&Ok(()));
        }
        if !self.service.foreground {
            return Ok(());
        }
        let Dialed { welcome, cipher, address, endpoint, .. } = dialed;
        let (inner, transport) = (welcome.v4.0, endpoint.transport.name());
        let line = format_args!("connected: {inner} through {address} ({transport}, {cipher})");
        cipherwall_cli::print(line)
    }

    /// Sends over this connection, first of all what the last one could not.
    pub(super) fn start_pump(&mut self, sender: &Arc<Sender>, tun: &Arc<Device>) -> Pump {
        match self.pump.take() {
            // since before the gateway has answered
            Some(pump) if pump.sends_over(sender) => return pump,
            // a connection that has failed already is noticed by its link
            Some(lost) => drop(sender.adopt(lost.retire())),
            None => {}
        }
        Pump::start(tun.clone(), sender.clone())
    }

    async fn serve(&mut self, dialed: &mut Dialed, tun: &Arc<Device>, pump: &mut Pump) -> End {
        let mut on_packet = on_packet(&dialed.welcome, tun);
        let mut reception = Reception::start(dialed, tun, is_ours(&dialed.welcome));
        if let Err(error) = dialed.link.ping() {
            return End::Lost(error.to_string(), None);
        }
        let gateway = dialed.address.ip();
        let mut path = self.surroundings.paths([gateway]).await;
        let mut race = Race::default();
        let has_names = self.dialer.has_names();
        let mut climb = Climb::new(&self.dialer, &self.addresses);
        let mut monitor = Monitor::new(dialed.link.traffic());
        let mut seconds = interval(SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let race_until = race.since().map(|since| since + RACE_TIME);
            let event = tokio::select! {
                event = dialed.link.run(&mut on_packet) => event,
                replacement = race.won() => return End::Replaced(replacement),
                step = climb.next(), if race_until.is_none() => match step {
                    Step::Won(better) => return End::Replaced(better),
                    Step::Found(found) => {
                        self.learn(found).await;
                        climb.go_on(&self.addresses);
                        continue;
                    }
                },
                change = self.surroundings.changed() => {
                    let now = self.surroundings.paths([gateway]).await;
                    let woke = matches!(change, Change::Woke(_));
                    let suspicious = woke || now != path;
                    path = now;
                    if !suspicious {
                        continue;
                    }
                    tracing::info!(?change, "the connection may be dead: trying another one as well");
                    self.look_at_network().await;
                    climb.call_off();
                    race.start(Redial::new(&self.dialer, &self.addresses, &self.live));
                    reception.doubt(dialed, tun);
                    dialed.link.doubt().map(|()| None)
                }
                () = sleep_until(self.way.due()) => Ok(None),
                () = sleep_until(race_until), if has_names => {
                    return End::Lost("no answer any more".to_owned(), race.redial);
                }
                _ = seconds.tick() => self.measure(&mut monitor, &mut climb, dialed).map(|()| None),
                error = pump.device_lost() => return End::DeviceLost(error),
                wish = self.service.wish() => match self.heed(wish).await {
                    Some(order) => return End::Ordered(order),
                    None => Ok(None),
                },
            };
            self.live.measured(dialed.link.traffic(), dialed.link.round_trip());
            reception.look(dialed, tun);
            self.way.look(dialed, &self.live);
            if !dialed.link.is_suspect() && race.call_off() {
                self.dialer.rungs().alive();
            }
            if let Some(end) = self.heard(event, &mut climb, &mut race).await {
                return end;
            }
        }
    }
}

impl Context<'_> {
    /// What follows from the connection's last word; how this state ends, if it does.
    async fn heard(
        &self,
        event: Result<Option<Event>, LinkError>,
        climb: &mut Climb,
        race: &mut Race,
    ) -> Option<End> {
        let lost = |why: &str, race: &mut Race| {
            let redial = race.redial.take();
            Some(End::Lost(why.to_owned(), redial))
        };
        match event {
            Ok(None) => None,
            Ok(Some(Event::Suspect)) => {
                tracing::info!("no answer for a while: trying another connection as well");
                self.dialer.rungs().suspect();
                climb.call_off();
                race.start(Redial::new(&self.dialer, &self.addresses, &self.live));
                None
            }
            Ok(Some(Event::Peer(Control::Kick { reason: KickReason::Superseded })))
                if let Some(rung) = climb.under_way() =>
            {
                Some(self.taken_over(climb, &rung).await)
            }
            // the gateway's answer to our own second connection
            Ok(Some(Event::Peer(Control::Kick { reason: KickReason::Superseded })))
                if race.was_run() =>
            {
                lost("a second connection of ours is taking over", race)
            }
            Ok(Some(Event::Dead)) => lost("the gateway fell silent", race),
            Ok(Some(Event::Peer(Control::Kick { reason }))) => Some(End::Kicked(reason)),
            // only clients say so
            Ok(Some(Event::Peer(Control::RekeyPlease | Control::TokenStored))) => None,
            Ok(Some(Event::Peer(Control::Close))) => lost("the gateway closed the session", race),
            Err(error) => lost(&error.to_string(), race),
        }
    }

    /// The gateway has taken a climb for the successor of the connection in use. It may say so to that
    /// one a moment later.
    async fn taken_over(&self, climb: &mut Climb, rung: &Endpoint) -> End {
        if let Ok(Step::Won(better)) = timeout(TAKE_OVER_TIME, climb.next()).await {
            return End::Replaced(better);
        }
        self.dialer.rungs().swallowed(rung);
        End::Kicked(KickReason::Superseded)
    }

    /// The quality of the last second.
    fn measure(
        &self,
        monitor: &mut Monitor,
        climb: &mut Climb,
        dialed: &mut Dialed,
    ) -> Result<(), LinkError> {
        let link = &mut dialed.link;
        let (latest, traffic) = (link.latest_round_trip(), link.traffic());
        climb.carried(traffic.0 + traffic.1);
        self.dialer.rungs().carried(traffic.0 + traffic.1);
        let looked_at = self.live.is_looked_at();
        let Second { sample, ping } = monitor.tick(SystemTime::now(), latest, traffic, looked_at);
        self.live.sample(sample);
        if ping { link.ping() } else { Ok(()) }
    }
}

/// Whether a packet is for this client: a gateway has no business with other addresses of this host
/// or behind it.
fn is_ours(welcome: &Welcome) -> IsOurs {
    let inner = (welcome.v4.0, welcome.v6.0);
    Arc::new(move |packet| {
        ip::addresses(packet).is_ok_and(|(_, destination)| match destination {
            IpAddr::V4(address) => address == inner.0,
            IpAddr::V6(address) => address == inner.1,
        })
    })
}

/// Gives packets from the gateway to the kernel, for as long as others have use for the device.
fn on_packet(welcome: &Welcome, tun: &Arc<Device>) -> impl FnMut(&OffloadHeader, &[u8]) + use<> {
    let (tun, is_ours) = (Arc::downgrade(tun), is_ours(welcome));
    move |header, packet| {
        if is_ours(packet)
            && let Some(tun) = tun.upgrade()
        {
            deliver(&tun, header, packet);
        }
    }
}

/// Never, without a time.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Takes what is still on its way over a connection that has been replaced: the path may have come
/// back for both at the same time.
fn drain(replaced: Dialed, tun: &Arc<Device>) {
    let mut on_packet = on_packet(&replaced.welcome, tun);
    tokio::spawn(async move {
        let drained = replaced.link.drain(&mut on_packet);
        if let Ok(Err(error)) = timeout(DRAIN_TIME, drained).await {
            tracing::debug!(%error, "the rest of a replaced connection");
        }
    });
}

fn revoked() -> anyhow::Error {
    Failure::rejected("the gateway's owner has ended this session; ask them, then connect again")
        .into()
}

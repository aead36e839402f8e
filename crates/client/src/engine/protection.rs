//! The settings of this host, and what may flow on it: routes and DNS while there is a tunnel, and
//! the packet policy from the wish for a connection until the user disconnects (docs/security.md).

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use cipherwall_cli::Failure;
use cipherwall_netcfg::{
    ClientNetwork, Error as HostError, Guard, Host, Kept, MARK_DEFAULT, Opening, Policy, Protocol,
    Report, Role, Wanted,
};
use ipnet::IpNet;
use tokio::time::{Instant, sleep_until};

use super::{Lockdown, host_error};

/// How long a portal is let through.
pub(crate) const PORTAL_TIME: Duration = Duration::from_secs(300);
/// How soon the host is put right again after it was put right: others may be at it all the time.
const RENEW_PAUSE: Duration = Duration::from_millis(250);

/// What a session lets outside all the time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exceptions {
    /// The local network.
    pub(crate) allow_lan: bool,
    /// Networks that are reached directly.
    pub(crate) direct: Vec<IpNet>,
    /// Connections that people are logged in by.
    pub(crate) keep: Vec<Kept>,
}

/// What a session lets outside at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flow {
    /// Where our own sockets may go.
    pub(crate) gateways: Vec<Opening>,
    /// The TUN device.
    pub(crate) tunnel: Option<String>,
    /// Whether our own sockets may ask for names.
    pub(crate) resolvers: bool,
}

/// The host, closed or open.
#[derive(Debug)]
pub(crate) struct Protection {
    host: Host,
    lockdown: Lockdown,
    /// Whether the user wants it closed, apart from lockdown.
    wanted: bool,
    exceptions: Exceptions,
    flow: Flow,
    portal_until: Option<Instant>,
    /// What the kernel has, as far as is known.
    in_force: Option<Policy>,
    /// Routes and DNS, while there are any.
    network: Option<ClientNetwork>,
    /// Tells when others change what is ours.
    guard: Option<Guard>,
    renewed_at: Option<Instant>,
}

/// Something that only makes sense in other circumstances.
fn refused(why: &str) -> anyhow::Error {
    Failure::failed(why).into()
}

impl Protection {
    /// Takes the host over, rid of what a dead process left of routes and DNS; the report says of
    /// what. The packet policy stays as it is: closed, if that process was killed.
    ///
    /// # Errors
    /// Another process has it, or this one lacks the rights.
    pub(crate) async fn open(state_dir: &Path) -> Result<(Protection, Report), HostError> {
        let mut host = Host::open(state_dir, Role::Client).await?;
        let report = host.recover().await?;
        let lockdown = Lockdown::load(state_dir);
        let protection = Protection {
            // in lockdown it is closed anyway; whether a session was, the daemon knows
            wanted: host.is_protected() && !lockdown.is_on(),
            host,
            lockdown,
            exceptions: Exceptions::default(),
            flow: Flow::default(),
            portal_until: None,
            in_force: None,
            network: None,
            guard: None,
            renewed_at: None,
        };
        Ok((protection, report))
    }

    /// Whether traffic outside of the tunnel is blocked.
    pub(crate) fn is_closed(&self) -> bool {
        self.wanted || self.lockdown.is_on()
    }

    /// Whether the user wants it blocked, apart from lockdown.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether it is blocked always.
    pub(crate) fn is_lockdown(&self) -> bool {
        self.lockdown.is_on()
    }

    /// How long a portal is still let through.
    pub(crate) fn portal_left(&self) -> Option<Duration> {
        self.portal_until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// DNS servers outside of the tunnel.
    pub(crate) fn outside_resolvers(&self) -> Vec<SocketAddr> {
        self.host.outside_resolvers()
    }

    /// Closes the host with these exceptions, for a session that begins.
    ///
    /// # Errors
    /// The packet filter cannot be had.
    pub(crate) async fn close(&mut self, exceptions: Exceptions) -> anyhow::Result<()> {
        self.wanted = true;
        self.exceptions = exceptions;
        self.sync().await
    }

    /// Blocks what a session let outside, but for the connections that people are logged in by.
    /// The local network stays as the session had it; where there was none, as `allow_lan` says.
    ///
    /// # Errors
    /// The packet filter cannot be changed.
    pub(crate) async fn block(&mut self, allow_lan: bool) -> anyhow::Result<()> {
        if !self.wanted {
            self.exceptions.allow_lan = allow_lan;
        }
        self.exceptions.direct.clear();
        self.sync().await
    }

    /// Whether the local network is reachable while it is closed.
    pub(crate) fn allows_lan(&self) -> bool {
        self.exceptions.allow_lan
    }

    /// Whether the local network stays reachable while there is no session.
    ///
    /// # Errors
    /// The packet filter cannot be changed.
    pub(crate) async fn set_allow_lan(&mut self, allow_lan: bool) -> anyhow::Result<()> {
        self.exceptions.allow_lan = allow_lan;
        self.sync().await
    }

    /// Lets something else flow from now on.
    ///
    /// # Errors
    /// The packet filter cannot be changed; it stays as it was.
    pub(crate) async fn flow(&mut self, change: impl FnOnce(&mut Flow)) -> anyhow::Result<()> {
        change(&mut self.flow);
        self.sync().await
    }

    /// Routes and DNS of a tunnel. A portal is of no use any more.
    ///
    /// # Errors
    /// They cannot be set; then there are none, and the host stays closed.
    pub(crate) async fn apply(&mut self, network: ClientNetwork) -> Result<(), HostError> {
        self.portal_until = None;
        let report = self.host.apply(&Wanted::Client(network.clone())).await?;
        warn(&report);
        self.network = Some(network);
        Ok(())
    }

    /// Takes routes and DNS back; the host stays closed, and nothing flows.
    ///
    /// # Errors
    /// Something could not be undone.
    pub(crate) async fn take_back(&mut self) -> anyhow::Result<Report> {
        self.network = None;
        self.flow = Flow::default();
        self.portal_until = None;
        let closed = self.sync().await;
        let report = self.host.reset().await.map_err(host_error)?;
        self.watch_anew().await?;
        closed.map(|()| report)
    }

    /// The user wants no protection any more: opens, unless lockdown is on.
    ///
    /// # Errors
    /// The packet filter cannot be changed.
    pub(crate) async fn release(&mut self, allow_lan: bool) -> anyhow::Result<Report> {
        self.wanted = false;
        self.exceptions = Exceptions { allow_lan, ..Exceptions::default() };
        self.flow = Flow::default();
        self.portal_until = None;
        if self.lockdown.is_on() {
            self.sync().await?;
            return Ok(Report::default());
        }
        self.guard = None;
        self.in_force = None;
        self.host.unprotect().await.map_err(host_error)
    }

    /// Lockdown from now on, or no longer.
    ///
    /// # Errors
    /// That cannot be kept, or not be put into force.
    pub(crate) async fn set_lockdown(&mut self, on: bool, allow_lan: bool) -> anyhow::Result<()> {
        self.lockdown.set(on).map_err(crate::cli::coded)?;
        if self.wanted {
            return Ok(());
        }
        if on {
            self.exceptions.allow_lan = allow_lan;
            return self.sync().await;
        }
        self.release(allow_lan).await.map(|report| warn(&report))
    }

    /// Lets programs through to a captive portal, for [`PORTAL_TIME`]. Routes and DNS of a tunnel
    /// that is down are taken back meanwhile.
    ///
    /// # Errors
    /// Nothing is blocked, or the host cannot be changed.
    pub(crate) async fn open_portal(&mut self) -> anyhow::Result<()> {
        if !self.is_closed() {
            return Err(refused(
                "nothing is blocked: open any web page, such as http://neverssl.com, in a browser",
            ));
        }
        self.portal_until = Some(Instant::now() + PORTAL_TIME);
        self.sync().await?;
        if self.network.is_some() {
            self.host.reset().await.map_err(host_error)?;
            self.watch_anew().await?;
        }
        Ok(())
    }

    /// Ends that, if it is on.
    ///
    /// # Errors
    /// The host cannot be changed.
    pub(crate) async fn close_portal(&mut self) -> anyhow::Result<()> {
        if self.portal_until.take().is_none() {
            return Ok(());
        }
        self.sync().await?;
        self.apply_again().await
    }

    /// Resolves when somebody else has changed what is ours, or a portal's time is up. May be
    /// dropped and called again.
    pub(crate) async fn wants_renewal(&mut self) {
        let over = async {
            match self.portal_until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let (guard, renewed_at) = (&mut self.guard, self.renewed_at);
        let disturbed = async {
            let Some(guard) = guard else { return std::future::pending().await };
            if let Some(at) = renewed_at {
                sleep_until(at + RENEW_PAUSE).await;
            }
            guard.disturbed().await;
        };
        tokio::select! {
            () = over => {}
            () = disturbed => {}
        }
    }

    /// Puts everything right again.
    ///
    /// # Errors
    /// The host cannot be changed.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<()> {
        if self.portal_until.is_some_and(|until| until <= Instant::now()) {
            tracing::info!("the time for the captive portal is up");
            return self.close_portal().await;
        }
        tracing::warn!(
            "another program has changed this computer's network settings: renewing ours"
        );
        self.renewed_at = Some(Instant::now());
        self.in_force = None;
        self.sync().await?;
        self.apply_again().await
    }

    async fn apply_again(&mut self) -> anyhow::Result<()> {
        if self.portal_until.is_some() {
            return Ok(());
        }
        let Some(network) = self.network.clone() else { return Ok(()) };
        let report = self.host.apply(&Wanted::Client(network)).await.map_err(host_error)?;
        warn(&report);
        Ok(())
    }

    /// Makes the kernel's policy the one that is wanted now.
    async fn sync(&mut self) -> anyhow::Result<()> {
        if !self.is_closed() {
            return Ok(());
        }
        if self.guard.is_none() {
            self.watch();
        }
        let policy = self.policy();
        if self.in_force.as_ref() == Some(&policy) {
            return Ok(());
        }
        let report = self
            .host
            .protect(&policy)
            .await
            .map_err(host_error)
            .context("cannot block traffic outside of the tunnel")?;
        warn(&report);
        self.in_force = Some(policy);
        Ok(())
    }

    /// After routes and DNS were taken back, which looks like the work of others. What others did
    /// meanwhile is put right.
    async fn watch_anew(&mut self) -> anyhow::Result<()> {
        self.guard = None;
        self.in_force = None;
        self.sync().await
    }

    /// Changes by others, from now on.
    fn watch(&mut self) {
        let guard = Guard::watch();
        if let Err(error) = &guard {
            tracing::warn!(%error, "changes by other programs will not be noticed");
        }
        self.guard = guard.ok();
    }

    fn policy(&self) -> Policy {
        Policy {
            mark: MARK_DEFAULT,
            gateways: self.flow.gateways.clone(),
            tunnel: self.flow.tunnel.clone(),
            allow_lan: self.exceptions.allow_lan,
            resolvers: self.flow.resolvers,
            portal: self.portal_until.is_some(),
            direct: self.exceptions.direct.clone(),
            keep: self.exceptions.keep.clone(),
        }
    }
}

/// Where our own sockets go.
pub(crate) fn opening(address: SocketAddr, protocol: Protocol) -> Opening {
    Opening { address, protocol }
}

/// What the user should know.
pub(crate) fn warn(report: &Report) {
    report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

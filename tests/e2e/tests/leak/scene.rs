//! One client that is watched from before it connects until after it has disconnected.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use e2e::{
    ClientNode, GatewayNode, HostState, Lab, LeakWatch, Page, Programs, Transport, address, until,
};

/// How long connecting may take, also after something went wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who keeps the connection up, and for how long the host is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `connect --foreground`: from then on, until the user disconnects.
    Foreground,
    /// The daemon, likewise.
    Daemon,
    /// The daemon; closed all the time, but for the tunnel.
    Lockdown,
}

pub(crate) struct Scene {
    pub(crate) watch: LeakWatch,
    pub(crate) client: ClientNode,
    pub(crate) gateway: GatewayNode,
    pub(crate) lab: Lab,
    pub(crate) mode: Mode,
    before: HostState,
    /// From when on nothing may leak.
    closed_since: Option<SystemTime>,
}

impl Scene {
    /// A client that can connect and has not; each kind of packet was seen outside.
    pub(crate) fn new(programs: &Programs, mode: Mode) -> Result<Scene> {
        let mut scene = Scene::prepared(programs, mode, &[])?;
        scene.start()?;
        Ok(scene)
    }

    /// As [`Scene::new`], before anything runs on the client, with parts of the gateway's
    /// `server.yaml` replaced.
    pub(crate) fn prepared(
        programs: &Programs,
        mode: Mode,
        edits: &[(&str, &str)],
    ) -> Result<Scene> {
        Scene::watched(Lab::new()?, programs, mode, edits, |lab| LeakWatch::start(lab))
    }

    /// As [`Scene::prepared`], with another laboratory and watch, which is begun on the former host.
    pub(crate) fn watched(
        mut lab: Lab,
        programs: &Programs,
        mode: Mode,
        edits: &[(&str, &str)],
        watch: impl FnOnce(&mut Lab) -> Result<LeakWatch>,
    ) -> Result<Scene> {
        let gateway = GatewayNode::start_edited(&lab, programs, edits)?;
        let client = ClientNode::new(&lab, 0, programs)?;
        client.import(&gateway.invite("alice")?.link)?;
        let watch = watch(&mut lab)?;
        let before = HostState::of(&client.node)?;
        Ok(Scene { watch, client, gateway, lab, mode, before, closed_since: None })
    }

    /// The daemon, and lockdown, where there is to be one.
    pub(crate) fn start(&mut self) -> Result<()> {
        if self.mode != Mode::Foreground {
            self.client.start_daemon()?;
        }
        if self.mode == Mode::Lockdown {
            self.client.run(&["lockdown", "on"])?.ok()?;
            self.closed_since = Some(SystemTime::now());
        }
        Ok(())
    }

    /// Connects. The host is closed from the client's first own packet on.
    pub(crate) fn connect(&mut self) -> Result<()> {
        self.connect_with(&[])
    }

    /// As [`Scene::connect`], with options of `connect`.
    pub(crate) fn connect_with(&mut self, options: &[&str]) -> Result<()> {
        let begin = SystemTime::now();
        match self.mode {
            Mode::Foreground => self.client.connect(options).map(drop)?,
            Mode::Daemon | Mode::Lockdown => self.client.connect_by_daemon(options)?,
        }
        if self.closed_since.is_none() {
            self.closed_since = Some(self.watch.first_own_packet(begin)?);
        }
        self.expect_tunnel()
    }

    /// The host as it was before anything of ours, to compare with.
    pub(crate) fn host_before(&mut self) -> Result<()> {
        self.before = HostState::of(&self.client.node)?;
        Ok(())
    }

    /// Nothing may leak from this time on; before, it was looked at otherwise.
    pub(crate) fn closed_from(&mut self, since: SystemTime) {
        self.closed_since = Some(since);
    }

    /// From when on nothing may leak.
    pub(crate) fn closed_since(&self) -> Result<SystemTime> {
        self.closed_since.context("it was not closed yet")
    }

    /// Cuts the client's power and starts it again; nothing of ours runs yet. The link comes up after
    /// `before_link`.
    pub(crate) fn cut_power(
        &mut self,
        before_link: impl FnOnce(&ClientNode) -> Result<()>,
    ) -> Result<()> {
        self.lab.cut_power()?;
        self.client.node = self.lab.clients[0].clone();
        before_link(&self.client)?;
        self.watch.spray_again(&self.lab)?;
        self.lab.plug_in()
    }

    /// SIGKILL for the process that keeps the connection up.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.client.kill9()
    }

    /// As systemd, or the user, starts it again after a crash. The daemon connects by itself.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        match self.mode {
            Mode::Foreground => self.client.connect(&[]).map(drop)?,
            Mode::Daemon | Mode::Lockdown => {
                self.client.start_daemon()?;
                self.client.wait_for_state("connected", PATIENCE).with_context(|| self.logs())?;
            }
        }
        self.expect_tunnel()
    }

    /// A page comes through the tunnel.
    pub(crate) fn expect_tunnel(&mut self) -> Result<()> {
        let seen = until("a page through the tunnel", PATIENCE, || {
            self.lab.visitor_address(&self.client.node, address::WEB.into()).map(Some)
        });
        let seen = seen.with_context(|| self.logs())?;
        ensure!(seen == address::GATEWAY.to_string(), "the visitor's address is {seen}");
        Ok(())
    }

    /// Nothing has leaked so far.
    pub(crate) fn expect_closed(&mut self, when: &str) -> Result<()> {
        let since = self.closed_since()?;
        self.watch.expect_closed(since, when).with_context(|| self.logs())
    }

    /// The user disconnects, and nothing has leaked until then. Only lockdown stays closed.
    pub(crate) fn disconnect(&mut self, when: &str) -> Result<()> {
        self.expect_closed(when)?;
        if self.mode == Mode::Foreground {
            self.client.disconnect()?;
        } else {
            self.client.run(&["disconnect"])?.ok()?;
        }
        match self.mode {
            Mode::Foreground => {}
            Mode::Daemon => drop(self.client.wait_for_state("disconnected", PATIENCE)?),
            Mode::Lockdown => {
                self.client.wait_for_state("blocked", PATIENCE)?;
                return self.expect_closed("in lockdown, after disconnecting");
            }
        }
        self.expect_former_host(when)
    }

    /// The user disconnects, and ends the lockdown: nothing has leaked until then, and then the host
    /// is what it was, and open.
    pub(crate) fn end(mut self, when: &str) -> Result<()> {
        self.disconnect(when)?;
        if self.mode == Mode::Lockdown {
            self.client.run(&["lockdown", "off"])?.ok()?;
            self.client.wait_for_state("disconnected", PATIENCE)?;
            self.expect_former_host(when)?;
        }
        self.watch.finish()
    }

    /// Nothing of ours is left, and the internet works.
    pub(crate) fn expect_former_host(&mut self, when: &str) -> Result<()> {
        self.closed_since = None;
        self.before.expect_unchanged(&self.client.node, when)?;
        self.watch.expect_open(when).with_context(|| self.logs())?;
        Page::open(&self.client.node, "http://www.lab.test/").context("the internet by name")?;
        Ok(())
    }

    pub(crate) fn logs(&mut self) -> String {
        self.client.process().map(|process| process.logs()).unwrap_or_default()
    }
}

/// Makes a test of each body, a function of [`Programs`] and [`Mode`], for each mode named.
macro_rules! in_each_mode {
    ($($name:ident: $($test:ident $mode:ident),+;)*) => {$(
        mod $name {
            $(
                #[test]
                fn $test() -> anyhow::Result<()> {
                    super::$name(&e2e::Programs::find()?, crate::scene::Mode::$mode)
                }
            )+
        }
    )*};
}
pub(crate) use in_each_mode;

/// Programs whose clients have datagrams.
pub(crate) fn over_datagrams(programs: &Programs) -> Programs {
    programs.clone().over(Transport::Udp)
}

//! What outlives a session: the host, the status, the user and what he wants.

use std::path::PathBuf;

use anyhow::anyhow;
use cipherwall_cli::{Failure, code_of};
use cipherwall_ipc::daemon::{Connect, Reply, Request, State};
use tokio::sync::oneshot;

use super::{Live, Protection, User, Wanted, Wish};
use crate::{cli::coded, profile::Profiles, settings::Settings};

/// The process that keeps tunnels up.
pub(crate) struct Service {
    /// The host.
    pub(crate) protection: Protection,
    /// What front ends are shown.
    pub(crate) live: Live,
    /// Who may want something.
    pub(crate) user: User,
    /// The gateways that this computer knows.
    pub(crate) profiles: Profiles,
    /// The settings.
    pub(crate) config_path: PathBuf,
    /// Whether this process is for one session only, and ends with it.
    pub(crate) foreground: bool,
    /// Those who wait until it is disconnected.
    pub(crate) waiting: Waiting,
}

/// What ends a session, or a rest.
#[derive(Debug)]
pub(crate) enum Order {
    /// To disconnect.
    Disconnect,
    /// To connect, and not as until now.
    Connect(Box<Wanted>),
    /// To end this process, which has nothing to say about the user's wish.
    Quit,
}

/// A front end that waits for an answer.
#[derive(Debug)]
pub(crate) struct Answer(oneshot::Sender<Reply>);

/// Front ends that have asked to disconnect.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    disconnects: Vec<Answer>,
    repairs: Vec<Answer>,
}

impl Waiting {
    /// Tells them how it went.
    pub(crate) fn answer(&mut self, ended: &anyhow::Result<()>, is_lockdown: bool) {
        self.disconnects.drain(..).for_each(|answer| answer.give(ended));
        for answer in self.repairs.drain(..) {
            match ended {
                Ok(()) => {
                    let warnings = is_lockdown.then(|| STAYS_LOCKED.to_owned());
                    let warnings = warnings.into_iter().collect();
                    answer.reply(Reply::Repaired { undone: Vec::new(), warnings });
                }
                Err(error) => answer.fail(error),
            }
        }
    }
}

impl Answer {
    /// An answer, and where it comes out.
    pub(crate) fn channel() -> (Answer, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        (Answer(sender), receiver)
    }

    /// Gives it.
    pub(crate) fn give(self, result: &anyhow::Result<()>) {
        match result {
            Ok(()) => self.reply(Reply::Done),
            Err(error) => self.fail(error),
        }
    }

    /// Tells what went wrong.
    pub(crate) fn fail(self, error: &anyhow::Error) {
        self.reply(failure(error));
    }

    fn reply(self, reply: Reply) {
        // the front end may have gone
        let _ = self.0.send(reply);
    }
}

/// An error, as front ends are told.
pub(crate) fn failure(error: &anyhow::Error) -> Reply {
    Reply::Error { message: format!("{error:#}"), code: code_of(error) }
}

impl Service {
    /// Nothing is done yet.
    pub(crate) fn new(
        protection: Protection,
        live: Live,
        user: User,
        profiles: Profiles,
        config_path: PathBuf,
        foreground: bool,
    ) -> Service {
        let waiting = Waiting::default();
        Service { protection, live, user, profiles, config_path, foreground, waiting }
    }

    /// Waits for the next wish. May be dropped and called again.
    pub(crate) async fn wish(&mut self) -> Wish {
        tokio::select! {
            wish = self.user.wish() => wish,
            () = self.protection.wants_renewal() => Wish::Renew,
        }
    }

    /// Does what can be done in any state; what cannot is the caller's.
    pub(crate) async fn heed(&mut self, wish: Wish) -> Option<Order> {
        let order = match wish {
            // who ends the process that shows the connection does not want it any more
            Wish::Quit if self.foreground => Some(Order::Disconnect),
            Wish::Quit => Some(Order::Quit),
            Wish::Renew => {
                if let Err(error) = self.protection.renew().await {
                    tracing::error!("{error:#}");
                }
                None
            }
            Wish::Request(request, answer) => self.request(request, answer).await,
        };
        self.show();
        order
    }

    async fn request(&mut self, request: Request, answer: Answer) -> Option<Order> {
        let done = match request {
            Request::Disconnect => {
                self.waiting.disconnects.push(answer);
                return Some(Order::Disconnect);
            }
            Request::Repair => {
                self.waiting.repairs.push(answer);
                return Some(Order::Disconnect);
            }
            Request::Connect(connect) => match self.wanted(&connect) {
                Ok(wanted) => {
                    let wanted = Wanted { answer: Some(answer), ..wanted };
                    return Some(Order::Connect(Box::new(wanted)));
                }
                Err(error) => Err(error),
            },
            Request::Lockdown { on } => {
                let allow_lan = self.allow_lan();
                self.protection.set_lockdown(on, allow_lan).await
            }
            Request::Portal { open: true } => self.open_portal().await,
            Request::Portal { open: false } => self.protection.close_portal().await,
            Request::SetSettings(_) => self.settings_have_changed().await,
            Request::Status
            | Request::Watch
            | Request::Quality { .. }
            | Request::Logs { .. }
            | Request::Settings
            | Request::Profiles
            | Request::ChangeProfile(_)
            | Request::RemoveProfile { .. } => Err(anyhow!("this is answered elsewhere")),
        };
        answer.give(&done);
        None
    }

    fn wanted(&self, connect: &Connect) -> anyhow::Result<Wanted> {
        let status = self.live.status();
        let (state, profile) = (status.state, status.profile.unwrap_or_default());
        let rests = matches!(state, State::Disconnected | State::Blocked);
        let settings = Settings::load(&self.config_path).map_err(coded)?;
        let wanted = Wanted::new(connect, &settings, &self.profiles)?;
        // who names options wants another connection with the same gateway
        let names_options = Connect { profile: None, ..connect.clone() } != Connect::default();
        let is_another = wanted.profile.name != profile || names_options;
        if !rests && (self.foreground || !is_another) {
            let profile = if profile.is_empty() { "static mode" } else { &profile };
            let state = state.name();
            return Err(Failure::failed(format!(
                "already {state} with {profile}: cipherwall disconnect ends that connection"
            ))
            .into());
        }
        Ok(wanted)
    }

    async fn open_portal(&mut self) -> anyhow::Result<()> {
        if self.live.status().state == State::Connected {
            return Err(Failure::failed(
                "connected: no captive portal is in the way; if nothing gets through, try again when \
                 `cipherwall status` says reconnecting",
            )
            .into());
        }
        self.protection.open_portal().await
    }

    /// They count from the next connection on; what is blocked without one follows at once.
    async fn settings_have_changed(&mut self) -> anyhow::Result<()> {
        if self.live.status().state != State::Blocked {
            return Ok(());
        }
        let allow_lan = self.allow_lan();
        self.protection.set_allow_lan(allow_lan).await
    }

    /// As the settings say; no, where they cannot be read.
    pub(crate) fn allow_lan(&self) -> bool {
        Settings::load(&self.config_path).is_ok_and(|settings| settings.allow_lan)
    }

    /// Opens the host, or keeps it closed in lockdown. `ended`: how the session did.
    ///
    /// # Errors
    /// Those of the session, or else what could not be undone.
    pub(crate) async fn release(&mut self, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        let allow_lan = self.allow_lan();
        let released = self.protection.release(allow_lan).await;
        self.show();
        match (ended, released) {
            (Ok(()), Err(error)) => Err(error),
            (Err(error), released) => {
                if let Err(also) = released {
                    tracing::error!("{also:#}");
                }
                Err(error)
            }
            (Ok(()), Ok(report)) => {
                super::warn(&report);
                Ok(())
            }
        }
    }

    /// Tells those who wanted to disconnect how it went.
    pub(crate) fn answer_waiting(&mut self, ended: &anyhow::Result<()>) {
        self.waiting.answer(ended, self.protection.is_lockdown());
    }

    /// Shows front ends what the host lets through.
    pub(crate) fn show(&self) {
        self.live.protection(
            self.protection.is_closed(),
            self.protection.is_lockdown(),
            self.protection.portal_left(),
        );
    }
}

/// What `repair` does not undo.
pub(crate) const STAYS_LOCKED: &str = "lockdown is on and stays on: traffic outside of the tunnel \
                                       is blocked until you run: cipherwall lockdown off";

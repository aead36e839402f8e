//! Answers requests: from the status and the files by itself, all others by the engine.

use std::path::PathBuf;

use cipherwall_cli::{Failure, RecentLog};
use cipherwall_ipc::daemon::{self, Quality, Reply, Request};
use tokio::sync::mpsc;

use super::{Answer, Live, service::failure};
use crate::{
    cli::coded,
    profile::{self, Profiles},
    settings::Settings,
};

/// What front ends can ask.
pub(crate) struct Desk {
    pub(crate) live: Live,
    pub(crate) log: RecentLog,
    pub(crate) profiles: Profiles,
    pub(crate) config_path: PathBuf,
    pub(crate) engine: mpsc::Sender<(Request, Answer)>,
}

impl Desk {
    /// The answer to any request but those that have several.
    pub(super) async fn answer(&self, request: Request) -> Reply {
        let answered = match request {
            Request::Status | Request::Watch => Ok(Reply::Status(self.live.status())),
            Request::Quality { after } => {
                Ok(Reply::Quality(Quality { samples: self.live.samples(after) }))
            }
            Request::Settings => self.settings().map(|it| Reply::Settings((&it).into())),
            Request::Profiles => self.profiles().map(Reply::Profiles),
            Request::SetSettings(settings) => self.set_settings(settings).await,
            Request::ChangeProfile(change) => self.change_profile(change).map(|()| Reply::Done),
            Request::RemoveProfile { name } => self.remove_profile(&name).map(|()| Reply::Done),
            Request::Connect(_)
            | Request::Disconnect
            | Request::Repair
            | Request::Lockdown { .. }
            | Request::Portal { .. }
            | Request::Logs { .. } => Ok(self.ask_engine(request).await),
        };
        answered.unwrap_or_else(|error| failure(&error))
    }

    async fn ask_engine(&self, request: Request) -> Reply {
        let (answer, answered) = Answer::channel();
        let asked = self.engine.send((request, answer)).await;
        match answered.await {
            Ok(reply) if asked.is_ok() => reply,
            _ => failure(&Failure::not_reachable("the process is ending; try again").into()),
        }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        Settings::load(&self.config_path).map_err(coded)
    }

    fn profiles(&self) -> anyhow::Result<Vec<daemon::Profile>> {
        profile::shown(&self.profiles, &self.settings()?).map_err(coded)
    }

    async fn set_settings(&self, wanted: daemon::Settings) -> anyhow::Result<Reply> {
        let settings = Settings::try_from(&wanted)?;
        settings.save(&self.config_path).map_err(coded)?;
        Ok(self.ask_engine(Request::SetSettings(wanted)).await)
    }

    fn change_profile(&self, change: daemon::ProfileChange) -> anyhow::Result<()> {
        if change.name.as_ref().is_some_and(|name| *name != change.profile) {
            self.refuse_in_use(&change.profile)?;
        }
        profile::change(change, &self.profiles, &self.config_path)
    }

    fn remove_profile(&self, name: &str) -> anyhow::Result<()> {
        self.refuse_in_use(name)?;
        profile::remove(name, &self.profiles, &self.config_path)
    }

    /// To come back after a loss the profile has to be there.
    fn refuse_in_use(&self, name: &str) -> anyhow::Result<()> {
        if self.live.status().profile.as_deref() == Some(name) {
            return Err(profile::in_use(name));
        }
        Ok(())
    }
}

//! A daemon that changes nothing on its host, for front ends and their tests: it speaks the same
//! messages over the same kind of socket, and goes through the same states.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{Profile, Quality, Reply, Request, Sample, Settings, State, Status};
use crate::{BindError, Connection, Listener};

/// How long a state on the way to another one lasts, unless [`FakeDaemon::set_pace`] says otherwise.
const PACE: Duration = Duration::from_millis(300);

/// Serves a socket until it is dropped.
#[derive(Debug)]
pub struct FakeDaemon {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    status: watch::Sender<Status>,
}

#[derive(Debug)]
struct Inner {
    requests: Vec<Request>,
    failures: VecDeque<Reply>,
    settings: Settings,
    profiles: Vec<Profile>,
    samples: Vec<Sample>,
    log: Vec<String>,
    pace: Duration,
}

impl FakeDaemon {
    /// Serves `path`, as disconnected, with one profile `home`.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub async fn start(path: &Path) -> Result<Self, BindError> {
        let listener = Listener::bind(path).await?;
        let home = Profile {
            name: "home".to_owned(),
            default: true,
            user: "alice".to_owned(),
            login: "invitation".to_owned(),
            ..Profile::default()
        };
        let inner = Inner {
            requests: Vec::new(),
            failures: VecDeque::new(),
            settings: Settings { default_profile: Some(home.name.clone()), ..Settings::default() },
            profiles: vec![home],
            samples: Vec::new(),
            log: vec!["INFO the fake daemon has started".to_owned()],
            pace: PACE,
        };
        let status = watch::Sender::new(Status { allow_lan: true, ..Status::default() });
        let shared = Arc::new(Shared { inner: Mutex::new(inner), status });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self { shared, task })
    }

    /// Ends it. Nobody listens any more when this returns; when one is dropped, a moment later.
    pub async fn stop(mut self) {
        self.task.abort();
        // it was ended on purpose
        let _ = (&mut self.task).await;
    }

    /// What front ends see from now on.
    pub fn set_status(&self, status: Status) {
        self.shared.status.send_replace(status);
    }

    /// The status as front ends see it.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// How long `connecting` and `disconnecting` last.
    pub fn set_pace(&self, pace: Duration) {
        self.shared.inner().pace = pace;
    }

    /// The next request that would change something fails with this.
    pub fn fail_next(&self, message: &str, code: u8) {
        let failure = Reply::Error { message: message.to_owned(), code };
        self.shared.inner().failures.push_back(failure);
    }

    /// What the quality monitor has.
    pub fn set_samples(&self, samples: Vec<Sample>) {
        self.shared.inner().samples = samples;
    }

    /// All requests so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.inner().requests.clone()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, state: State) {
        self.status.send_modify(|status| {
            status.state = state;
            status.protected = state != State::Disconnected;
        });
    }
}

async fn serve(listener: Listener, shared: Arc<Shared>) {
    let mut front_ends = JoinSet::new();
    while let Ok(connection) = listener.accept().await {
        front_ends.spawn(converse(connection, shared.clone()));
        while front_ends.try_join_next().is_some() {}
    }
}

async fn converse(mut connection: Connection, shared: Arc<Shared>) {
    while let Ok(Some(request)) = connection.receive::<Request>().await {
        shared.inner().requests.push(request.clone());
        let mut changes = shared.status.subscribe();
        if request == Request::Watch {
            return watch(&mut connection, &mut changes).await.unwrap_or_default();
        }
        if let Request::Logs { lines, .. } = request {
            let log = shared.inner().log.clone();
            let lines = log[log.len().saturating_sub(lines)..].to_vec();
            if connection.send(&Reply::Log { lines }).await.is_err() {
                return;
            }
        }
        let is_connect = matches!(request, Request::Connect(_));
        let mut work = Box::pin(answer(request, &shared));
        let reply = loop {
            tokio::select! {
                biased;
                Ok(()) = changes.changed(), if is_connect => {
                    let status = changes.borrow_and_update().clone();
                    if connection.send(&Reply::Status(status)).await.is_err() {
                        return;
                    }
                }
                reply = &mut work => break reply,
            }
        };
        if connection.send(&reply).await.is_err() {
            return;
        }
    }
}

/// Until the front end is gone, which is `None`.
async fn watch(connection: &mut Connection, changes: &mut watch::Receiver<Status>) -> Option<()> {
    loop {
        let status = changes.borrow_and_update().clone();
        connection.send(&Reply::Status(status)).await.ok()?;
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            _ = connection.receive::<Request>() => return None,
        }
    }
}

async fn answer(request: Request, shared: &Shared) -> Reply {
    if is_change(&request)
        && let Some(failure) = shared.inner().failures.pop_front()
    {
        return failure;
    }
    let pace = shared.inner().pace;
    match request {
        Request::Status | Request::Watch => Reply::Status(shared.status.borrow().clone()),
        Request::Connect(connect) => {
            let profile = connect.profile.or(shared.inner().settings.default_profile.clone());
            shared.status.send_modify(|status| status.profile = profile);
            shared.enter(State::Connecting);
            tokio::time::sleep(pace).await;
            shared.enter(State::Connected);
            Reply::Done
        }
        Request::Disconnect | Request::Repair => {
            shared.enter(State::Disconnecting);
            tokio::time::sleep(pace).await;
            let rests = shared.status.borrow().lockdown;
            shared.enter(if rests { State::Blocked } else { State::Disconnected });
            if request == Request::Repair {
                return Reply::Repaired { undone: Vec::new(), warnings: Vec::new() };
            }
            Reply::Done
        }
        Request::Lockdown { on } => {
            shared.status.send_modify(|status| status.lockdown = on);
            let state = shared.status.borrow().state;
            match (state, on) {
                (State::Disconnected, true) => shared.enter(State::Blocked),
                (State::Blocked, false) => shared.enter(State::Disconnected),
                (_, _) => {}
            }
            Reply::Done
        }
        Request::Portal { open } => {
            shared.status.send_modify(|status| status.portal_until = open.then_some(u64::MAX));
            Reply::Done
        }
        Request::Quality { after } => {
            let inner = shared.inner();
            let later = inner.samples.iter().filter(|sample| sample.at > after);
            Reply::Quality(Quality { samples: later.take(super::QUALITY_PAGE).copied().collect() })
        }
        Request::Logs { .. } => Reply::Done,
        Request::Settings => Reply::Settings(shared.inner().settings.clone()),
        Request::SetSettings(settings) => {
            shared.inner().settings = settings;
            Reply::Done
        }
        Request::Profiles => Reply::Profiles(shared.inner().profiles.clone()),
        Request::ChangeProfile(change) => change_profile(&mut shared.inner().profiles, change),
        Request::RemoveProfile { name } => {
            shared.inner().profiles.retain(|profile| profile.name != name);
            Reply::Done
        }
    }
}

fn is_change(request: &Request) -> bool {
    match request {
        Request::Status
        | Request::Watch
        | Request::Quality { .. }
        | Request::Logs { .. }
        | Request::Settings
        | Request::Profiles => false,
        Request::Connect(_)
        | Request::Disconnect
        | Request::Repair
        | Request::Lockdown { .. }
        | Request::Portal { .. }
        | Request::SetSettings(_)
        | Request::ChangeProfile(_)
        | Request::RemoveProfile { .. } => true,
    }
}

fn change_profile(profiles: &mut [Profile], change: super::ProfileChange) -> Reply {
    if change.default {
        profiles.iter_mut().for_each(|profile| profile.default = profile.name == change.profile);
    }
    let Some(profile) = profiles.iter_mut().find(|profile| profile.name == change.profile) else {
        return Reply::Error {
            message: format!("there is no profile {:?}", change.profile),
            code: 1,
        };
    };
    if let Some(sni) = change.sni {
        profile.sni = sni;
    }
    if let Some(name) = change.name {
        profile.name = name;
    }
    Reply::Done
}

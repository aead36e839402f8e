//! Talks with front ends: the command line, and the desktop client.

use std::{sync::Arc, time::Duration};

use cipherwall_ipc::{
    Connection, Listener, MESSAGE_MAX, ReceiveError,
    daemon::{Reply, Request},
};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use super::Desk;
use crate::cli::unknown_request;

/// Pause after a failing accept: too many open files, most likely.
const PAUSE: Duration = Duration::from_millis(200);
/// How many front ends are talked with at a time; more wait until one is gone.
const AT_ONCE: usize = 64;
/// How long one may be there and ask nothing: it would take the place of others.
const IDLE: Duration = Duration::from_secs(120);
/// How often those that watch get new figures.
const FIGURES_EVERY: Duration = Duration::from_secs(1);
/// How soon after a change the next one is told.
const CHANGES_APART: Duration = Duration::from_millis(50);
/// How long those that still get an answer are waited for at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The task that accepts front ends.
pub(crate) struct FrontEnds {
    task: JoinHandle<JoinSet<()>>,
    close: oneshot::Sender<()>,
    closing: watch::Sender<bool>,
}

impl FrontEnds {
    /// Answers them from now on.
    pub(crate) fn serve(listener: Listener, desk: Desk) -> FrontEnds {
        let (close, closed) = oneshot::channel();
        let closing = watch::Sender::new(false);
        let task = tokio::spawn(accept(listener, Arc::new(desk), closed, closing.subscribe()));
        FrontEnds { task, close, closing }
    }

    /// Gives the socket up, so that another process can have it; then `answer` what is owed, and
    /// waits a moment until that has been sent.
    pub(crate) async fn close(self, answer: impl FnOnce()) {
        let _ = self.close.send(());
        let conversations = self.task.await;
        answer();
        let _ = self.closing.send(true);
        if let Ok(mut conversations) = conversations {
            let all = async { while conversations.join_next().await.is_some() {} };
            // whoever does not read his answer by then does without
            let _ = timeout(FAREWELL, all).await;
        }
    }
}

async fn accept(
    listener: Listener,
    desk: Arc<Desk>,
    mut closed: oneshot::Receiver<()>,
    closing: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut conversations = JoinSet::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            (accepted, place) = next => match accepted {
                Ok(connection) => {
                    let (desk, closing) = (desk.clone(), closing.clone());
                    conversations.spawn(async move {
                        Conversation { connection, desk, closing }.run().await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a front end");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            _ = &mut closed => return conversations,
        }
        while conversations.try_join_next().is_some() {}
    }
}

struct Conversation {
    connection: Connection,
    desk: Arc<Desk>,
    closing: watch::Receiver<bool>,
}

/// The front end is gone, or sent nonsense.
struct CutOff;

impl Conversation {
    async fn run(mut self) {
        while let Ok(request) = self.next().await {
            let went = if let Request::Logs { lines, follow } = request {
                self.log(lines, follow).await
            } else if matches!(request, Request::Connect(_)) {
                self.connect(request).await
            } else if request == Request::Watch {
                self.watch().await
            } else {
                let reply = self.desk.answer(request).await;
                self.send(&reply).await
            };
            if went.is_err() {
                return;
            }
        }
    }

    /// The next request, unless this process is about to end.
    async fn next(&mut self) -> Result<Request, CutOff> {
        let received = tokio::select! {
            received = self.connection.receive() => received,
            () = tokio::time::sleep(IDLE) => return Err(CutOff),
            _ = self.closing.wait_for(|closing| *closing) => return Err(CutOff),
        };
        match received {
            Ok(Some(request)) => Ok(request),
            Ok(None) => Err(CutOff),
            Err(error) => {
                tracing::debug!(%error, "a front end was cut off");
                if matches!(error, ReceiveError::Malformed(_)) {
                    let _ = self.send(&unknown_request()).await;
                }
                Err(CutOff)
            }
        }
    }

    async fn send(&mut self, reply: &Reply) -> Result<(), CutOff> {
        self.connection.send(reply).await.map_err(|error| {
            tracing::debug!(%error, "a front end was cut off");
            CutOff
        })
    }

    /// Waits until the front end has closed its connection, as one does that only listens.
    async fn gone(connection: &mut Connection) {
        let _ = connection.receive::<Request>().await;
    }

    async fn watch(&mut self) -> Result<(), CutOff> {
        let mut changes = self.desk.live.changes();
        let mut figures = interval(FIGURES_EVERY);
        figures.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            let status = self.desk.live.status();
            if told.as_ref() != Some(&status) {
                self.send(&Reply::Status(status.clone())).await?;
                told = Some(status);
            }
            tokio::time::sleep(CHANGES_APART).await;
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| CutOff)?,
                _ = figures.tick() => {}
                () = Self::gone(&mut self.connection) => return Err(CutOff),
                _ = self.closing.wait_for(|closing| *closing) => return Err(CutOff),
            }
        }
    }

    async fn connect(&mut self, request: Request) -> Result<(), CutOff> {
        let mut changes = self.desk.live.changes();
        let desk = self.desk.clone();
        let mut work = Box::pin(async move { desk.answer(request).await });
        loop {
            tokio::select! {
                reply = &mut work => return self.send(&reply).await,
                changed = changes.changed() => {
                    changed.map_err(|_| CutOff)?;
                    let status = self.desk.live.status();
                    self.send(&Reply::Status(status)).await?;
                }
            }
        }
    }

    async fn log(&mut self, lines: usize, follow: bool) -> Result<(), CutOff> {
        let mut changes = self.desk.log.changes();
        let (mut log, mut at) = self.desk.log.last(lines);
        loop {
            for part in parts(log) {
                self.send(&Reply::Log { lines: part }).await?;
            }
            if !follow {
                return self.send(&Reply::Done).await;
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| CutOff)?,
                () = Self::gone(&mut self.connection) => return Err(CutOff),
                _ = self.closing.wait_for(|closing| *closing) => return Err(CutOff),
            }
            (log, at) = self.desk.log.since(at);
        }
    }
}

/// Each short enough for a message, also where every character has to be escaped.
fn parts(lines: Vec<String>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for line in lines {
        let length = 2 * line.len() + 3;
        match parts.last_mut().filter(|_| length <= room) {
            Some(part) => part.push(line),
            None => {
                room = MESSAGE_MAX - 100;
                parts.push(vec![line]);
            }
        }
        room = room.saturating_sub(length);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_comes_in_parts_that_fit_a_message_each() {
        let lines: Vec<String> =
            (0..1_000).map(|number| format!("{number:04}{}", "\"".repeat(900))).collect();
        let parts = parts(lines.clone());
        for part in &parts {
            let reply = Reply::Log { lines: part.clone() };
            assert!(serde_json::to_string(&reply).expect("JSON").len() < MESSAGE_MAX - 50);
        }
        assert_eq!(parts.concat(), lines);
    }
}

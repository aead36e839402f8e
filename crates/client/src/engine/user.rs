//! Who may want something of the process: front ends, and whoever signals it.

use std::pin::Pin;

use cipherwall_ipc::daemon::Request;
use tokio::sync::mpsc;

use super::Answer;

/// What somebody wants.
#[derive(Debug)]
pub(crate) enum Wish {
    /// The end of this process.
    Quit,
    /// What a front end asks.
    Request(Request, Answer),
    /// The host's settings are not as they should be.
    Renew,
}

/// The front ends, and the signals that end the process.
pub(crate) struct User {
    requests: mpsc::Receiver<(Request, Answer)>,
    /// Until it has resolved.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl User {
    /// `stop` resolves when the process shall end.
    pub(crate) fn new(
        requests: mpsc::Receiver<(Request, Answer)>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> User {
        User { requests, stop: Some(Box::pin(stop)) }
    }

    /// The next wish. May be dropped and called again.
    pub(crate) async fn wish(&mut self) -> Wish {
        let stop = async {
            match &mut self.stop {
                Some(stop) => stop.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop => {
                self.stop = None;
                Wish::Quit
            }
            Some((request, answer)) = self.requests.recv() => Wish::Request(request, answer),
        }
    }
}

//! Where connections are worked on that have not been let in: threads of their own, of low
//! priority.
//!
//! TLS handshakes, the web site and Argon2 are the expensive things that a stranger can ask for.
//! Here they get the processor time that the sessions leave, and a small share of it if there is
//! none. Three parts, so that each can be busy without holding up another:
//!
//! - the *door* accepts connections ([`crate::listener`]);
//! - the *room* serves them until they are let in or leave ([`crate::visitor`]);
//! - sessions run on the gateway's own runtime ([`Lobby::sessions`]).

use std::{future::Future, io, num::NonZero, thread};

use rustix::process::setpriority_process;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Semaphore, SemaphorePermit},
};

/// How nice its threads are: against sessions that take all the time there is, some 10% of a
/// processor for each is left.
const NICE: i32 = 10;
/// How many requests are looked up at a time. Each waits for the database or Argon2 at times.
const ASKING_MAX: usize = 256;

/// The threads for strangers.
pub struct Lobby {
    door: Option<Runtime>,
    room: Option<Runtime>,
    sessions: Handle,
    asking: Semaphore,
}

impl Lobby {
    /// Starts the threads. Sessions are going to run on the current runtime.
    ///
    /// # Errors
    /// No threads can be had.
    pub fn open() -> io::Result<Lobby> {
        // half of the processors, as for sessions
        let threads = thread::available_parallelism().map_or(1, NonZero::get) / 2;
        Ok(Lobby {
            door: Some(runtime("door", 1)?),
            room: Some(runtime("room", threads.max(1))?),
            sessions: Handle::current(),
            asking: Semaphore::new(ASKING_MAX),
        })
    }

    /// Where connections are accepted.
    pub fn door(&self) -> &Handle {
        self.door.as_ref().map_or(&self.sessions, Runtime::handle)
    }

    /// Serves a connection that was not let in yet.
    pub fn spawn(&self, visit: impl Future<Output = ()> + Send + 'static) {
        self.room.as_ref().map_or(&self.sessions, Runtime::handle).spawn(visit);
    }

    /// Where sessions run. What is made in its context, such as a socket, is theirs.
    pub fn sessions(&self) -> &Handle {
        &self.sessions
    }

    /// Waits for a turn to ask accounts and database.
    pub async fn ask(&self) -> Option<SemaphorePermit<'_>> {
        self.asking.acquire().await.ok()
    }
}

impl Drop for Lobby {
    fn drop(&mut self) {
        // by whichever thread has used the gateway last, which may be one of these
        for runtime in [self.door.take(), self.room.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

fn runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .on_thread_start(|| {
            // of this thread alone; to be less important is always allowed
            if let Err(error) = setpriority_process(None, NICE) {
                tracing::debug!(%error, "a thread for strangers is as important as sessions'");
            }
        })
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn strangers_work_is_less_important_also_what_blocks() {
        let lobby = Lobby::open().unwrap();
        let own = getpriority_process(None).unwrap();
        let (tell, told) = oneshot::channel();
        lobby.spawn(async move {
            let here = getpriority_process(None).unwrap();
            let blocking =
                tokio::task::spawn_blocking(|| getpriority_process(None).unwrap()).await.unwrap();
            tell.send([here, blocking]).unwrap();
        });
        assert_eq!(told.await.unwrap(), [NICE; 2]);
        assert_eq!(getpriority_process(None).unwrap(), own, "and nobody else's");
    }

    #[tokio::test]
    async fn it_can_be_closed_from_within() {
        let lobby = std::sync::Arc::new(Lobby::open().unwrap());
        let (tell, told) = oneshot::channel();
        let last = lobby.clone();
        let (go, gone) = oneshot::channel();
        lobby.spawn(async move {
            gone.await.unwrap();
            drop(last);
            tell.send(()).unwrap();
        });
        drop(lobby);
        go.send(()).unwrap();
        told.await.unwrap();
    }
}

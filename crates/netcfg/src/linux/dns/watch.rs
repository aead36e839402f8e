//! Notices when another program writes the resolver file while we are connected: a DHCP client,
//! another VPN, a person.

use std::{fs, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep, sleep_until},
};

use super::{RESOLVER_PATH, resolver_file};
use crate::Error;

/// How long the other program has to finish.
const QUIET: Duration = Duration::from_millis(50);
/// A program that writes the file each time that we do must not keep both busy.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches the resolver file.
#[derive(Debug)]
pub(in crate::linux) struct ResolverWatch {
    inotify: AsyncFd<OwnedFd>,
    /// Something happened to it.
    touched: bool,
    reported_at: Option<Instant>,
}

impl ResolverWatch {
    /// Watches from now on. Needs a tokio runtime.
    pub(in crate::linux) fn open() -> Result<ResolverWatch, Error> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        #[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays the same")]
        // SAFETY: the descriptor is owned by the `AsyncFd`, open and the same until that is dropped.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }
            .map_err(|error| failed(error.into()))?;
        let watch = ResolverWatch { inotify, touched: false, reported_at: None };
        watch.arm().map_err(failed)?;
        Ok(watch)
    }

    /// Waits until the file is not what we wrote any more. May be dropped and called again: what
    /// happened in between is not forgotten.
    pub(in crate::linux) async fn changed(&mut self) {
        loop {
            while !self.touched {
                let Ok(mut ready) = self.inotify.readable().await else {
                    return std::future::pending().await;
                };
                self.touched = touched(ready.get_inner());
                ready.clear_ready();
            }
            sleep(QUIET).await;
            if let Some(at) = self.reported_at {
                sleep_until(at + PAUSE).await;
            }
            // another file may have taken the place of the one that was watched
            self.arm().ok();
            self.touched = false;
            if !resolver_file::is_written_by_us(Path::new(RESOLVER_PATH)) {
                self.reported_at = Some(Instant::now());
                return;
            }
        }
    }

    /// The directory, for files that take the place of ours, and the file itself, which may be
    /// mounted there from another directory.
    fn arm(&self) -> io::Result<()> {
        let path = Path::new(RESOLVER_PATH);
        let dir = path.parent().unwrap_or(Path::new("/"));
        let names = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&self.inotify, dir, names | WatchFlags::ONLYDIR)?;
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            let content = WatchFlags::CLOSE_WRITE | WatchFlags::DONT_FOLLOW;
            inotify::add_watch(&self.inotify, path, content)?;
        }
        Ok(())
    }
}

/// Whether any of the waiting events is about the resolver file; takes them all.
fn touched(inotify: &OwnedFd) -> bool {
    let name = Path::new(RESOLVER_PATH).file_name().map(|name| name.as_encoded_bytes());
    let mut buffer = [MaybeUninit::uninit(); 4_096];
    let mut events = Reader::new(inotify, &mut buffer);
    let mut touched = false;
    while let Ok(event) = events.next() {
        // without a name: the file itself, or events were lost
        touched |= event.file_name().is_none_or(|file| Some(file.to_bytes()) == name);
    }
    touched
}

fn failed(source: io::Error) -> Error {
    Error::ResolverFile { what: "watch", path: RESOLVER_PATH.into(), source }
}

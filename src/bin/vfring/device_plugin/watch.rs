//! Kubelet's directory of device plugins, watched.
//!
//! Owns the inotify watch. It only wakes those who look for themselves, and everything that it tells is also looked for
//! from time to time, so a lost event or a directory that cannot be watched costs seconds and nothing else.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio_stream::StreamExt;

/// Bytes for events: an event with the longest name has 272.
const BUFFER: usize = 4096;

/// The watch.
pub(super) struct Watcher {
    directory: PathBuf,
    stream: Option<EventStream<[u8; BUFFER]>>,
}

impl Watcher {
    pub(super) fn new(directory: PathBuf) -> Watcher {
        let mut watcher = Watcher { directory, stream: None };
        watcher.renew();
        watcher
    }

    /// Watches again if there is no watch: the directory was not there, or it was removed. True if it does now.
    pub(super) fn renew(&mut self) -> bool {
        if self.stream.is_some() {
            return false;
        }
        let mask =
            WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        let watch = || {
            let inotify = Inotify::init()?;
            inotify.watches().add(&self.directory, mask | WatchMask::ONLYDIR)?;
            inotify.into_event_stream([0; BUFFER])
        };
        // Without a watch, changes are found by looking.
        self.stream = watch().ok();
        self.stream.is_some()
    }

    /// Waits until something is made, renamed or removed there; for ever without a watch.
    pub(super) async fn changed(&mut self) {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        let over = EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT;
        match stream.next().await {
            Some(Ok(event)) if !event.mask.intersects(over) => {}
            _ => self.stream = None,
        }
    }
}

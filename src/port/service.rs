//! A control with a thread of its own.
//!
//! The thread services the control every [`PERIOD`] or when the mailbox interrupts; everything else goes through the
//! same lock, for a moment at a time. No data path takes it.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::control::{Control, PortStats};
use super::{Link, Port};
use crate::error::{Error, Result};
use crate::event;
use crate::ring::PortState;

/// How often a control is serviced.
const PERIOD: Duration = Duration::from_millis(100);

/// A [`Control`] that a thread looks after. Dropping it stops the port.
pub struct Service {
    shared: Arc<Watched>,
    thread: Option<JoinHandle<()>>,
}

struct Watched {
    control: Mutex<Option<Control>>,
    stop: AtomicBool,
    /// Wakes the thread: the mailbox's eventfd.
    event: std::os::fd::OwnedFd,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, Option<Control>> {
        // A panic in a caller's closure leaves the control as it was; it can be used on.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    pub(super) fn new(control: Control) -> Result<Service> {
        let event = control.as_fd().try_clone_to_owned().map_err(|e| Error::os("duplicating a port's eventfd", e))?;
        let name = format!("vfring {}", control.name());
        let shared = Arc::new(Watched { control: Mutex::new(Some(control)), stop: AtomicBool::new(false), event });
        let watched = shared.clone();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || watch(&watched))
            .map_err(|e| Error::os("starting a port's service thread", e))?;
        Ok(Service { shared, thread: Some(thread) })
    }

    /// Calls the control, for settings. `act` must not use this service: the control is locked meanwhile.
    ///
    /// # Errors
    /// What `act` returns.
    pub fn with<R>(&self, act: impl FnOnce(&mut Control) -> R) -> R {
        match self.shared.lock().as_mut() {
            Some(control) => act(control),
            None => unreachable!("only `stop` and `drop` take the control, and they consume the service"),
        }
    }

    /// What the queues do at the moment.
    pub fn state(&self) -> PortState {
        self.with(|c| c.state())
    }

    /// The link, as it was seen last.
    pub fn link(&self) -> Link {
        self.with(|c| c.link())
    }

    /// Counters; see [`Control::stats`].
    pub fn stats(&self) -> PortStats {
        self.with(|c| c.stats())
    }

    /// Why the port is still Resetting, as text; see [`Control::trouble`].
    pub fn trouble(&self) -> Option<String> {
        self.with(|c| c.trouble().map(ToString::to_string))
    }

    /// The queues that a reset waits for; see [`Control::waiting_for`].
    pub fn waiting_for(&self) -> Vec<String> {
        self.with(|c| c.waiting_for())
    }

    /// Ends the thread and stops the port; see [`Control::stop`].
    ///
    /// # Errors
    /// As [`Control::stop`].
    pub fn stop(mut self, deadline: Duration) -> Result<Port> {
        match self.end() {
            Some(control) => control.stop(deadline),
            None => unreachable!("only `stop` and `drop` take the control, and they consume the service"),
        }
    }

    fn end(&mut self) -> Option<Control> {
        self.shared.stop.store(true, Ordering::Release);
        event::signal(&self.shared.event);
        if let Some(thread) = self.thread.take() {
            // The thread does nothing that panics; if it did, the control is still ours.
            let _ = thread.join();
        }
        self.shared.lock().take()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.end());
    }
}

fn watch(watched: &Watched) {
    while !watched.stop.load(Ordering::Acquire) {
        if let Some(control) = watched.lock().as_mut() {
            control.service();
        }
        if event::wait(watched.event.as_fd(), PERIOD).is_err() {
            std::thread::sleep(PERIOD);
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with(|c| write!(f, "Service({}, {:?})", c.name(), c.state()))
    }
}

//! One resource kept known to kubelet: a socket that is there, and a registration with the kubelet that is there.
//!
//! Owns both for as long as the resource is configured. It is driven by what is, not by what happened: whenever it looks,
//! it makes the socket if its file is not the one that it made, and registers if kubelet's socket is not the one that it
//! registered with. Kubelet removes all sockets when it starts, before, after or while it is registered with. What wakes
//! it (the watch, the clock) need not be right. What always holds: the socket is served before kubelet is told of it.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use vfring::plugin::Resource;
use vfring::{Error, Result};

use super::answers::Answers;
use super::log::event;
use super::messages::{DevicePluginOptions, Empty, REGISTER, RegisterRequest, VERSION};
use super::rpc::{Routes, call};
use super::shared::Shared;
use super::socket::OwnSocket;

/// How long kubelet may take to answer Register. It dials the plugin first, for which it gives itself 10 s.
const REGISTER_LIMIT: Duration = Duration::from_secs(15);
/// How long kubelet may have no ListAndWatch open before it is registered with again: longer than it takes to dial.
const UNWATCHED_LIMIT: Duration = Duration::from_secs(15);
/// Pauses between attempts that fail.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Looks at sysfs from one look at a socket to the next while all is well: the watch of the directory tells at once, and
/// this is for what it misses.
const LOOKS_BETWEEN: u32 = 4;
/// How long calls that kubelet has begun may take to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// What kubelet is told to call.
pub(super) fn plugin_options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true }
}

/// How many ListAndWatch are open, and since when none has been.
pub(super) struct Streams {
    open: AtomicUsize,
    idle_since: Mutex<Instant>,
}

/// An open ListAndWatch.
pub(super) struct OpenStream(Arc<Streams>);

impl Streams {
    fn new() -> Arc<Streams> {
        Arc::new(Streams { open: AtomicUsize::new(0), idle_since: Mutex::new(Instant::now()) })
    }

    pub(super) fn open(self: &Arc<Streams>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(self))
    }

    /// Begins to wait for kubelet anew.
    fn expect(&self) {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// True when none has been open for longer than kubelet needs.
    fn abandoned(&self) -> bool {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.load(Ordering::Relaxed) == 0 && since.elapsed() > UNWATCHED_LIMIT
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.expect();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A resource that is kept.
pub(super) struct Kept {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Kept {
    pub(super) fn start(shared: &Arc<Shared>, resource: Resource) -> Kept {
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(keep(Arc::clone(shared), resource, stop.subscribe()));
        Kept { stop, task }
    }

    /// Begins to end it; the future waits until the socket is gone and the calls have ended.
    pub(super) fn end(self) -> impl Future<Output = ()> {
        self.stop.send_replace(true);
        async move { drop(self.task.await) }
    }
}

async fn keep(shared: Arc<Shared>, resource: Resource, mut stop: watch::Receiver<bool>) {
    let mut directory = shared.directory.subscribe();
    let mut keeper = Keeper { shared, resource, listener: None, registered: None };
    let mut pause = FIRST_PAUSE;
    loop {
        let wait = tokio::select! {
            settled = keeper.look() => match settled {
                true => {
                    pause = FIRST_PAUSE;
                    keeper.shared.options.interval * LOOKS_BETWEEN
                }
                false => pause,
            },
            _ = stop.wait_for(|stop| *stop) => break,
        };
        tokio::select! {
            () = sleep(wait) => pause = (pause * 2).min(LONGEST_PAUSE),
            changed = directory.changed() => match changed {
                Ok(()) => pause = FIRST_PAUSE,
                Err(_) => break,
            },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    keeper.end().await;
}

struct Keeper {
    shared: Arc<Shared>,
    resource: Resource,
    listener: Option<Listener>,
    /// The kubelet that knows of the socket.
    registered: Option<KubeletIdentity>,
}

/// A socket that is served.
struct Listener {
    socket: OwnSocket,
    endpoint: String,
    streams: Arc<Streams>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Which kubelet it is: its socket's device, inode and time of making. An inode alone is soon used again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KubeletIdentity(u64, u64, i64, i64);

impl KubeletIdentity {
    fn of(socket: &Path) -> Option<KubeletIdentity> {
        let found = fs::metadata(socket).ok()?;
        Some(KubeletIdentity(found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
    }
}

impl Keeper {
    /// Makes what is missing. False when something is still missing.
    async fn look(&mut self) -> bool {
        let (shared, about) = (Arc::clone(&self.shared), format!("socket of {}", self.resource));
        if self.listener.as_ref().is_none_or(|listener| !listener.socket.is_there()) {
            self.registered = None;
            if let Some(lost) = self.listener.take() {
                // Whoever still has a connection to it is a kubelet that is gone.
                lost.stop.send_replace(true);
                event(format_args!("{}: its socket was removed, as kubelet does when it starts", self.resource));
            }
            match Listener::start(&shared, &self.resource).await {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => {
                    shared.troubles.raise(&about, format!("{}: not served: {error}", self.resource));
                    return false;
                }
            }
            shared.troubles.settle(&about);
        }
        let Some(listener) = &self.listener else { return false };
        let kubelet_socket = &shared.options.kubelet_socket;
        let Some(kubelet) = KubeletIdentity::of(kubelet_socket) else {
            self.registered = None;
            // Said once for all resources.
            let text = format!("kubelet is not there: no {}; waiting for it", kubelet_socket.display());
            shared.troubles.raise("kubelet", text);
            return false;
        };
        if self.registered == Some(kubelet) && !listener.streams.abandoned() {
            return true;
        }
        self.registered = None;
        listener.streams.expect();
        match register(kubelet_socket, &listener.endpoint, &self.resource).await {
            Ok(()) => {
                self.registered = Some(kubelet);
                shared.troubles.settle("kubelet");
                shared.metrics.registered(&self.resource);
                event(format_args!("{}: registered with kubelet", self.resource));
            }
            Err(why) => {
                let text =
                    format!("kubelet at {} takes no registration: {why}; trying again", kubelet_socket.display());
                shared.troubles.raise("kubelet", text);
                shared.metrics.registration_failed(&self.resource);
            }
        }
        self.registered.is_some()
    }

    async fn end(self) {
        let Some(listener) = self.listener else { return };
        if let Err(error) = listener.socket.remove() {
            super::log::trouble(format_args!("{}: its socket stays: {error}", self.resource));
        }
        listener.stop.send_replace(true);
        // What is still open after that is cut off with the program.
        let _ = timeout(DRAIN_LIMIT, listener.task).await;
    }
}

async fn register(kubelet: &Path, endpoint: &str, resource: &Resource) -> Result<(), String> {
    let question = RegisterRequest {
        version: VERSION.into(),
        endpoint: endpoint.into(),
        resource_name: resource.to_string(),
        options: Some(plugin_options()),
    };
    call(kubelet, REGISTER, REGISTER_LIMIT, question).await.map(|_: Empty| ())
}

impl Listener {
    async fn start(shared: &Arc<Shared>, resource: &Resource) -> Result<Listener> {
        let path: PathBuf = resource.socket_path(&shared.options.plugin_dir)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let endpoint = name.ok_or_else(|| Error::Config(format!("{} has no name", path.display())))?.to_owned();
        let (socket, incoming) = OwnSocket::bind(path).await?;
        let (streams, stop) = (Streams::new(), watch::Sender::new(false));
        let answers = Answers::new(Arc::clone(shared), resource.clone(), Arc::clone(&streams));
        let routes = Routes::new(Arc::new(answers), stop.subscribe());
        let mut stopped = stop.subscribe();
        let task = tokio::spawn(async move {
            let end = async { drop(stopped.wait_for(|stop| *stop).await) };
            let incoming = UnixListenerStream::new(incoming);
            // Errors of single connections end those; the socket itself cannot fail.
            let _ = Server::builder().serve_with_incoming_shutdown(routes, incoming, end).await;
        });
        Ok(Listener { socket, endpoint, streams, stop, task })
    }
}

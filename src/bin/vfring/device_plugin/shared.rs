//! What all parts of the running plugin share.
//!
//! Owns the pools as the last survey found them. A survey makes new ones and puts them in the place of the old, so that
//! whoever answers kubelet has one moment before it, and waits for no survey.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use vfring::host::Host;
use vfring::plugin::{Pool, Pools, Resource};

use super::log::{Troubles, trouble};
use super::metrics::Metrics;
use super::record::Record;

/// What the command line says.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) host: Host,
    pub(super) config: PathBuf,
    pub(super) prefix: Option<String>,
    pub(super) plugin_dir: PathBuf,
    pub(super) kubelet_socket: PathBuf,
    /// Kubelet's socket for pod-resources.
    pub(super) pod_resources: PathBuf,
    pub(super) info_dir: PathBuf,
    /// Time between two looks at sysfs and at the configuration.
    pub(super) interval: Duration,
}

/// What is shared.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) pools: watch::Sender<Arc<Pools>>,
    /// Changes whenever something happens in kubelet's directory.
    pub(super) directory: watch::Sender<()>,
    pub(super) metrics: Metrics,
    pub(super) troubles: Troubles,
    record: Mutex<Record>,
}

impl Shared {
    pub(super) fn new(options: Options, pools: Pools) -> Shared {
        let (record, why) = Record::open(&options.plugin_dir);
        if let Some(why) = why {
            trouble(why);
        }
        Shared {
            options,
            pools: watch::Sender::new(Arc::new(pools)),
            directory: watch::Sender::new(()),
            metrics: Metrics::new(),
            troubles: Troubles::default(),
            record: Mutex::new(record),
        }
    }

    /// The pools of the last survey.
    pub(super) fn latest(&self) -> Arc<Pools> {
        Arc::clone(&self.pools.borrow())
    }

    /// Works on the record of what was handed out.
    pub(super) fn record<T>(&self, work: impl FnOnce(&mut Record) -> T) -> T {
        work(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The pool of a resource.
pub(super) fn pool_of<'a>(pools: &'a Pools, resource: &Resource) -> Option<&'a Pool> {
    pools.list().iter().find(|pool| pool.resource() == resource)
}

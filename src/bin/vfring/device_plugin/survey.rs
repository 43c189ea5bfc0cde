//! Looks at the configuration and at sysfs, over and over.
//!
//! Owns the configuration, what the last look saw, and the new pools that come of a change. It runs on a thread that may
//! hang in sysfs; the rest of the plugin then goes on with the pools of the last survey. What always holds: a
//! configuration that cannot be read changes nothing, but for the first one, which ends the program.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfring::plugin::{Change, Config, Glance, Health, Inventory, Pools};
use vfring::{PciAddress, Result};

use super::info::InfoFiles;
use super::inspect::long_sockets;
use super::log::{event, trouble};
use super::read;
use super::shared::{Options, Shared};

/// Time between two full scans while nothing seems to change: for what a glance does not see, such as a NUMA node.
const FULL_EVERY: Duration = Duration::from_secs(600);

/// The one who looks.
pub(super) struct Surveyor {
    shared: Arc<Shared>,
    config: Config,
    config_identity: Option<ConfigIdentity>,
    info: InfoFiles,
    /// What was seen at the last look that asked every device whether it answers, and at the last that did not.
    glances: [Option<Glance>; 2],
    asks: bool,
    /// The PFs that the last scan found: a glance sees the names of their interfaces.
    pfs: BTreeSet<PciAddress>,
    last_full: Option<Instant>,
    /// What is selected and not advertised, as it was said.
    omitted: BTreeMap<String, String>,
}

/// Which file the configuration is: device, inode, size, time of change. A ConfigMap changes by a link to another file.
type ConfigIdentity = (u64, u64, u64, i64, i64);

fn config_identity(options: &Options) -> Option<ConfigIdentity> {
    let found = fs::metadata(&options.config).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// The configuration, its problems said, pools with a socket that cannot be made left out.
fn read_config(options: &Options) -> Result<Config> {
    let mut config = read(&options.config, options.prefix.as_deref())?;
    let long: Vec<_> = long_sockets(&config, &options.plugin_dir).collect();
    for problem in config.problems.iter().chain(&long) {
        trouble(problem);
    }
    for pool in &mut config.pools {
        pool.usable &= long.iter().all(|problem| problem.place != pool.place);
    }
    Ok(config)
}

impl Surveyor {
    /// Reads the configuration for the first time.
    pub(super) fn new(options: Options) -> Result<Surveyor> {
        let config_identity = config_identity(&options);
        let config = read_config(&options)?;
        let none = Inventory { candidates: BTreeMap::new(), broken: BTreeMap::new() };
        let pools = Pools::new(&config, &options.host, &none);
        let info = InfoFiles::new(options.info_dir.clone());
        Ok(Surveyor {
            shared: Arc::new(Shared::new(options, pools)),
            config,
            config_identity,
            info,
            glances: [None; 2],
            asks: false,
            pfs: BTreeSet::new(),
            last_full: None,
            omitted: BTreeMap::new(),
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Looks once. `reload` reads the configuration even if its file seems to be the same. False when another look
    /// should come soon.
    pub(super) fn look(&mut self, reload: bool) -> bool {
        let shared = Arc::clone(&self.shared);
        let identity = config_identity(&shared.options);
        let reloaded = (reload || identity != self.config_identity) && self.reload(identity);
        let pools = shared.latest();
        // Every other time: a device that is pulled is missing from the lists too.
        self.asks = !self.asks;
        let devices = pools.list().iter().flat_map(|pool| pool.devices().map(|device| device.address));
        let devices = devices.filter(|_| self.asks);
        let glance = Some(Glance::take(&shared.options.host, self.pfs.iter().copied(), devices));
        let changed = self.glances[usize::from(self.asks)] != glance;
        let due = self.last_full.is_none_or(|last| last.elapsed() >= FULL_EVERY);
        if !(reloaded || changed || due || !pools.is_settled()) {
            return true;
        }
        let began = Instant::now();
        let inventory = match Inventory::scan(&shared.options.host) {
            Ok(inventory) => inventory,
            Err(error) => {
                shared.troubles.raise("scan", error.to_string());
                shared.metrics.scan_failed();
                return false;
            }
        };
        shared.troubles.settle("scan");
        let first = self.last_full.is_none();
        let (pools, changes) = match first || reloaded {
            true => (Pools::new(&self.config, &shared.options.host, &inventory), Vec::new()),
            false => {
                let mut pools = Pools::clone(&pools);
                let changes = pools.update(&inventory);
                (pools, changes)
            }
        };
        shared.metrics.scanned(began.elapsed());
        self.last_full = Some(began);
        self.glances[usize::from(self.asks)] = glance;
        self.pfs = inventory.pfs();
        match first || reloaded {
            true => say_pools(&pools),
            false => say_changes(&pools, &changes),
        }
        self.say_omitted(&pools);
        self.write_info(&pools);
        shared.metrics.follow(&pools);
        let settled = pools.is_settled();
        shared.pools.send_replace(Arc::new(pools));
        settled
    }

    /// Reads the configuration anew; true if it is taken.
    fn reload(&mut self, identity: Option<ConfigIdentity>) -> bool {
        self.config_identity = identity;
        let read = read_config(&self.shared.options);
        self.shared.metrics.reloaded(read.is_ok());
        match read {
            Ok(config) => {
                event(format_args!("configuration {} taken", self.shared.options.config.display()));
                self.shared.troubles.settle("config");
                self.config = config;
                true
            }
            Err(error) => {
                let text = format!("{error}; going on with the configuration from before");
                self.shared.troubles.raise("config", text);
                false
            }
        }
    }

    /// Says what is selected and cannot be handed out, when that changed.
    fn say_omitted(&mut self, pools: &Pools) {
        let all = pools.list().iter().flat_map(|pool| {
            let text = |cause| format!("{}: not advertised: {cause}", pool.resource());
            pool.omitted().iter().map(move |omitted| (omitted.address.to_string(), text(&omitted.cause)))
        });
        let omitted: BTreeMap<String, String> = all.collect();
        for (address, text) in &omitted {
            if self.omitted.get(address) != Some(text) {
                trouble(format_args!("{address}: {text}"));
            }
        }
        self.omitted = omitted;
    }

    fn write_info(&mut self, pools: &Pools) {
        match self.info.follow(pools) {
            Ok(()) => drop(self.shared.troubles.settle("info")),
            Err(error) => {
                let text = format!(
                    "device information for Multus cannot be written to {}: {error}; pods will miss it in their \
                     network-status (--device-info-dir names another directory)",
                    self.info.directory().display()
                );
                self.shared.troubles.raise("info", text);
            }
        }
    }
}

fn say_pools(pools: &Pools) {
    if pools.list().is_empty() {
        trouble("no pool can be served; waiting for another configuration");
    }
    for pool in pools.list() {
        match pool.devices().len() {
            0 => trouble(format_args!("{}: no device yet; `vfring device-plugin explain` says why", pool.resource())),
            1 => event(format_args!("{}: 1 device", pool.resource())),
            n => event(format_args!("{}: {n} devices", pool.resource())),
        }
    }
}

fn say_changes(pools: &Pools, changes: &[(usize, Change)]) {
    for (pool, change) in changes {
        let Some(resource) = pools.list().get(*pool).map(|pool| pool.resource()) else { continue };
        match change {
            Change::Added(address) => event(format_args!("{resource}: {address} is advertised from now on")),
            Change::Health(address, Health::Healthy) => event(format_args!("{resource}: {address} is healthy again")),
            Change::Health(address, Health::Unhealthy(cause)) => {
                trouble(format_args!("{resource}: {address} is unhealthy: {cause}"));
            }
        }
    }
}

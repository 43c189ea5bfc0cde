//! `vfring device-plugin run`: serves the pools of a configuration to kubelet.
//!
//! Owns the loop: surveys on another thread, one after the other; signals; what happens in kubelet's directory. What
//! always holds: it ends when it is told to, and else goes on, with pools that are empty and without kubelet too.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep_until;
use vfring::plugin::Resource;
use vfring::{Error, Result};

use crate::roots;

use super::http::{self, Pages};
use super::keeper::Kept;
use super::log::event;
use super::shared::{Options, Shared};
use super::survey::Surveyor;
use super::watch::Watcher;
use super::{plugin_dir, prefix, process, text, users, value};

/// Where Multus looks for device information.
const DEFAULT_INFO: &str = "/var/run/k8s.cni.cncf.io/devinfo/dp";
/// Where metrics are served: to this host alone.
const DEFAULT_METRICS: &str = "127.0.0.1:9766";
/// Longest pause between two looks while a change is not certain yet.
const SOON: Duration = Duration::from_millis(500);
/// How long a survey may take before the plugin calls itself ill.
const SURVEY_LIMIT: Duration = Duration::from_secs(30);
/// How long kubelet may take to say who has what, within the time that a reader of metrics has.
const USERS_LIMIT: Duration = Duration::from_secs(2);
/// Threads for what reads sysfs: calls of kubelet, and the survey.
const BLOCKING_THREADS: usize = 8;

/// Adds the options.
pub(super) fn options(command: Command) -> Command {
    let interval = "Seconds between two looks at sysfs and at the configuration";
    let kubelet = "Kubelet's own socket [default: kubelet.sock in the directory of device plugins]";
    let metrics = "Address and port for /metrics and /healthz, or off";
    command
        .about("Serve the pools of a configuration to kubelet")
        .after_help("SIGHUP reads the configuration anew, as does a change of its file; SIGTERM ends.")
        .arg(plugin_dir())
        .arg(value("kubelet-socket", "FILE").help(kubelet))
        .arg(
            value("device-info-dir", "DIR")
                .default_value(DEFAULT_INFO)
                .help("Where Multus looks for device information"),
        )
        .arg(users::option())
        .arg(value("metrics", "ADDRESS").default_value(DEFAULT_METRICS).help(metrics))
        .arg(value("interval", "SECONDS").default_value("2").help(interval))
}

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let plugin_dir = PathBuf::from(text(matches, "plugin-dir"));
    let kubelet = matches.get_one::<String>("kubelet-socket");
    let options = Options {
        host: roots::host(matches),
        config: text(matches, "config").into(),
        prefix: prefix(matches),
        kubelet_socket: kubelet.map_or_else(|| plugin_dir.join("kubelet.sock"), PathBuf::from),
        plugin_dir,
        pod_resources: text(matches, "pod-resources").into(),
        info_dir: text(matches, "device-info-dir").into(),
        interval: interval(text(matches, "interval"))?,
    };
    let metrics = match text(matches, "metrics") {
        "off" => None,
        address => Some(address.parse::<SocketAddr>().map_err(|_| {
            Error::Parse(format!("--metrics {address}: no address and port, like {DEFAULT_METRICS}, nor off"))
        })?),
    };
    process::restrict_new_files();
    let surveyor = Surveyor::new(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| Error::os("starting the runtime", error))?;
    let result = runtime.block_on(serve(surveyor, metrics));
    // A survey that hangs in sysfs is left behind.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

fn interval(text: &str) -> Result<Duration> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.01..=60.0).contains(seconds));
    let seconds =
        seconds.ok_or_else(|| Error::Parse(format!("--interval {text}: no number of seconds from 0.01 to 60")))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// What the pages of the HTTP server show.
struct Served {
    shared: Arc<Shared>,
    started: Instant,
    /// When the survey that was begun last was begun, in milliseconds since the start, or [`IDLE`].
    survey: AtomicU64,
}

/// No survey is under way.
const IDLE: u64 = u64::MAX;

impl Pages for Served {
    async fn metrics(&self) -> String {
        let shared = &self.shared;
        let users = users::ask(&shared.options.pod_resources, USERS_LIMIT).await;
        shared.metrics.used(&shared.latest(), users.as_ref().ok());
        match users {
            Ok(_) => drop(shared.troubles.settle("users")),
            Err(why) => shared.troubles.raise("users", format!("no metrics of devices in use: {why}")),
        }
        shared.metrics.text()
    }

    fn health(&self) -> Result<(), String> {
        let began = self.survey.load(Ordering::Relaxed);
        let now = self.started.elapsed();
        match now.checked_sub(Duration::from_millis(began)).filter(|_| began != IDLE) {
            Some(took) if took > SURVEY_LIMIT => Err(format!("sysfs has not answered for {} s", took.as_secs())),
            _ => Ok(()),
        }
    }
}

/// A survey on its way, which gives the surveyor back.
type Survey = JoinHandle<(Surveyor, bool)>;

async fn serve(surveyor: Surveyor, metrics: Option<SocketAddr>) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|error| Error::os("waiting for signals", error));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hup = listen(SignalKind::hangup())?;
    let shared = surveyor.shared();
    let served =
        Arc::new(Served { shared: Arc::clone(&shared), started: Instant::now(), survey: AtomicU64::new(IDLE) });
    if let Some(address) = metrics {
        let bound = http::serve(address, Arc::clone(&served)).await?;
        event(format_args!("metrics at http://{bound}/metrics"));
    }
    let begin = |mut surveyor: Surveyor, reload: bool| -> Survey {
        served.survey.store(u64::try_from(served.started.elapsed().as_millis()).unwrap_or(IDLE), Ordering::Relaxed);
        spawn_blocking(move || {
            let settled = surveyor.look(reload);
            (surveyor, settled)
        })
    };
    let mut watcher = Watcher::new(shared.options.plugin_dir.clone());
    let mut kept: BTreeMap<Resource, Kept> = BTreeMap::new();
    let (mut reload, mut idle, mut next) = (false, None, tokio::time::Instant::now());
    let mut survey = begin(surveyor, false);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => reload = true,
            () = watcher.changed() => shared.directory.send_replace(()),
            done = &mut survey, if idle.is_none() => {
                let (surveyor, settled) = done.map_err(|bug| Error::Config(format!("the survey broke: {bug}")))?;
                served.survey.store(IDLE, Ordering::Relaxed);
                let interval = shared.options.interval;
                next = tokio::time::Instant::now() + if settled { interval } else { interval.min(SOON) };
                idle = Some(surveyor);
                keep(&shared, &mut kept);
            }
            () = sleep_until(next), if idle.is_some() => if let Some(surveyor) = idle.take() {
                survey = begin(surveyor, false);
            },
        }
        if reload && let Some(surveyor) = idle.take() {
            reload = false;
            survey = begin(surveyor, true);
        }
        if watcher.renew() {
            shared.directory.send_replace(());
        }
    }
    event("ending");
    // All at once: each may have to wait for calls.
    let ends: Vec<_> = kept.into_values().map(Kept::end).collect();
    for end in ends {
        end.await;
    }
    Ok(())
}

/// Keeps the resources that there are, and no others.
fn keep(shared: &Arc<Shared>, kept: &mut BTreeMap<Resource, Kept>) {
    let pools = shared.latest();
    let wanted: Vec<&Resource> = pools.list().iter().map(|pool| pool.resource()).collect();
    let gone: Vec<Resource> = kept.keys().filter(|resource| !wanted.contains(resource)).cloned().collect();
    for resource in gone {
        if let Some(kept) = kept.remove(&resource) {
            event(format_args!("{resource}: no longer served"));
            tokio::spawn(kept.end());
        }
    }
    for resource in wanted {
        if !kept.contains_key(resource) {
            kept.insert(resource.clone(), Kept::start(shared, resource.clone()));
        }
    }
}

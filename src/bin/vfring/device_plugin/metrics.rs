//! What the plugin counts, in the format of Prometheus.
//!
//! Owns the names of the metrics and their labels. States are written when the pools change, so reading them costs no
//! look at sysfs; kubelet is asked who has what when they are read.
#![forbid(unsafe_code)]

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use vfring::plugin::{Health, Pools, Resource};

use super::users::Users;

type Labels = Vec<(&'static str, String)>;

/// The metrics.
pub(super) struct Metrics {
    registry: Registry,
    devices: Family<Labels, Gauge>,
    devices_in_use: Family<Labels, Gauge>,
    allocations: Family<Labels, Counter>,
    allocated_devices: Family<Labels, Counter>,
    refusals: Family<Labels, Counter>,
    registrations: Family<Labels, Counter>,
    registration_failures: Family<Labels, Counter>,
    scans: Counter,
    scan_failures: Counter,
    scan_microseconds: Counter,
    reloads: Family<Labels, Counter>,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("vfring"),
            devices: Family::default(),
            devices_in_use: Family::default(),
            allocations: Family::default(),
            allocated_devices: Family::default(),
            refusals: Family::default(),
            registrations: Family::default(),
            registration_failures: Family::default(),
            scans: Counter::default(),
            scan_failures: Counter::default(),
            scan_microseconds: Counter::default(),
            reloads: Family::default(),
        };
        let list = &mut metrics.registry;
        let help = "Devices by state (healthy, unhealthy, omitted) and reason";
        list.register("devices", help, metrics.devices.clone());
        let help = "Devices that containers have, as kubelet says";
        list.register("devices_in_use", help, metrics.devices_in_use.clone());
        list.register("allocations", "Containers that were given devices", metrics.allocations.clone());
        list.register("allocated_devices", "Devices that were given", metrics.allocated_devices.clone());
        list.register("refusals", "Calls of kubelet that were refused, by call", metrics.refusals.clone());
        list.register("registrations", "Registrations with kubelet", metrics.registrations.clone());
        let help = "Registrations that failed";
        list.register("registration_failures", help, metrics.registration_failures.clone());
        list.register("scans", "Full scans of sysfs", metrics.scans.clone());
        list.register("scan_failures", "Scans of sysfs that failed", metrics.scan_failures.clone());
        list.register("scan_microseconds", "Time spent on full scans", metrics.scan_microseconds.clone());
        list.register("reloads", "Configurations that were read, by result", metrics.reloads.clone());
        metrics
    }

    /// All of them as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The state of all devices.
    pub(super) fn follow(&self, pools: &Pools) {
        self.devices.clear();
        for pool in pools.list() {
            let gauge = |state: &str, reason: &str| {
                let labels =
                    vec![("resource", pool.resource().to_string()), ("state", state.into()), ("reason", reason.into())];
                self.devices.get_or_create_owned(&labels)
            };
            // There even while it is 0, so that an alarm can be set on it.
            gauge("healthy", "");
            for device in pool.devices() {
                match device.health() {
                    Health::Healthy => gauge("healthy", "").inc(),
                    Health::Unhealthy(cause) => gauge("unhealthy", cause.label()).inc(),
                };
            }
            for omitted in pool.omitted() {
                gauge("omitted", omitted.cause.label()).inc();
            }
        }
    }

    /// Who has the devices of the resources that are served; none where kubelet does not say.
    pub(super) fn used(&self, pools: &Pools, users: Option<&Users>) {
        self.devices_in_use.clear();
        let Some(users) = users else { return };
        for pool in pools.list() {
            let resource = pool.resource().to_string();
            let used = users.keys().filter(|(of, _)| *of == resource).count();
            self.devices_in_use.get_or_create_owned(&of(pool.resource())).set(i64::try_from(used).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn allocated(&self, resource: &Resource, devices: usize) {
        self.allocations.get_or_create_owned(&of(resource)).inc();
        self.allocated_devices.get_or_create_owned(&of(resource)).inc_by(devices as u64);
    }

    pub(super) fn refused(&self, resource: &Resource, call: &str) {
        let mut labels = of(resource);
        labels.push(("call", call.into()));
        self.refusals.get_or_create_owned(&labels).inc();
    }

    pub(super) fn registered(&self, resource: &Resource) {
        self.registrations.get_or_create_owned(&of(resource)).inc();
    }

    pub(super) fn registration_failed(&self, resource: &Resource) {
        self.registration_failures.get_or_create_owned(&of(resource)).inc();
    }

    pub(super) fn scanned(&self, took: Duration) {
        self.scans.inc();
        self.scan_microseconds.inc_by(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn scan_failed(&self) {
        self.scan_failures.inc();
    }

    pub(super) fn reloaded(&self, good: bool) {
        let result = if good { "taken" } else { "refused" };
        self.reloads.get_or_create_owned(&vec![("result", result.into())]).inc();
    }
}

fn of(resource: &Resource) -> Labels {
    vec![("resource", resource.to_string())]
}

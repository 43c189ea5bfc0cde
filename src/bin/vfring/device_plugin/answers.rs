//! The answers to kubelet's calls for one resource.
//!
//! Owns the way from a message to `vfring::plugin` and back. What always holds: sysfs is read on another thread and for a
//! limited time, so that one device that hangs holds up neither the other calls nor kubelet; a refusal is counted and
//! said.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vfring::plugin::{Health, Pool, Resource, allocate, pre_start, preferred};
use vfring::{Error, Result};

use super::keeper::Streams;
use super::log;
use super::messages::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DeviceIds, DeviceSpec, Empty, HEALTHY,
    ListAndWatchResponse, NumaNode, PreferredAllocationRequest, PreferredAllocationResponse, TopologyInfo, UNHEALTHY,
};
use super::shared::{Shared, pool_of};

/// How long an answer may take. Kubelet itself waits for ever, with the pod and all that come after it.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What answers for one resource.
pub(super) struct Answers {
    shared: Arc<Shared>,
    resource: Resource,
    streams: Arc<Streams>,
}

impl Answers {
    pub(super) fn new(shared: Arc<Shared>, resource: Resource, streams: Arc<Streams>) -> Answers {
        Answers { shared, resource, streams }
    }

    /// All devices now, and again whenever one comes or changes, until `ending` or until kubelet goes.
    pub(super) fn list_and_watch(
        self: Arc<Self>,
        mut ending: watch::Receiver<bool>,
    ) -> ReceiverStream<Result<ListAndWatchResponse, Status>> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _open = self.streams.open();
            let mut pools = self.shared.pools.subscribe();
            let mut last = None;
            loop {
                let list = {
                    let pools = pools.borrow_and_update();
                    ListAndWatchResponse { devices: pool_of(&pools, &self.resource).map(devices).unwrap_or_default() }
                };
                if last.as_ref() != Some(&list) {
                    if sender.send(Ok(list.clone())).await.is_err() {
                        break;
                    }
                    last = Some(list);
                }
                tokio::select! {
                    changed = pools.changed() => if changed.is_err() { break },
                    _ = ending.wait_for(|ending| *ending) => break,
                    () = sender.closed() => break,
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    pub(super) async fn preferred(
        &self,
        question: PreferredAllocationRequest,
    ) -> Result<PreferredAllocationResponse, Status> {
        let work = move |_: &Shared, pool: &Pool| {
            let one = |ask: &super::messages::ContainerPreferredAllocationRequest| {
                let size = usize::try_from(ask.size).unwrap_or(0);
                let chosen = preferred(pool, &ask.available, &ask.must_include, size)?;
                Ok(DeviceIds { ids: chosen.iter().map(ToString::to_string).collect() })
            };
            question.container_requests.iter().map(one).collect::<Result<_>>()
        };
        let container_responses = self.ask("GetPreferredAllocation", work).await?;
        Ok(PreferredAllocationResponse { container_responses })
    }

    pub(super) async fn allocate(&self, question: AllocateRequest) -> Result<AllocateResponse, Status> {
        let work = move |shared: &Shared, pool: &Pool| {
            let mut container_responses = Vec::new();
            for request in &question.container_requests {
                let answer = allocate(pool, &request.ids)?;
                let noted = shared.record(|record| record.note(pool.resource(), &answer.groups));
                match noted {
                    Ok(()) => drop(shared.troubles.settle("record")),
                    Err(error) => shared.troubles.raise(
                        "record",
                        format!(
                            "what is handed out cannot be written down in {}: {error}; groups that change over a restart \
                             will go unnoticed",
                            shared.options.plugin_dir.display()
                        ),
                    ),
                }
                for (address, group) in &answer.groups {
                    log::event(format_args!("{}: allocated {address} (IOMMU group {group})", pool.resource()));
                }
                shared.metrics.allocated(pool.resource(), answer.groups.len());
                let devices = answer.devices.into_iter().map(|node| DeviceSpec {
                    container_path: node.container_path,
                    host_path: node.host_path,
                    permissions: node.permissions.to_owned(),
                });
                container_responses.push(ContainerAllocateResponse {
                    devices: devices.collect(),
                    envs: answer.variables.into_iter().collect(),
                });
            }
            Ok(container_responses)
        };
        let container_responses = self.ask("Allocate", work).await?;
        Ok(AllocateResponse { container_responses })
    }

    pub(super) async fn pre_start(&self, question: DeviceIds) -> Result<Empty, Status> {
        let work = move |shared: &Shared, pool: &Pool| {
            pre_start(pool, &question.ids, &shared.record(|record| record.of(pool.resource())))
        };
        self.ask("PreStartContainer", work).await?;
        Ok(Empty {})
    }

    /// Does `work`, which reads sysfs, where it can hang without harm.
    async fn ask<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl FnOnce(&Shared, &Pool) -> Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let (shared, resource) = (Arc::clone(&self.shared), self.resource.clone());
        let work = tokio::task::spawn_blocking(move || match pool_of(&shared.latest(), &resource) {
            Some(pool) => work(&shared, pool),
            None => Err(Error::Config(format!("{resource} is not in the configuration any more"))),
        });
        let refusal = match tokio::time::timeout(ANSWER_LIMIT, work).await {
            Ok(Ok(Ok(answer))) => return Ok(answer),
            Ok(Ok(Err(error @ Error::Config(_)))) => Status::invalid_argument(error.to_string()),
            Ok(Ok(Err(error))) => Status::failed_precondition(error.to_string()),
            Ok(Err(bug)) => Status::internal(bug.to_string()),
            Err(_) => Status::deadline_exceeded(format!(
                "{}: sysfs did not answer within {} s; `dmesg` may say which device hangs",
                self.resource,
                ANSWER_LIMIT.as_secs()
            )),
        };
        self.shared.metrics.refused(&self.resource, call);
        log::trouble(format_args!("{}: {call} refused: {}", self.resource, refusal.message()));
        Err(refusal)
    }
}

/// The devices of a pool as kubelet wants them.
fn devices(pool: &Pool) -> Vec<Device> {
    let nodes = |node: u32| TopologyInfo { nodes: vec![NumaNode { id: node.into() }] };
    let one = |device: &vfring::plugin::PoolDevice| Device {
        id: device.address.to_string(),
        health: if *device.health() == Health::Healthy { HEALTHY } else { UNHEALTHY }.to_owned(),
        topology: device.numa_node.filter(|_| !pool.config().exclude_topology).map(nodes),
    };
    pool.devices().map(one).collect()
}

//! Who has which device, as kubelet's pod-resources say.
//!
//! Owns the question and what its answer says of devices. It is how a device that came free is known, since kubelet tells
//! a device plugin what it takes and not what it gives back.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::Arg;

use super::messages::{Empty, LIST_PODS, ListPodResourcesResponse};
use super::rpc::call;
use super::value;

/// Where kubelet says who has what.
const DEFAULT_SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// A container.
#[derive(Clone)]
pub(super) struct User {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

/// Who has each device, by resource and id.
pub(super) type Users = BTreeMap<(String, String), User>;

/// The option for kubelet's socket.
pub(super) fn option() -> Arg {
    value("pod-resources", "FILE").default_value(DEFAULT_SOCKET).help("Kubelet's socket for pod-resources")
}

/// Asks kubelet at `socket`, and waits at most `limit` for the answer. An error is one line.
pub(super) async fn ask(socket: &Path, limit: Duration) -> Result<Users, String> {
    let answer: ListPodResourcesResponse = call(socket, LIST_PODS, limit, Empty {}).await.map_err(|why| {
        format!("asking kubelet at {} who has what (--pod-resources names another): {why}", socket.display())
    })?;
    let mut users = Users::new();
    for pod in answer.pods {
        for container in pod.containers {
            let user = User { namespace: pod.namespace.clone(), pod: pod.name.clone(), container: container.name };
            for devices in container.devices {
                let ids = devices.device_ids.into_iter();
                users.extend(ids.map(|id| ((devices.resource_name.clone(), id), user.clone())));
            }
        }
    }
    Ok(users)
}

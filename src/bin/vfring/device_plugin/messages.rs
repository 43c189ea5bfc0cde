//! The messages between kubelet and a device plugin, `v1beta1` of the device plugin API, and those of pod-resources, `v1`.
//!
//! Owns the field numbers, from Kubernetes' `staging/src/k8s.io/kubelet/pkg/apis/{deviceplugin/v1beta1,podresources/v1}/
//! api.proto`; fields that nothing here uses are left out, which protobuf allows.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use prost::Message;

/// The version of the API.
pub(super) const VERSION: &str = "v1beta1";
/// The two states of a device.
pub(super) const HEALTHY: &str = "Healthy";
pub(super) const UNHEALTHY: &str = "Unhealthy";

pub(super) const REGISTER: &str = "/v1beta1.Registration/Register";
pub(super) const OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
pub(super) const LIST_AND_WATCH: &str = "/v1beta1.DevicePlugin/ListAndWatch";
pub(super) const PREFERRED: &str = "/v1beta1.DevicePlugin/GetPreferredAllocation";
pub(super) const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";
pub(super) const PRE_START: &str = "/v1beta1.DevicePlugin/PreStartContainer";
/// Of pod-resources.
pub(super) const LIST_PODS: &str = "/v1.PodResourcesLister/List";

#[derive(Clone, PartialEq, Message)]
pub(super) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DevicePluginOptions {
    #[prost(bool, tag = "1")]
    pub(super) pre_start_required: bool,
    #[prost(bool, tag = "2")]
    pub(super) get_preferred_allocation_available: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RegisterRequest {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    /// The name of the socket's file in kubelet's directory.
    #[prost(string, tag = "2")]
    pub(super) endpoint: String,
    #[prost(string, tag = "3")]
    pub(super) resource_name: String,
    #[prost(message, optional, tag = "4")]
    pub(super) options: Option<DevicePluginOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListAndWatchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) devices: Vec<Device>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Device {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) health: String,
    #[prost(message, optional, tag = "3")]
    pub(super) topology: Option<TopologyInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TopologyInfo {
    #[prost(message, repeated, tag = "1")]
    pub(super) nodes: Vec<NumaNode>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NumaNode {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PreferredAllocationRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) container_requests: Vec<ContainerPreferredAllocationRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerPreferredAllocationRequest {
    #[prost(string, repeated, tag = "1")]
    pub(super) available: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) must_include: Vec<String>,
    #[prost(int32, tag = "3")]
    pub(super) size: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PreferredAllocationResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) container_responses: Vec<DeviceIds>,
}

/// A list of ids: of ContainerPreferredAllocationResponse, ContainerAllocateRequest and PreStartContainerRequest.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeviceIds {
    #[prost(string, repeated, tag = "1")]
    pub(super) ids: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AllocateRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) container_requests: Vec<DeviceIds>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AllocateResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) container_responses: Vec<ContainerAllocateResponse>,
}

/// Without mounts, annotations and CDI devices, of which there are none.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerAllocateResponse {
    #[prost(map = "string, string", tag = "1")]
    pub(super) envs: HashMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) devices: Vec<DeviceSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeviceSpec {
    #[prost(string, tag = "1")]
    pub(super) container_path: String,
    #[prost(string, tag = "2")]
    pub(super) host_path: String,
    #[prost(string, tag = "3")]
    pub(super) permissions: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) pods: Vec<PodResources>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodResources {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerResources {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) devices: Vec<ContainerDevices>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub(super) resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) device_ids: Vec<String>,
}

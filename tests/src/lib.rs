//! Test support for vfring: everything that a test needs and the library must not know.
//!
//! [`bed`] has stations on modelled ports, [`part`] what differs among them. [`build`] builds the examples, [`program`]
//! runs them on this machine, [`documents`] reads what the documents promise. [`vm`] boots a Linux guest with an emulated IOMMU and SR-IOV NICs that
//! nobody here wrote, and connects its NICs to network namespaces of this machine, so that ping, iperf3 and counted frames
//! can pass through a program in it; [`forwarder`] is l2fwd there, [`testpmd`] DPDK's, [`container`] starts containers there. [`kubelet`] is what a device plugin talks to.

pub mod bed;
pub mod build;
pub mod container;
pub mod documents;
pub mod forwarder;
pub mod kubelet;
pub mod part;
pub mod program;
pub mod testpmd;
pub mod vm;

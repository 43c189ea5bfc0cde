//! `vfring device-plugin run` and `status` on fake sysfs trees, against a kubelet of our own and against a client whose
//! gRPC is Google's.
//!
//! All of it over real sockets and with the program as it is installed; what kubelet would see is looked at, and what a
//! pod would be given, byte by byte.

mod bed;
mod calls;
mod faults;
mod life;
mod python;

use vfring::pci::SysfsRoot;

#[path = "../../../src/pci/fake.rs"]
#[allow(dead_code, reason = "unit tests of the crate use more of it")]
mod fake;

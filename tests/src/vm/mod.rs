//! Guests: QEMU (software emulation, no KVM) with a stock Linux kernel, an emulated VT-d IOMMU and `igb` NICs with
//! SR-IOV, so that real VFIO, real IOMMU groups and VFs that nobody here wrote judge the drivers on any machine.
//!
//! `tests/vm/prepare` installs what is needed and makes the kernel and the base initramfs; [`Guest::boot`] calls it.
//! A [`Guest`] is one QEMU process, driven through a shell on a virtio port. Its NICs end in TAP devices that
//! live in network namespaces ([`Netns`]) of this process. [`Testbed`] puts it together the way most tests need it:
//!
//! ```text
//!   namespace A        |            guest                      |        namespace B
//!   10.77.0.1 tapA ----+---- igb PF A - VF A [vfio-pci]        |
//!                      |                      (a forwarder)    |
//!                      |           PF B - VF B [vfio-pci] -----+---- tapB 10.77.0.2
//! ```
//!
//! What always holds:
//!
//! * Nothing outlives the test process: QEMU gets SIGKILL with it, namespaces are anonymous, and TAP devices belong to
//!   file descriptors. No traffic ever leaves a namespace that the test made.
//! * Every wait has a deadline and polls for a condition; a wait that fails prints the end of the guest's console.
//! * One guest at a time on a machine: boots queue up behind a lock, because under emulation two guests on two cores
//!   starve each other. A test that holds a [`Guest`] and boots a second one waits for itself.
//! * A guest that cannot run is an error, never a skipped test.

mod bench;
mod control;
mod cpio;
mod devices;
mod error;
mod guest;
mod host;
mod models;
mod monitor;
mod net;
mod process;
mod qemu;
mod testbed;
mod traffic;
mod vlan;

pub use bench::{Bench, Side};
pub use control::Output;
pub use devices::{memlock_limited, unprivileged};
pub use error::{Error, Result};
pub use guest::{Guest, GuestConfig, GuestFile};
pub use models::{Models, ModelsConfig, Server};
pub use monitor::RegisterWrites;
pub use net::{DeviceCounters, Mac, Netns, PingReport, Tap, TcpReport};
pub use process::Process;
pub use qemu::{Nic, Topology};
pub use testbed::{Binding, Pf, Testbed, TestbedConfig};
pub use traffic::{PacedSender, Received, Receiver, Sent};

use std::time::{Duration, Instant};

/// Asks `condition` every `every` until it yields a value, at least once, and at most until `timeout`.
pub fn poll<T>(
    what: &str,
    timeout: Duration,
    every: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if started.elapsed() >= timeout {
            return Err(Error::new(format!("waited {timeout:?} for {what}")));
        }
        std::thread::sleep(every);
    }
}

//! **vfring** drives SR-IOV virtual functions from user space: what DPDK does for a packet-processing program, as a
//! Rust library.
//!
//! A virtual function (VF) that is bound to `vfio-pci` is mapped into the process; its descriptor rings lie in
//! hugepages, and the program polls them: received packets come as bursts of [`PacketBuf`] handles to memory that the
//! device wrote, and are sent from the same memory, without a copy and without a system call.
//!
//! # A forwarder
//!
//! ```
//! use vfring::{Burst, DeviceSpec, Mempool, Port, PortConfig, Started};
//!
//! # fn main() -> vfring::Result<()> {
//! // "0000:3b:02.1" on hardware; here a model of the same device with a generator on its wire.
//! let spec: DeviceSpec = "sim:igbvf?wire=gen".parse()?;
//! let port = Port::open(&spec, PortConfig::new())?;
//! let pool = Mempool::builder().buffers(4096).on(&[&port])?;
//! let Started { control, mut rx, mut tx } = port.start(&pool)?;
//! let service = control.spawn()?;
//! let (mut cache, mut burst) = (pool.cache(), Burst::new());
//! let mut forwarded = 0;
//! while forwarded < 1000 {
//!     rx[0].burst(&mut cache, &mut burst);
//!     for packet in &mut burst {
//!         packet[..12].rotate_left(6); // swap the MAC addresses
//!     }
//!     forwarded += tx[0].burst(&mut cache, &mut burst);
//!     cache.free(&mut burst); // what did not fit the ring
//! }
//! drop((rx, tx));
//! service.stop(std::time::Duration::from_secs(1))?;
//! # Ok(())
//! # }
//! ```
//!
//! # Who owns what
//!
//! * A [`PacketBuf`] is the only owner of its buffers. It may outlive its pool and its port.
//! * A [`PoolCache`] belongs to a thread, and so does each queue: both are passed as `&mut`.
//! * [`Control`] (or the [`Service`] that runs it) is what notices a reset of the PF, a link that goes down and a device
//!   that is pulled, and it recovers by itself where that is possible. Queues only return 0 meanwhile.
//! * No safe call can make the device write outside the memory of pools and rings, and that memory outlives the
//!   device's use of it, whatever the program drops first.
//!
//! # What to read
//!
//! One packet's whole life is in three files: `src/ring/rx.rs` and `tx.rs` (the rings), `desc.rs` in
//! `drivers/igbvf`, `ixgbevf` or `iavf` (the NIC's descriptors), `src/mem/pool.rs` (where buffers come from and go to).
#![deny(missing_docs)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("vfring needs 64-bit Linux: it is built on VFIO and hugepages");

#[cfg(not(any(feature = "iavf", feature = "igbvf", feature = "ixgbevf")))]
compile_error!("vfring without a driver can do nothing: enable a feature of `iavf`, `igbvf` and `ixgbevf`");

mod addr;
mod cpu;
#[path = "../drivers/mod.rs"]
pub mod drivers;
mod error;
mod event;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
#[cfg(feature = "plugin")]
pub mod host;
mod mem;
mod mmio;
pub mod pci;
#[cfg(feature = "plugin")]
pub mod plugin;
mod pod;
mod port;
mod ring;
mod spec;
mod sync;
mod vfio;

pub use addr::{Iova, MacAddr, PciAddress};
pub use cpu::widest_vectors;
pub use drivers::{AnyRx, AnyTx, Forward, Started};
pub use error::{Error, Result};
pub use mem::{
    Burst, Checksum, DEFAULT_BURST, DEFAULT_DATA_ROOM, DmaTarget, Drain, HEADROOM, HugeRegion, L4, MAX_BURST, Mempool,
    MempoolBuilder, PacketBuf, PacketType, Pages, PoolCache, RxInfo, TxInfo,
};
pub use mmio::PciId;
pub use pod::{HugepageLimit, PodDevices};
pub use port::{
    Control, Counters, DEFAULT_MTU, DEFAULT_RING, Link, Port, PortConfig, PortInfo, PortStats, Rss, RssCaps, Service,
};
pub use ring::{
    Forwarded, Frame, PortState, RxFormat, RxQueue, RxQueueStats, TxFormat, TxQueue, TxQueueStats, Verdict,
};
pub use spec::{DeviceSpec, SimSpec};

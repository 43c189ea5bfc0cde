//! The device side: software models of VFs, the PF behind them and the wires, in this process.
//!
//! The models exist so that every program and test runs on any machine, and so that faults can be rehearsed. They are
//! written from the hardware fact sheets only and share no constant with a driver. They check the driver: device access outside a
//! mapping, a tail past the armed range, a descriptor that the datasheet forbids and many more are *violations*, kept
//! with the seed and the last register accesses ([`World::violations`]); the shared world also prints them.
//!
//! Programs open models by spec: `sim:igbvf?wire=gen&size=60`, `sim:igbvf?wire=pair:a`, `sim:igbvf?wire=tap:tap0`. Tests make
//! a [`World::stepped`], whose time is virtual, add ports to it, and open them by [`World::spec`].
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `part` | `82576` (two queues) or `i350` (one) | `82576` |
//! | `mac` | address that the PF assigns, or `none` | the next of 02:56:46:00:00:01 … |
//! | `mac_fixed` | `1`: the PF refuses another address | `0` |
//! | `rss` | `1`: the PF spreads frames over the queues | `0` |
//! | `wire` | `sink`, `gen`, `pair:NAME`, `pair:/PATH` (to another process), `tap:IFNAME`, `pcap` | `sink` |
//! | `size`, `rate`, `flows` | of `gen`: bytes without FCS, frames a second (0: as fast as the ring takes), UDP flows | 60, 0, 1 |
//! | `loopback` | of `pair:NAME`: `1`: both are VFs of one PF | `0` |
//! | `in`, `out`, `loop` | of `pcap`: file of frames to receive, file for frames sent, `1`: receive again and again | |

mod bus;
mod dma;
mod env;
mod fault;
mod frame;
mod igb;
mod model;
mod offload;
#[cfg(feature = "pcap")]
mod pcap;
mod rng;
#[cfg(feature = "vfio-user")]
pub mod serve;
mod socket;
mod spec;
mod tap;
#[cfg(test)]
mod tests;
mod trace;
mod vectors;
mod wire;
mod world;

pub use fault::Fault;
pub use igb::{IgbOptions, Part};
pub use wire::WireCounters;
pub use world::{PortId, World};

pub(crate) use spec::open;

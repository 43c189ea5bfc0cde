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
//! | key of any model | meaning | default |
//! |---|---|---|
//! | `mac` | address that the PF assigns, or `none` | the next of 02:56:46:00:00:01 … |
//! | `wire` | `sink`, `gen`, `pair:NAME`, `pair:/PATH` (to another process), `tap:IFNAME`, `pcap` | `sink` |
//! | `size`, `rate`, `flows` | of `gen`: bytes without FCS, frames a second (0: as fast as the ring takes), UDP flows | 60, 0, 1 |
//! | `loopback` | of `pair:NAME`: `1`: both are VFs of one PF | `0` |
//! | `in`, `out`, `loop` | of `pcap`: file of frames to receive, file for frames sent, `1`: receive again and again | |
//!
//! | key of `sim:igbvf` | meaning | default |
//! |---|---|---|
//! | `part` | `82576` (two queues) or `i350` (one) | `82576` |
//! | `mac_fixed` | `1`: the PF refuses another address | `0` |
//! | `rss` | `1`: the PF spreads frames over the queues | `0` |
//! | `lenient` | `1`: the driver may leave head write-back to the PF, and relaxed ordering of write-backs as it is | `0` |
//!
//! | key of `sim:ixgbevf` | meaning | default |
//! |---|---|---|
//! | `part` | `82599` or `x540` (the PF's RSS), `x550` or `e610` (the VF's own) | `x550` |
//! | `queues` | queues that the PF grants: 1, 2, 4 or 8; Linux's driver needs 2 | `4` |
//! | `api` | highest mailbox API of the PF: `1.0` to `1.7` | `1.7` |
//! | `mac_fixed` | `1`: the PF refuses another address, unless `trust=1` | `0` |
//! | `trust` | `1`: the host trusts the VF | `0` |
//! | `pf_promisc` | `1`: the PF is promiscuous, so that a trusted VF may be | `0` |
//! | `query_rss` | `1`: the VF may read the RSS key and table of the PF (82599, X540) | `0` |
//! | `jumbo` | `1`: the MTU of the PF is above 1500, which decides over a VF's on an 82599 | `0` |
//! | `tcs` | traffic classes of the port: 0, 4 or 8, each with one queue | `0` |
//! | `port_vlan` | VLAN that the host put the VF in, whose tag frames on the wire carry; 0: none | `0` |
//! | `mc_filter` | which bits of an address index the multicast table: 0 to 3 | `0` |
//!
//! | key of `sim:iavf` | meaning | default |
//! |---|---|---|
//! | `part` | `xl710` or `x722` (an i40e PF answers), `e810` (an ice PF answers) | `e810` |
//! | `queues` | queue pairs that the PF grants at first, 1 to 16 | 4; `e810`: 16 |
//! | `mac_fixed` | `1`: the host set the address: no other unicast address, unless `trust=1` | `0` |
//! | `trust` | `1`: the host trusts the VF: promiscuity, no limits on filters | `0` |
//! | `double_vlan` | `1`: double-VLAN mode of an ice PF: outer tags in L2TAG2 | `0` |
//! | `large_queues` | `1`: an ice PF grants LARGE_NUM_QPAIRS, and with it the V2 queue messages | `0` |
//! | `in_tree` | `1`: the PF's driver is the upstream kernel's, else Intel's own | `0` |
//! | `rxdids` | receive descriptor profiles that an ice PF offers, a bit each | 1, 2 and 22 |
//! | `batched` | `1`: write-backs wait for company unless a vector has WB_ON_ITR or an interrupt | `0` |

mod adv;
mod avf;
mod bench;
mod bus;
mod dma;
mod env;
mod fault;
mod frame;
mod igb;
mod ixgbe;
mod model;
mod offload;
mod pages;
#[cfg(feature = "pcap")]
mod pcap;
mod ring;
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

pub use avf::{AvfOptions, AvfPart};
pub use bench::BenchQueue;
pub use fault::Fault;
pub use igb::{IgbOptions, Part};
pub use ixgbe::{IxgbeOptions, IxgbePart};
pub use wire::WireCounters;
pub use world::{PortId, World};

pub(crate) use spec::open;

//! The seam between a world and the models in it: what a VF of any family does for its ports, wires and drivers.
//!
//! A model is called under the lock of its world, for every register access of its driver and in steps. Only its
//! doorbells are reached without the lock: cells that the threads of queues store to and that the model samples
//! before it looks at anything else. What always holds: a model touches device memory through [`Env`] alone, and
//! says through [`Model::violate`] what its driver did wrong.
#![forbid(unsafe_code)]

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::avf::{AvfOptions, AvfVf};
#[cfg(feature = "vfio-user")]
use memmap2::MmapRaw;

use super::bench::Lent;
use super::env::Env;
use super::fault::Fault;
use super::igb::{Igb, IgbOptions, IgbVf};
use super::ixgbe::{Ixgbe, IxgbeOptions, IxgbeVf};
use crate::addr::MacAddr;
use crate::error::Result;
use crate::mmio::PciId;

/// What became of a frame that arrived for the VF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is in receive buffers.
    Taken,
    /// The PF's switch does not pass it to this VF.
    Filtered,
    /// No queue runs, too few descriptors are armed, or the link is down.
    Dropped,
}

/// What the VF makes of a frame that it is sent many times: found out once, used for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// The receive queue that it goes to.
    pub(super) queue: usize,
    /// Bits that its last descriptor is written back with, besides length, completion and end of packet: the model's own.
    pub(super) words: [u64; 4],
}

/// The registers of a model that queue threads write without the lock.
pub(super) trait Cells: Any + Send + Sync {
    /// The cell of a register, where it has one.
    fn of(&self, offset: u32) -> Option<&AtomicU32>;
    /// The cell of a queue's tail.
    fn tail(&self, tx: bool, queue: usize) -> &AtomicU32;
}

/// Takes a frame that a VF sends: its bytes (empty when they were not asked for) and its length.
pub(super) type Emit<'a> = dyn FnMut(&mut Env, &[u8], usize) + 'a;

/// One VF with the PF behind it.
pub(super) trait Model: Send {
    /// Vendor and device id.
    fn id(&self) -> PciId;
    /// Bytes of BAR0.
    fn bar_len(&self) -> u32;
    /// MSI-X vectors of the function.
    fn vectors(&self) -> usize;
    /// Queues in each direction.
    fn queues(&self) -> usize;
    /// The station address that the PF filters by.
    fn mac(&self) -> MacAddr;

    /// A read by the driver.
    fn read(&mut self, offset: u32, env: &mut Env) -> u32;
    /// A write by the driver.
    fn write(&mut self, offset: u32, value: u32, env: &mut Env);
    /// The doorbells that the present driver gets.
    fn cells(&self) -> Arc<dyn Cells>;
    /// Puts the pages of BAR0 that are plain memory into `bar`, a map of zeroes as long as the BAR, and returns their offsets.
    /// A model without such pages does nothing.
    #[cfg(feature = "vfio-user")]
    fn share_pages(&mut self, _bar: &Arc<MmapRaw>) -> &'static [u32] {
        &[]
    }
    /// Connects vector i to `eventfds[i]`; none: MSI-X is off.
    fn connect_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<()>;
    /// Function-level reset by the driver.
    fn function_reset(&mut self, env: &mut Env);
    /// The Bus Master bit.
    fn bus_master(&self) -> bool;
    /// The driver writes the command register.
    fn set_bus_master(&mut self, on: bool);
    /// The driver closed the device: as a reset by the kernel.
    fn close(&mut self, env: &mut Env);
    /// True while an enabled queue, or anything else that the device reads and writes by itself, lies in these IOVAs.
    fn has_ring_within(&self, start: u64, end: u64) -> bool;

    /// Everything but frames: doorbells, the channel to the PF, timers, late write-backs. True when anything happened.
    fn step(&mut self, env: &mut Env) -> bool;
    /// Sends up to `limit` frames of a transmit queue; how many went.
    fn transmit(&mut self, queue: usize, limit: usize, need_bytes: bool, env: &mut Env, emit: &mut Emit<'_>) -> usize;
    /// A frame arrives for the VF.
    fn receive(&mut self, frame: &[u8], env: &mut Env) -> Arrival;
    /// True when a frame like this would reach the VF now.
    fn accepts(&self, frame: &[u8]) -> bool;
    /// True while frames can reach the VF, and each receive queue that runs could take one of `len` bytes now.
    #[cfg(feature = "pcap")]
    fn takes(&self, len: usize) -> bool;

    /// Finds out what to do with an untagged frame that the VF is sent many times.
    fn prepare(&self, frame: &[u8]) -> Prepared;
    /// Changes whenever [`prepare`](Self::prepare) may answer differently from before.
    fn generation(&self) -> u64;
    /// True while other receive queues are enabled and this one is not.
    fn left_out(&self, queue: usize) -> bool;
    /// True when a receive queue could take a frame of `len` bytes now.
    fn has_room(&self, queue: usize, len: usize) -> bool;
    /// Puts a prepared frame into its queue, past the switch; the caller signals [`received`](Self::received) once
    /// a batch.
    fn place(&mut self, frame: &[u8], prepared: &Prepared, env: &mut Env) -> bool;
    /// Lends a queue pair to a benchmark, which fills its receive ring with this frame. None when it does not run, or is lent.
    fn lend(&mut self, queue: usize, frame: &[u8]) -> Option<Lent>;
    /// Signals a batch of placed frames.
    fn received(&mut self, queue: usize);

    /// Link up or down.
    fn set_link(&mut self, up: bool, env: &mut Env);
    /// Frames come from, and go to, VFs of the same PF.
    fn set_loopback(&mut self, loopback: bool);
    /// The PF goes into reset: everything in the VF is lost.
    fn pf_reset(&mut self, env: &mut Env);
    /// The PF is back.
    fn pf_reset_done(&mut self, env: &mut Env);
    /// Misbehave.
    fn set_fault(&mut self, fault: Fault, env: &mut Env);
    /// Behave.
    fn clear_faults(&mut self);
    /// Register accesses by drivers so far.
    fn accesses(&self) -> u64;
    /// Sets every counter so that it wraps soon.
    fn preset_counters(&mut self, value: u32);
    /// Records what the driver did wrong.
    fn violate(&self, env: &mut Env, what: &str);
}

/// Which model, and what it is like.
pub(super) enum Options {
    /// 82576 or I350.
    Igb(IgbOptions),
    /// 82599, X540, X550 or E610.
    Ixgbe(IxgbeOptions),
    /// Adaptive VF.
    Avf(AvfOptions),
}

impl Options {
    /// The model's name in a spec.
    pub(super) fn model(&self) -> &'static str {
        match self {
            Options::Igb(_) => "igbvf",
            Options::Ixgbe(_) => "ixgbevf",
            Options::Avf(_) => "iavf",
        }
    }

    /// The VF at port `port` of its world, known as `name`.
    pub(super) fn build(self, port: usize, name: String, env: &mut Env) -> Box<dyn Model> {
        match self {
            Options::Igb(options) => Box::new(IgbVf::new(port, name, Igb::new(options), env)),
            Options::Ixgbe(options) => Box::new(IxgbeVf::new(port, name, Ixgbe::new(options), env)),
            Options::Avf(options) => Box::new(AvfVf::new(port, name, options, env)),
        }
    }
}

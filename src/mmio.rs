//! The seam to hardware: registers, doorbells and the [`Bus`] that a driver's control path is written against.
//!
//! A `Bus` is one opened function: the kernel's vfio-pci, or a model in this process. Everything a driver does
//! outside its rings goes through it, time included, so that a model can advance a virtual clock on every register
//! access and every pause: a test of a 40 s deadline takes microseconds. The fast path never sees a `Bus`; it holds
//! ring memory and a [`Doorbell`].
//!
//! Nothing here is public: a safe register write in a user's hands could point a ring at memory that the program
//! owns. What always holds: no reference to a BAR is kept, every access is one aligned 32-bit load or store, and a
//! read that cannot be made returns all ones, which every driver takes for "gone".

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::addr::Iova;
use crate::error::Result;
use crate::mem::HugeRegion;

/// What a read of a device that is no longer there returns.
pub(crate) const ALL_ONES: u32 = u32::MAX;

/// The byte offset of a 32-bit register in BAR0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reg(pub(crate) u32);

/// PCI vendor and device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// Vendor id; 0x8086 is Intel.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
}

impl std::fmt::Display for PciId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// One opened function, as a driver's control path sees it.
///
/// Deadlines are measured with [`now`](Bus::now) and waits made with [`pause`](Bus::pause), never with the clock of
/// the system.
pub(crate) trait Bus: Send {
    /// The device as its spec prints, for messages.
    fn name(&self) -> &str;
    /// Vendor and device id.
    fn id(&self) -> PciId;
    /// The NUMA node that the device is attached to, where the system says.
    fn numa_node(&self) -> Option<u32>;
    /// True for a software model, which needs no hugepages.
    fn is_model(&self) -> bool;
    /// Length of BAR0 in bytes.
    fn bar_len(&self) -> u32;

    /// Reads a register; all ones when the offset is out of range or the device is gone.
    fn read32(&mut self, register: Reg) -> u32;
    /// Writes a register; ignored when the offset is out of range.
    fn write32(&mut self, register: Reg, value: u32);
    /// The doorbell of a register, for use by the thread that owns a queue.
    fn doorbell(&mut self, register: Reg) -> Result<Doorbell>;

    /// Lets the device read and write the whole region, and returns where the device sees its first byte.
    ///
    /// The bus keeps the region alive until it is unmapped or the bus is dropped. Mapping a region twice counts;
    /// a region shared by several devices of one container is mapped once.
    fn map_dma(&mut self, region: &Arc<HugeRegion>) -> Result<Iova>;
    /// Takes back one `map_dma` of the region. The caller has reset the device or stopped every queue that uses it.
    fn unmap_dma(&mut self, region: &Arc<HugeRegion>) -> Result<()>;

    /// How many MSI-X vectors the function has.
    fn vectors(&self) -> u32;
    /// Connects vector i to `eventfds[i]`, all in one call; an empty slice disables MSI-X.
    fn connect_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<()>;

    /// Function-level reset. `Ok(false)` when the function has no reset method.
    fn reset_function(&mut self) -> Result<bool>;
    /// Reads the Bus Master bit.
    fn bus_master(&mut self) -> Result<bool>;
    /// Sets the Bus Master bit (and Memory Space, which reset may clear).
    fn set_bus_master(&mut self, on: bool) -> Result<()>;
    /// True once the kernel reported an error of the device or asked for its release.
    fn removal_requested(&mut self) -> bool;

    /// Monotonic time since an arbitrary start.
    fn now(&self) -> Duration;
    /// Waits at least `time`.
    fn pause(&mut self, time: Duration);
}

/// What a [`Bus`] with nothing behind it answers, inside its `impl`: tests and fuzzing make a device of what they care for.
#[cfg(any(fuzzing, test))]
macro_rules! nothing_behind {
    () => {
        fn numa_node(&self) -> Option<u32> {
            None
        }
        fn is_model(&self) -> bool {
            true
        }
        fn vectors(&self) -> u32 {
            0
        }
        fn connect_vectors(&mut self, _: &[std::os::fd::BorrowedFd<'_>]) -> $crate::error::Result<()> {
            Ok(())
        }
        fn bus_master(&mut self) -> $crate::error::Result<bool> {
            Ok(true)
        }
        fn set_bus_master(&mut self, _: bool) -> $crate::error::Result<()> {
            Ok(())
        }
        fn removal_requested(&mut self) -> bool {
            false
        }
    };
}
#[cfg(any(fuzzing, test))]
pub(crate) use nothing_behind;

/// A register that a queue's own thread writes: a tail, or an interrupt mask.
///
/// On hardware it is the mapped register; in a model it is a cell of its own, sampled by the model. The owner keeps
/// the mapping alive for as long as any doorbell into it exists.
pub(crate) struct Doorbell {
    cell: NonNull<AtomicU32>,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: `cell` points into memory that `_owner` keeps mapped, `_owner` is Send and Sync, and the only access made
// through `cell` is an atomic store.
unsafe impl Send for Doorbell {}

impl Doorbell {
    /// Makes a doorbell of a register or cell.
    ///
    /// # Safety
    /// `cell` must be 4-byte aligned and stay valid for atomic stores for as long as `owner` lives.
    pub(crate) unsafe fn new(cell: NonNull<AtomicU32>, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Doorbell { cell, _owner: owner }
    }

    /// Writes the register after every earlier store to ring memory: one release store.
    #[inline(always)]
    pub(crate) fn ring(&self, value: u32) {
        // SAFETY: `new` demands that the cell be valid for atomic stores while `_owner` lives, which we hold. The
        // reference lasts for this one store; a type with interior mutability carries no dereferenceable promise.
        unsafe { self.cell.as_ref() }.store(value, Ordering::Release);
    }
}

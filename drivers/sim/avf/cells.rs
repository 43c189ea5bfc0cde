//! What the threads of queues write without the world's lock: the tails and DYN_CTLN.
//!
//! The tails are laid out as the two BAR pages that hold them (0x0000 and 0x2000). Nothing else in these pages has an effect
//! when it is accessed (the second half of page 2 is ITRN, which is not modelled beyond its value), so a driver may
//! be given the pages themselves. A tail is a level: the model looks at its value, not at the write. A write to DYN_CTLN
//! acts, so its cells hold a value that no driver writes until one did.
#![forbid(unsafe_code)]

use std::array;
#[cfg(feature = "vfio-user")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(feature = "vfio-user")]
use memmap2::MmapRaw;

use super::super::model::Cells;
use super::super::pages::Page;
use super::regs;

/// Most vectors besides vector 0 that the model has (iavf 2.2: up to 64).
pub(super) const QUEUE_VECTORS_MAX: usize = 64;
/// "Nothing was written": has bits that a DYN_CTL register does not.
const NOTHING: u32 = u32::MAX;

/// Every doorbell of a VF.
pub(super) struct Doorbells {
    /// Page 0.
    tx: Page,
    /// Page 2.
    rx: Page,
    control: [AtomicU32; QUEUE_VECTORS_MAX],
}

impl Doorbells {
    pub(super) fn new() -> Self {
        Doorbells::of(Page::new(), Page::new())
    }

    /// Doorbells in the two pages of a shared BAR; none when it is shorter.
    #[cfg(feature = "vfio-user")]
    pub(super) fn within(bar: &Arc<MmapRaw>) -> Option<Self> {
        Some(Doorbells::of(Page::within(bar, 0)?, Page::within(bar, regs::QRX_TAIL as usize)?))
    }

    fn of(tx: Page, rx: Page) -> Self {
        Doorbells { tx, rx, control: array::from_fn(|_| AtomicU32::new(NOTHING)) }
    }

    /// The register at an offset of the BAR that lies in one of the two pages.
    pub(super) fn plain(&self, offset: u32) -> Option<&AtomicU32> {
        match offset {
            0..regs::PAGE => Some(self.tx.at(offset as usize)),
            regs::QRX_TAIL..regs::QRX_PAGE_END => Some(self.rx.at((offset - regs::QRX_TAIL) as usize)),
            _ => None,
        }
    }

    /// Takes what was written to DYN_CTLN(`vector`), if anything was.
    #[inline]
    pub(super) fn take_control(&self, vector: usize) -> Option<u32> {
        let cell = &self.control[vector];
        if cell.load(Ordering::Relaxed) == NOTHING {
            return None;
        }
        Some(cell.swap(NOTHING, Ordering::AcqRel)).filter(|&value| value != NOTHING)
    }
}

impl Cells for Doorbells {
    fn of(&self, offset: u32) -> Option<&AtomicU32> {
        match offset {
            regs::DYN_CTLN..=regs::DYN_CTLN_LAST => Some(&self.control[(offset - regs::DYN_CTLN) as usize / 4]),
            regs::ITRN.. => None,
            _ => self.plain(offset),
        }
    }

    #[inline]
    fn tail(&self, tx: bool, queue: usize) -> &AtomicU32 {
        if tx { self.tx.at(4 * queue) } else { self.rx.at(4 * queue) }
    }
}

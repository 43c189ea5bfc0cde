//! What the threads of queues write without the world's lock: the tails and DYN_CTLN.
//!
//! The tails are laid out as the two BAR pages that hold them (0x0000 and 0x2000). Nothing else in these pages has an effect
//! when it is accessed (the second half of page 2 is ITRN, which is not modelled beyond its value), so a driver may
//! be given the pages themselves. A tail is a level: the model looks at its value, not at the write. A write to DYN_CTLN
//! acts, so its cells hold a value that no driver writes until one did.
#![forbid(unsafe_code)]

use std::array;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::model::Cells;
use super::regs;

/// Most vectors besides vector 0 that the model has (iavf 2.2: up to 64).
pub(super) const QUEUE_VECTORS_MAX: usize = 64;
/// "Nothing was written": has bits that a DYN_CTL register does not.
const NOTHING: u32 = u32::MAX;

/// A page of the BAR that is plain memory.
#[repr(C, align(4096))]
pub(super) struct Page([AtomicU32; regs::PAGE as usize / 4]);

impl Page {
    fn new() -> Self {
        Page(array::from_fn(|_| AtomicU32::new(0)))
    }

    /// The register at a byte offset of the page; the tail of queue q is at 4 q.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> &AtomicU32 {
        &self.0[offset / 4]
    }

    /// The tail of a queue.
    #[inline]
    pub(super) fn tail(&self, queue: usize) -> &AtomicU32 {
        &self.0[queue]
    }
}

/// Every doorbell of a VF.
pub(super) struct Doorbells {
    /// Page 0.
    pub(super) tx: Page,
    /// Page 2.
    pub(super) rx: Page,
    control: [AtomicU32; QUEUE_VECTORS_MAX],
}

impl Doorbells {
    pub(super) fn new() -> Self {
        Doorbells { tx: Page::new(), rx: Page::new(), control: array::from_fn(|_| AtomicU32::new(NOTHING)) }
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
}

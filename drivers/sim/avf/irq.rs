//! Interrupts of the avf model: DYN_CTL, ICR01 and the MSI-X vectors (fact sheet iavf 2.2, 4.6, 7.1).
//!
//! Vector 0 is the admin queue's, vector v > 0 belongs to DYN_CTLN(v-1) and to the queues that the PF mapped to it. A vector
//! fires once, when something happened and INTENA is set, and clears INTENA. What happens while it is clear is pending until
//! INTENA is set again, unless that write clears the pending bit: who does so must look at its rings afterwards.
//! Throttling is not modelled.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use super::super::vectors::Vectors;
use super::regs;
use crate::error::Result;

/// Interrupt registers and connected vectors.
pub(super) struct Irq {
    vectors: Vectors,
    /// DYN_CTL01, then the DYN_CTLN.
    control: Vec<u32>,
    pending: Vec<bool>,
    pub(super) icr: u32,
    pub(super) icr_ena: u32,
    pub(super) stat_ctl: u32,
    pub(super) itr0: [u32; 3],
}

/// A throttling register that a write of DYN_CTL sets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Throttle {
    pub(super) vector: usize,
    pub(super) index: usize,
    pub(super) interval: u32,
}

impl Irq {
    pub(super) fn new(count: usize) -> Self {
        Irq {
            vectors: Vectors::new(count),
            control: vec![0; count],
            pending: vec![false; count],
            icr: 0,
            icr_ena: 0,
            stat_ctl: 0,
            itr0: [0; 3],
        }
    }

    pub(super) fn connect(&mut self, name: &str, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        self.vectors.connect(name, eventfds)
    }

    /// What a reset leaves: registers at their defaults. The vectors are the kernel's and stay.
    pub(super) fn reset(&mut self) {
        self.control.fill(0);
        self.pending.fill(false);
        (self.icr, self.icr_ena, self.stat_ctl, self.itr0) = (0, 0, 0, [0; 3]);
    }

    /// DYN_CTL of a vector.
    pub(super) fn control(&self, vector: usize) -> Option<u32> {
        self.control.get(vector).copied()
    }

    /// Writes DYN_CTL of a vector that exists; the throttling register that this sets, if it does.
    pub(super) fn write_control(&mut self, vector: usize, value: u32) -> Option<Throttle> {
        let keep = if value & regs::CTL_INTENA_MSK != 0 { self.control[vector] & regs::CTL_INTENA } else { 0 };
        let taken = if value & regs::CTL_INTENA_MSK != 0 { value & !regs::CTL_INTENA } else { value };
        let acts = regs::CTL_CLEARPBA | regs::CTL_SWINT_TRIG | regs::CTL_SW_ITR_INDX_ENA | regs::CTL_INTENA_MSK;
        self.control[vector] = (taken & !acts) | keep;
        // A message of the PF is not lost to CLEARPBA: drivers set it for vector 0 and may not look again (iavf 4.6).
        if value & regs::CTL_CLEARPBA != 0 && vector > 0 {
            self.pending[vector] = false;
        }
        if value & regs::CTL_SWINT_TRIG != 0 {
            if vector == 0 {
                self.icr |= regs::ICR_SWINT;
            }
            self.pending[vector] = true;
        }
        self.fire(vector);
        let index = value >> 3 & 3;
        (index != regs::ITR_NONE).then_some(Throttle { vector, index: index as usize, interval: value >> 5 & 0xfff })
    }

    /// Something happened that this vector reports.
    #[inline]
    pub(super) fn event(&mut self, vector: usize) {
        if let Some(pending) = self.pending.get_mut(vector) {
            *pending = true;
            self.fire(vector);
        }
    }

    /// A queue that is mapped to vector 0 had an event.
    pub(super) fn queue_event_on_0(&mut self) {
        self.icr |= regs::ICR_INTEVENT;
        self.event(0);
    }

    /// A message arrived in the ARQ.
    pub(super) fn adminq_event(&mut self) {
        self.icr |= regs::ICR_ADMINQ;
        if self.icr_ena & regs::ICR_ADMINQ != 0 {
            self.event(0);
        }
    }

    /// A write of ICR0_ENA1; a cause that waited interrupts now.
    pub(super) fn enable_causes(&mut self, value: u32) {
        self.icr_ena = value;
        if self.icr & value & regs::ICR_ADMINQ != 0 {
            self.event(0);
        }
    }

    /// A read of ICR01, which clears it.
    pub(super) fn read_causes(&mut self) -> u32 {
        std::mem::take(&mut self.icr)
    }

    /// True when this vector makes the device write completed descriptors back: an interrupt is enabled, or
    /// WB_ON_ITR stands in for one.
    #[inline]
    pub(super) fn writes_back(&self, vector: usize) -> bool {
        self.control.get(vector).is_some_and(|c| c & (regs::CTL_INTENA | regs::CTL_WB_ON_ITR) != 0)
    }

    fn fire(&mut self, vector: usize) {
        if self.pending[vector] && self.control[vector] & regs::CTL_INTENA != 0 && self.vectors.signal(vector) {
            self.pending[vector] = false;
            self.control[vector] &= !regs::CTL_INTENA;
        }
    }
}

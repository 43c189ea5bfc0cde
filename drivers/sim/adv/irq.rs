//! Interrupts: causes, masks and the three MSI-X vectors as eventfds (fact sheets igbvf 2.1, 7.1;
//! ixgbevf 2.1, 7.1).
//!
//! A cause bit is a vector number. A message goes out when a cause is set while unmasked, and when a pending cause is
//! unmasked; EIAC then clears the cause and EIAM masks it. Throttling (EITR) is not modelled.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use super::super::vectors::Vectors;
use super::family::{CAUSES, QUEUES_MAX, VECTORS};
use crate::error::Result;

/// Valid bit of an IVAR byte.
const IVAR_VALID: u32 = 0x80;

/// Interval bits of EITR (ixgbevf 2.1).
const EITR_INTERVAL: u32 = 0xff8;

/// Interrupt registers and connected vectors.
pub(super) struct Irq {
    pub(super) eicr: u32,
    pub(super) eims: u32,
    pub(super) eiac: u32,
    pub(super) eiam: u32,
    pub(super) eitr: [u32; VECTORS],
    /// One word for two queues.
    pub(super) ivar: [u32; QUEUES_MAX / 2],
    pub(super) ivar_misc: u32,
    vectors: Vectors,
}

impl Irq {
    pub(super) fn new() -> Self {
        Irq {
            eicr: 0,
            eims: 0,
            eiac: 0,
            eiam: 0,
            eitr: [0; VECTORS],
            ivar: [0; QUEUES_MAX / 2],
            ivar_misc: 0,
            vectors: Vectors::new(VECTORS),
        }
    }

    /// Connects vector i to a duplicate of `eventfds[i]`.
    pub(super) fn connect(&mut self, name: &str, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        self.vectors.connect(name, eventfds)
    }

    /// What a function reset leaves: registers at their defaults. The vectors are the kernel's and stay.
    pub(super) fn reset(&mut self) {
        let vectors = std::mem::replace(&mut self.vectors, Vectors::new(0));
        *self = Irq { vectors, ..Irq::new() };
    }

    /// An event of receive (`tx` false) or transmit queue `queue`: IVAR bytes are Rx and Tx of an
    /// even queue, Rx and Tx of the next.
    #[inline]
    pub(super) fn queue_event(&mut self, queue: usize, tx: bool) {
        let byte = (self.ivar[queue / 2] >> (16 * (queue as u32 & 1) + 8 * tx as u32)) & 0xff;
        self.event(byte);
    }

    /// True when the interrupts of a transmit queue are moderated.
    pub(super) fn moderates(&self, queue: usize) -> bool {
        let byte = self.ivar[queue / 2] >> (16 * (queue as u32 & 1) + 8);
        byte & IVAR_VALID != 0 && self.eitr.get((byte & 3) as usize).is_some_and(|eitr| eitr & EITR_INTERVAL != 0)
    }

    /// A mailbox event.
    pub(super) fn misc_event(&mut self) {
        self.event(self.ivar_misc & 0xff);
    }

    #[inline]
    fn event(&mut self, ivar: u32) {
        if ivar & IVAR_VALID != 0 {
            self.raise(1 << (ivar & 3) & CAUSES);
        }
    }

    /// Sets causes, and sends the messages of those that are unmasked.
    #[inline]
    pub(super) fn raise(&mut self, causes: u32) {
        self.eicr |= causes & CAUSES;
        self.deliver(causes & self.eims);
    }

    /// Unmasks causes; those that are pending send their message now.
    pub(super) fn unmask(&mut self, causes: u32) {
        self.eims |= causes & CAUSES;
        self.deliver(self.eicr & causes & CAUSES);
    }

    /// A read of EICR: returns and clears; EIAM masks what was set.
    pub(super) fn read_causes(&mut self) -> u32 {
        let causes = std::mem::take(&mut self.eicr);
        self.eims &= !(causes & self.eiam);
        causes
    }

    #[inline]
    fn deliver(&mut self, causes: u32) {
        if causes == 0 {
            return;
        }
        for vector in (0..VECTORS).filter(|v| causes & 1 << v != 0) {
            // With MSI-X off no message is sent, so nothing is cleared or masked by it.
            if !self.vectors.signal(vector) {
                continue;
            }
            self.eicr &= !(self.eiac & 1 << vector);
            self.eims &= !(self.eiam & 1 << vector);
        }
    }
}

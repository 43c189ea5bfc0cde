//! Vectors of an igb or ixgbe virtual function: which cause raises which, and when they are masked.
//!
//! Owns no state; a family's layout names the registers, which do the same on both under other names. What always holds:
//! receive vectors are routed with auto-clear and auto-mask and left masked, and the queue's thread unmasks its own with
//! one write of [`arm_doorbell`](Function::arm_doorbell) each time before it sleeps; the mailbox's vector is unmasked at
//! the start and stays so.
#![forbid(unsafe_code)]

use super::function::Function;
use crate::error::Result;
use crate::mmio::{Bus, Doorbell, Reg};
use crate::port::device::{MAILBOX_VECTOR, RingPlan};

/// MSI-X vectors, and cause bits in every register of causes (fact sheets igbvf 1, 2.1, ixgbevf 1, 2.1).
pub(crate) const VECTORS: u16 = 3;
/// One cause bit for each vector.
pub(crate) const ALL_CAUSES: u32 = (1 << VECTORS) - 1;
/// Registers of routes, per byte: the entry is valid (fact sheets igbvf 2.1, ixgbevf 2.1).
pub(crate) const IVAR_VALID: u32 = 1 << 7;

/// Where a family has its registers of causes.
#[derive(Clone, Copy)]
pub(crate) struct Interrupts {
    /// Mask set: writing a cause bit unmasks the vector.
    pub(crate) eims: Reg,
    /// Mask clear: writing a cause bit masks the vector.
    pub(crate) eimc: Reg,
    /// Causes that are cleared when their message is sent.
    pub(crate) eiac: Reg,
    /// Causes that are masked when their message is sent.
    pub(crate) eiam: Reg,
    /// Causes. Reading clears them.
    pub(crate) eicr: Reg,
    /// Vectors of the queues 2n and 2n + 1: one byte each for Rx 2n, Tx 2n, Rx 2n + 1, Tx 2n + 1.
    pub(crate) ivar: fn(u16) -> Reg,
    /// Vector of the mailbox.
    pub(crate) ivar_misc: Reg,
    /// Interrupt throttle of a vector.
    pub(crate) eitr: fn(u16) -> Reg,
}

impl<B: Bus> Function<B> {
    /// Masks every vector and drops what is pending (fact sheets igbvf 5.1 step 1, ixgbevf 3.5 step 1).
    pub(crate) fn mask_interrupts(&mut self) {
        let Interrupts { eimc, eiac, eiam, eicr, .. } = self.layout.interrupts;
        self.write(eimc, ALL_CAUSES);
        self.write(eiac, 0);
        self.write(eiam, 0);
        self.bus.read32(eicr);
    }

    /// Routes the receive queues that have a vector, and the mailbox.
    pub(crate) fn start_interrupts(&mut self, rx: &[RingPlan]) -> Result<()> {
        let Interrupts { eims, eiac, eiam, eicr, ivar, ivar_misc, eitr, .. } = self.layout.interrupts;
        let vectors = rx.iter().filter_map(|ring| ring.vector.map(|vector| (ring.queue, vector)));
        let (mut routes, mut rx_causes) = (vec![0; self.queues().len().div_ceil(2)], 0);
        for (queue, vector) in vectors {
            self.check_number("receive queue", queue, self.caps.rx_queues)?;
            self.check_number("vector", vector, VECTORS)?;
            if let Some(register) = routes.get_mut(usize::from(queue / 2)) {
                *register |= (IVAR_VALID | u32::from(vector)) << (16 * (queue % 2));
            }
            rx_causes |= 1 << vector;
        }
        let mailbox_cause = 1 << MAILBOX_VECTOR;
        for (n, routes) in (0..).zip(routes) {
            self.write(ivar(n), routes);
        }
        self.write(ivar_misc, IVAR_VALID | u32::from(MAILBOX_VECTOR));
        for vector in 0..VECTORS {
            // No throttle: a vector fires once and is masked until its thread wants the next one.
            self.write(eitr(vector), 0);
        }
        self.bus.read32(eicr);
        self.write(eiac, rx_causes | mailbox_cause);
        self.write(eiam, rx_causes & !mailbox_cause);
        self.write(eims, mailbox_cause);
        self.flush()
    }

    /// What unmasks a vector: the register, and the value to write.
    pub(crate) fn arm_doorbell(&mut self, vector: u16) -> Result<(Doorbell, u32)> {
        self.check_number("vector", vector, VECTORS)?;
        Ok((self.bus.doorbell(self.layout.interrupts.eims)?, 1 << vector))
    }
}

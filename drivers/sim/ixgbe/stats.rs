//! The statistics registers: 32 and 36 bits, wrapping, never cleared (fact sheet ixgbevf 2.5).
//!
//! Reading the low half of an octet counter does not hold the high half: whether hardware does is not known, so a driver
//! must not count on it.
#![forbid(unsafe_code)]

use super::super::frame::FCS;
use super::regs;

/// The octet counters have this many bits.
const OCTETS: u64 = (1 << 36) - 1;

/// Free-running counters.
#[derive(Default)]
pub(super) struct Stats {
    gprc: u32,
    gorc: u64,
    mprc: u32,
    gptc: u32,
    gotc: u64,
}

impl Stats {
    /// The counter at an offset, if there is one.
    pub(super) fn read(&self, offset: u32) -> Option<u32> {
        Some(match offset {
            regs::VFGPRC => self.gprc,
            regs::VFGORC_LSB => self.gorc as u32,
            regs::VFGORC_MSB => (self.gorc >> 32) as u32,
            regs::VFMPRC => self.mprc,
            regs::VFGPTC => self.gptc,
            regs::VFGOTC_LSB => self.gotc as u32,
            regs::VFGOTC_MSB => (self.gotc >> 32) as u32,
            _ => return None,
        })
    }

    /// Sets every counter; the upper bits of the octet counters are set too.
    pub(super) fn preset(&mut self, value: u32) {
        (self.gprc, self.mprc, self.gptc) = (value, value, value);
        (self.gorc, self.gotc) = (0xf << 32 | value as u64, 0xf << 32 | value as u64);
    }

    /// Counts a received frame of `len` bytes without FCS.
    pub(super) fn received(&mut self, len: usize, multicast: bool) {
        self.gprc = self.gprc.wrapping_add(1);
        self.gorc = (self.gorc + (len + FCS) as u64) & OCTETS;
        if multicast {
            self.mprc = self.mprc.wrapping_add(1);
        }
    }

    /// Counts a sent frame.
    pub(super) fn sent(&mut self, len: usize) {
        self.gptc = self.gptc.wrapping_add(1);
        self.gotc = (self.gotc + (len + FCS) as u64) & OCTETS;
    }
}

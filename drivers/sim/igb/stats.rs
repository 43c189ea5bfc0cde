//! The statistics registers: 32 bits, wrapping, never cleared by a read (fact sheet igbvf 2.4).
#![forbid(unsafe_code)]

use super::super::frame::FCS;
use super::regs;

/// The nine counters in the order of [`regs::STATS`].
#[derive(Default)]
pub(super) struct Stats([u32; 9]);

// Positions in `regs::STATS`.
const GPRC: usize = 0;
const GPTC: usize = 1;
const GORC: usize = 2;
const GOTC: usize = 3;
const MPRC: usize = 4;
const GPRLBC: usize = 5;
const GPTLBC: usize = 6;
const GORLBC: usize = 7;
const GOTLBC: usize = 8;

impl Stats {
    /// The counter at an offset, if there is one.
    pub(super) fn read(&self, offset: u32) -> Option<u32> {
        regs::STATS.iter().position(|&o| o == offset).map(|i| self.0[i])
    }

    /// Sets every counter, so that tests see them wrap.
    pub(super) fn preset(&mut self, value: u32) {
        self.0 = [value; 9];
    }

    fn add(&mut self, packets: usize, octets: usize, len: usize) {
        self.0[packets] = self.0[packets].wrapping_add(1);
        self.0[octets] = self.0[octets].wrapping_add((len + FCS) as u32);
    }

    /// Counts a received frame of `len` bytes without FCS; totals include loopback.
    pub(super) fn received(&mut self, len: usize, multicast: bool, loopback: bool) {
        self.add(GPRC, GORC, len);
        if multicast {
            self.0[MPRC] = self.0[MPRC].wrapping_add(1);
        }
        if loopback {
            self.add(GPRLBC, GORLBC, len);
        }
    }

    /// Counts a sent frame.
    pub(super) fn sent(&mut self, len: usize, loopback: bool) {
        self.add(GPTC, GOTC, len);
        if loopback {
            self.add(GPTLBC, GOTLBC, len);
        }
    }
}

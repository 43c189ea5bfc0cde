//! Statistics registers that wrap, extended to 64 bits.
//!
//! Owns the arithmetic; a family owns the registers, their order and their widths, and decides when a reading may be
//! trusted. What always holds: a total never goes back, neither over a wrap nor over a reset of the registers that was
//! announced by `rebase`.
#![forbid(unsafe_code)]

/// `N` counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals<const N: usize> {
    bits: [u32; N],
    last: [u64; N],
    total: [u64; N],
}

impl<const N: usize> Totals<N> {
    /// Counters of registers with so many bits each, at most 63.
    pub(crate) fn new(bits: [u32; N]) -> Self {
        Totals { bits, last: [0; N], total: [0; N] }
    }

    /// Adds what was counted since the last reading; at most one wrap may lie between.
    pub(crate) fn sample(&mut self, now: [u64; N]) {
        for (((total, last), now), bits) in self.total.iter_mut().zip(&mut self.last).zip(now).zip(self.bits) {
            *total += now.wrapping_sub(*last) & ((1 << bits) - 1);
            *last = now;
        }
    }

    /// Goes on from registers that started anew, without adding.
    pub(crate) fn rebase(&mut self, now: [u64; N]) {
        self.last = now;
    }

    /// The totals.
    pub(crate) fn get(&self) -> [u64; N] {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_wraps_at_its_own_width() {
        let mut totals = Totals::new([32, 36]);
        totals.rebase([0xFFFF_FFFF, 0xF_FFFF_FFFE]);
        totals.sample([1, 3]);
        assert_eq!(totals.get(), [2, 5]);
        totals.sample([1, 0x1_0000_0003]);
        assert_eq!(totals.get(), [2, 0x1_0000_0005]);
        totals.rebase([0, 0]);
        totals.sample([7, 8]);
        assert_eq!(totals.get(), [9, 0x1_0000_000D]);
    }
}

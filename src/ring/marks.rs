//! Marks: the positions of a transmit ring's descriptors that report, oldest first.
//!
//! Owns their order. What always holds: there are at most [`MARKS`] of them, which the queue sees to by what each covers, and no
//! access can leave the array.
#![forbid(unsafe_code)]

/// Most marks of a ring: a power of two.
pub(super) const MARKS: usize = 128;

/// A queue of ring positions. A mark covers at least `mark_step` descriptors, so it never overflows.
pub(super) struct Marks {
    positions: [u32; MARKS],
    /// Counts of marks that were taken and put; their low bits say where.
    taken: u32,
    put: u32,
}

impl Marks {
    pub(super) fn new() -> Marks {
        Marks { positions: [0; MARKS], taken: 0, put: 0 }
    }

    #[inline(always)]
    pub(super) fn first(&self) -> Option<u32> {
        if self.taken == self.put { None } else { Some(self.positions[self.taken as usize % MARKS]) }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, position: u32) {
        self.positions[self.put as usize % MARKS] = position;
        self.put = self.put.wrapping_add(1);
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }

    pub(super) fn clear(&mut self) {
        self.taken = self.put;
    }
}

//! The memory of one descriptor ring, as atomics.
//!
//! Descriptors are arrays of 64-bit little-endian words that the device reads and writes at any time, so every access
//! is an atomic load or store: on x86-64 the same instructions as volatile ones, and a thread may play the device
//! without a data race. What always holds: the words lie inside a region that this object keeps alive.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mem::HugeRegion;

/// Words of 64 bits, shared with the device.
pub(crate) struct Descriptors {
    words: NonNull<AtomicU64>,
    count: usize,
    region: Arc<HugeRegion>,
}

// SAFETY: the words are atomics in memory that `region`, itself Send and Sync, keeps mapped.
unsafe impl Send for Descriptors {}

impl Descriptors {
    /// `count` words at `offset` in the region; `None` when they do not lie inside it, 8-byte aligned.
    pub(crate) fn new(region: Arc<HugeRegion>, offset: usize, count: usize) -> Option<Descriptors> {
        let end = count.checked_mul(8).and_then(|bytes| offset.checked_add(bytes))?;
        if end > region.len() || !offset.is_multiple_of(8) {
            return None;
        }
        let at = std::ptr::with_exposed_provenance_mut::<AtomicU64>(region.addr() + offset);
        Some(Descriptors { words: NonNull::new(at)?, count, region })
    }

    pub(crate) fn region(&self) -> &Arc<HugeRegion> {
        &self.region
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The ring's words for a loop to keep in a register. Used only while `self` lives.
    #[inline(always)]
    pub(crate) fn words(&self) -> Words {
        Words(self.words)
    }

    /// As [`Words::load`].
    ///
    /// # Safety
    /// `index` is below the count of words.
    #[inline(always)]
    pub(crate) unsafe fn load(&self, index: usize) -> u64 {
        debug_assert!(index < self.count);
        // SAFETY: the caller's contract, and `self` lives.
        unsafe { self.words().load(index) }
    }

    /// Loads a word; what the device wrote before it is visible afterwards.
    ///
    /// # Safety
    /// `index` is below the count of words.
    #[inline(always)]
    pub(crate) unsafe fn load_acquire(&self, index: usize) -> u64 {
        debug_assert!(index < self.count);
        // SAFETY: the caller's contract, and `self` lives.
        u64::from_le(unsafe { self.words().word(index) }.load(Ordering::Acquire))
    }

    /// As [`Words::store`].
    ///
    /// # Safety
    /// `index` is below the count of words.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, index: usize, value: u64) {
        debug_assert!(index < self.count);
        // SAFETY: the caller's contract, and `self` lives.
        unsafe { self.words().store(index, value) };
    }
}

/// The address of a ring's first word, or of a later one.
#[derive(Clone, Copy)]
pub(crate) struct Words(NonNull<AtomicU64>);

// SAFETY: the address of atomics, which any thread may use as long as the `Descriptors` live.
unsafe impl Send for Words {}

impl Words {
    /// The words from `index` on.
    ///
    /// # Safety
    /// `index` is at most the count of words.
    #[inline(always)]
    pub(crate) unsafe fn from(self, index: usize) -> Words {
        // SAFETY: inside the region or at its end (contract).
        Words(unsafe { self.0.add(index) })
    }

    /// The address of the word at `index`, for vector accesses.
    #[inline(always)]
    pub(crate) fn at(self, index: usize) -> *const u64 {
        self.0.as_ptr().cast::<u64>().wrapping_add(index)
    }

    /// The word at `index`.
    ///
    /// # Safety
    /// `index` is below the count of words of the [`Descriptors`] that this came from, which lives for `'a`.
    #[inline(always)]
    unsafe fn word<'a>(self, index: usize) -> &'a AtomicU64 {
        // SAFETY: inside the region (this function's contract and `Descriptors::new`), which the descriptors keep alive;
        // mapped memory is always a valid u64; the device's own accesses are those of another agent on an atomic.
        unsafe { self.0.add(index).as_ref() }
    }

    /// Loads a word without ordering.
    ///
    /// # Safety
    /// `index` is below the count of words, and the [`Descriptors`] that this came from lives.
    #[inline(always)]
    pub(crate) unsafe fn load(self, index: usize) -> u64 {
        // SAFETY: the caller's contract.
        u64::from_le(unsafe { self.word(index) }.load(Ordering::Relaxed))
    }

    /// Stores a word. The doorbell that tells the device of it is a release store.
    ///
    /// # Safety
    /// `index` is below the count of words, and the [`Descriptors`] that this came from lives.
    #[inline(always)]
    pub(crate) unsafe fn store(self, index: usize, value: u64) {
        // SAFETY: the caller's contract.
        unsafe { self.word(index) }.store(value.to_le(), Ordering::Relaxed);
    }
}

//! Device memory as a model sees it: the IOVA space of a world, and every access that a model makes to it.
//!
//! Owns the mappings that drivers make with `map_dma` and is the only file of the models that dereferences a pointer.
//! Each region lands at a random, 2 MiB aligned distance from its virtual address, so that a driver that confuses the two
//! is found out. What always holds: an access is translated and bounds-checked before it is made, an access outside
//! a mapping is refused and never made, and a mapped region is kept alive.
//!
//! In worlds that check the driver, it also knows every buffer that is given to a device at the moment, so that one
//! buffer in two armed descriptors is an error on the spot.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::rng::Rng;
use crate::addr::Iova;
use crate::mem::HugeRegion;

/// Regions keep their offset in a page of this size, as the design asks of every IOMMU mapping.
const PAGE: u64 = 2 << 20;
/// IOVAs are below this: 46 bits, well above 4 GiB so that the upper address registers matter.
const TOP: u64 = 1 << 46;

/// One region in the IOVA space.
struct Mapping {
    iova: u64,
    len: u64,
    region: Arc<HugeRegion>,
    refs: usize,
}

/// The IOVA space of a world.
pub(super) struct DmaSpace {
    maps: Vec<Mapping>,
    /// Buffers given to a device: first byte to (end, owner). Only filled in worlds that check.
    armed: BTreeMap<u64, (u64, ArmedBy)>,
}

/// The descriptor that a buffer is armed in, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArmedBy {
    pub(super) port: usize,
    pub(super) ring: &'static str,
    pub(super) queue: usize,
    pub(super) slot: u32,
}

impl fmt::Display for ArmedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} {} queue {} descriptor {}", self.port, self.ring, self.queue, self.slot)
    }
}

/// An access that would have left every mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    iova: u64,
    len: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DMA outside every mapping: {} bytes at IOVA {:#x}", self.len, self.iova)
    }
}

impl DmaSpace {
    pub(super) fn new() -> Self {
        DmaSpace { maps: Vec::new(), armed: BTreeMap::new() }
    }

    /// Maps a region, or counts one more user of it.
    pub(super) fn map(&mut self, region: &Arc<HugeRegion>, rng: &mut Rng) -> Iova {
        if let Some(map) = self.maps.iter_mut().find(|m| Arc::ptr_eq(&m.region, region)) {
            map.refs += 1;
            return Iova(map.iova);
        }
        let len = region.len() as u64;
        let offset = region.addr() as u64 % PAGE;
        loop {
            let iova = (1 + rng.below(TOP / PAGE - 1)) * PAGE + offset;
            // One free page on either side, so that running past a region's end is never another region.
            let clear = self.maps.iter().all(|m| iova + len + PAGE <= m.iova || m.iova + m.len + PAGE <= iova);
            if clear && iova + len <= TOP {
                self.maps.push(Mapping { iova, len, region: region.clone(), refs: 1 });
                return Iova(iova);
            }
        }
    }

    /// Takes back one `map`; the IOVA range that went away with it, if this was the last.
    pub(super) fn unmap(&mut self, region: &Arc<HugeRegion>) -> Option<UnmapResult> {
        let at = self.maps.iter().position(|m| Arc::ptr_eq(&m.region, region))?;
        self.maps[at].refs -= 1;
        if self.maps[at].refs > 0 {
            return Some(UnmapResult::StillMapped);
        }
        let map = self.maps.swap_remove(at);
        Some(UnmapResult::Gone { start: map.iova, end: map.iova + map.len })
    }

    /// Address in this process of `len` bytes at `iova`, all of them in one mapping.
    #[inline]
    fn translate(&self, iova: u64, len: usize) -> Result<usize, Fault> {
        for map in &self.maps {
            let offset = iova.wrapping_sub(map.iova);
            if offset < map.len && len as u64 <= map.len - offset {
                return Ok(map.region.addr() + offset as usize);
            }
        }
        Err(Fault { iova, len })
    }

    /// Refuses what is not in one mapping, without an access.
    #[inline]
    pub(super) fn check(&self, iova: u64, len: usize) -> Result<(), Fault> {
        self.translate(iova, len).map(|_| ())
    }

    /// Fetches a descriptor of two 64-bit words at a 16-byte aligned `iova`.
    ///
    /// The caller has loaded the doorbell that handed the descriptor over with acquire ordering.
    #[inline]
    pub(super) fn fetch(&self, iova: u64) -> Result<[u64; 2], Fault> {
        let at = with_exposed_provenance::<AtomicU64>(self.translate(iova, 16)?);
        debug_assert!(at.is_aligned());
        // SAFETY: `translate` found 16 bytes in one mapping, whose region lives as long as the mapping and exposed
        // its provenance when it was made. Rings are 16-byte aligned (checked when a queue is enabled). Both sides
        // touch descriptors by atomics only, so there is no data race.
        unsafe { Ok([(*at).load(Ordering::Relaxed), (*at.add(1)).load(Ordering::Relaxed)]) }
    }

    /// Writes a descriptor back: word 0, then word 1, which holds DD, with release ordering.
    #[inline]
    pub(super) fn write_back(&self, iova: u64, words: [u64; 2]) -> Result<(), Fault> {
        self.write_first(iova, words[0])?;
        let at = with_exposed_provenance::<AtomicU64>(self.translate(iova + 8, 8)?);
        // SAFETY: as in `fetch`: in one live mapping, aligned, and atomic on both sides.
        unsafe { (*at).store(words[1], Ordering::Release) };
        Ok(())
    }

    /// Writes word 0 of a descriptor only.
    #[inline]
    pub(super) fn write_first(&self, iova: u64, word: u64) -> Result<(), Fault> {
        let at = with_exposed_provenance::<AtomicU64>(self.translate(iova, 8)?);
        debug_assert!(at.is_aligned());
        // SAFETY: as in `fetch`: in one live mapping, aligned, and atomic on both sides.
        unsafe { (*at).store(word, Ordering::Relaxed) };
        Ok(())
    }

    /// Reads a transmit buffer, appending to `out`.
    #[inline]
    pub(super) fn read(&self, iova: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        let from = with_exposed_provenance::<u8>(self.translate(iova, len)?);
        out.reserve(len);
        // SAFETY: `from` has `len` bytes in one live mapping. `out` has room for `len` more bytes behind its length,
        // in memory of its own. The driver gave the buffer to the device with the doorbell (acquired by the caller)
        // and does not write to it before it sees DD, so the copy does not race with the program.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
        Ok(())
    }

    /// Writes to a receive buffer.
    #[inline]
    pub(super) fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), Fault> {
        let to = with_exposed_provenance_mut::<u8>(self.translate(iova, bytes.len())?);
        // SAFETY: `to` has `bytes.len()` bytes in one live mapping, which no Rust reference aliases: the driver gave
        // the buffer to the device and does not look at it before it sees DD, which is stored afterwards with release
        // ordering. `bytes` is private memory of the model.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Notes that a buffer belongs to a device now.
    pub(super) fn arm(&mut self, iova: u64, len: usize, by: ArmedBy) -> Result<(), String> {
        let end = iova + len.max(1) as u64;
        if let Some((&at, &(_, other))) = self.armed.range(..end).next_back().filter(|(_, (e, _))| *e > iova) {
            return Err(format!("{by}: the buffer at IOVA {iova:#x} is already armed (at {at:#x}) in {other}"));
        }
        self.armed.insert(iova, (end, by));
        Ok(())
    }

    /// Notes that the device is done with a buffer.
    pub(super) fn disarm(&mut self, iova: u64) {
        self.armed.remove(&iova);
    }

    /// Forgets every buffer of a queue.
    pub(super) fn disarm_queue(&mut self, port: usize, ring: &'static str, queue: usize) {
        self.armed.retain(|_, (_, by)| (by.port, by.ring, by.queue) != (port, ring, queue));
    }

    /// Forgets every buffer.
    pub(super) fn disarm_all(&mut self) {
        self.armed.clear();
    }

    /// A buffer that lies in `start..end` and is armed.
    pub(super) fn armed_within(&self, start: u64, end: u64) -> Option<ArmedBy> {
        self.armed.range(start..end).next().map(|(_, (_, by))| *by)
    }
}

/// What became of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnmapResult {
    /// Another user has it mapped.
    StillMapped,
    /// These IOVAs are no longer mapped.
    Gone {
        /// First IOVA.
        start: u64,
        /// One past the last.
        end: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pages;

    fn region(len: usize) -> Arc<HugeRegion> {
        Arc::new(HugeRegion::allocate(len, Pages::Ordinary, None).unwrap())
    }

    #[test]
    fn regions_land_at_a_2m_aligned_distance_and_mapping_counts() {
        let (mut space, mut rng) = (DmaSpace::new(), Rng::new(1));
        let a = region(8192);
        let iova = space.map(&a, &mut rng);
        assert_ne!(iova.0, a.addr() as u64);
        assert_eq!(iova.0 % PAGE, a.addr() as u64 % PAGE);
        assert_eq!(space.map(&a, &mut rng), iova);
        assert_eq!(space.unmap(&a), Some(UnmapResult::StillMapped));
        assert!(space.check(iova.0, 8192).is_ok());
        assert_eq!(space.unmap(&a), Some(UnmapResult::Gone { start: iova.0, end: iova.0 + 8192 }));
        assert!(space.check(iova.0, 1).is_err());
        assert_eq!(space.unmap(&a), None);
    }

    #[test]
    fn accesses_that_leave_a_mapping_are_refused() {
        let (mut space, mut rng) = (DmaSpace::new(), Rng::new(2));
        let a = region(4096);
        let iova = space.map(&a, &mut rng).0;
        space.write(iova + 4090, &[1, 2, 3, 4, 5, 6]).unwrap();
        let mut out = Vec::new();
        space.read(iova + 4092, 4, &mut out).unwrap();
        assert_eq!(out, [3, 4, 5, 6]);
        assert!(space.write(iova + 4091, &[0; 6]).is_err());
        assert!(space.read(iova - 1, 2, &mut out).is_err());
        assert!(space.check(u64::MAX, 2).is_err());
        assert!(space.fetch(iova + 4096 - 8).is_err());
    }

    #[test]
    fn overlapping_buffers_are_found() {
        let mut space = DmaSpace::new();
        let by = |slot| ArmedBy { port: 0, ring: "rx", queue: 0, slot };
        space.arm(1000, 100, by(0)).unwrap();
        space.arm(1100, 100, by(1)).unwrap();
        assert!(space.arm(1000, 1, by(2)).is_err());
        assert!(space.arm(1199, 10, by(2)).is_err());
        assert!(space.arm(900, 101, by(2)).is_err());
        space.arm(900, 100, by(2)).unwrap();
        space.disarm(1000);
        space.arm(1010, 5, by(3)).unwrap();
        assert_eq!(space.armed_within(1005, 1100), Some(by(3)));
    }
}

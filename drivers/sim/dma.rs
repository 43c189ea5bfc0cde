//! Device memory as a model sees it: the IOVA space of a world, and every access that a model makes to it.
//!
//! Owns the mappings that drivers make and is the only file of the models that dereferences a pointer. A region that is
//! mapped with `map_dma` lands at a random, 2 MiB aligned distance from its virtual address, so that a driver that
//! confuses the two is found out; a served model's client says itself which addresses its memory has. What always
//! holds: an access is translated and bounds-checked before it is made, an access outside a mapping is refused and
//! never made, and what is mapped is kept alive.
//!
//! In worlds that check the driver, it also knows every buffer that is given to a device at the moment, so that one
//! buffer in two armed descriptors is an error on the spot.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "vfio-user")]
use memmap2::MmapRaw;

use super::rng::Rng;
use crate::addr::Iova;
use crate::mem::HugeRegion;

/// Regions keep their offset in a page of this size, as the design asks of every IOMMU mapping.
const PAGE: u64 = 2 << 20;
/// IOVAs are below this: 46 bits, well above 4 GiB so that the upper address registers matter.
const TOP: u64 = 1 << 46;

/// Memory that a mapping keeps alive.
#[derive(Clone)]
enum Memory {
    /// A region of this process, with how often it was mapped.
    Region(Arc<HugeRegion>, usize),
    /// Memory that another process shares.
    #[cfg(feature = "vfio-user")]
    Shared { _map: Arc<MmapRaw> },
    /// Addresses that mean something and that no model can reach: another device's registers.
    #[cfg(feature = "vfio-user")]
    Unreachable,
}

/// One piece of the IOVA space.
#[derive(Clone)]
struct Mapping {
    iova: u64,
    len: u64,
    /// Address in this process of the first byte; its provenance was exposed.
    addr: usize,
    writable: bool,
    memory: Memory,
}

impl Mapping {
    fn end(&self) -> u64 {
        self.iova + self.len
    }
}

/// The IOVA space of a world.
pub(super) struct DmaSpace {
    /// In ascending order, and apart.
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

    /// What is mapped now, for somebody else to look at; armed buffers are not in it.
    pub(super) fn view(&self) -> DmaSpace {
        DmaSpace { maps: self.maps.clone(), armed: BTreeMap::new() }
    }

    /// Maps a region, or counts one more user of it.
    pub(super) fn map(&mut self, region: &Arc<HugeRegion>, rng: &mut Rng) -> Iova {
        for map in &mut self.maps {
            if let Memory::Region(known, users) = &mut map.memory
                && Arc::ptr_eq(known, region)
            {
                *users += 1;
                return Iova(map.iova);
            }
        }
        let len = region.len() as u64;
        let offset = region.addr() as u64 % PAGE;
        loop {
            let iova = (1 + rng.below(TOP / PAGE - 1)) * PAGE + offset;
            // One free page on either side, so that running past a region's end is never another region.
            let clear = self.maps.iter().all(|m| iova + len + PAGE <= m.iova || m.end() + PAGE <= iova);
            if clear && iova + len <= TOP {
                let memory = Memory::Region(region.clone(), 1);
                self.insert(Mapping { iova, len, addr: region.addr(), writable: true, memory });
                return Iova(iova);
            }
        }
    }

    fn insert(&mut self, mapping: Mapping) {
        let at = self.maps.partition_point(|m| m.iova < mapping.iova);
        self.maps.insert(at, mapping);
    }

    /// Takes back one `map`; the IOVA range that went away with it, if this was the last.
    pub(super) fn unmap(&mut self, region: &Arc<HugeRegion>) -> Option<UnmapResult> {
        for at in 0..self.maps.len() {
            if let Memory::Region(known, users) = &mut self.maps[at].memory
                && Arc::ptr_eq(known, region)
            {
                *users -= 1;
                if *users > 0 {
                    return Some(UnmapResult::StillMapped);
                }
                let map = self.maps.remove(at);
                return Some(UnmapResult::Gone { start: map.iova, end: map.end() });
            }
        }
        None
    }

    /// Maps `len` bytes of shared memory from `offset` on at addresses of the client's choice; without memory the
    /// addresses are known, and access to them is refused. False when the range is empty, wraps, is not in the memory, or
    /// overlaps what is mapped.
    #[cfg(feature = "vfio-user")]
    pub(super) fn map_at(&mut self, iova: u64, len: u64, memory: Option<(Arc<MmapRaw>, u64)>, writable: bool) -> bool {
        let Some(end) = iova.checked_add(len).filter(|_| len > 0) else { return false };
        let at = self.maps.partition_point(|m| m.end() <= iova);
        if self.maps.get(at).is_some_and(|next| next.iova < end) {
            return false;
        }
        let (addr, memory) = match memory {
            Some((map, offset)) => {
                if offset.checked_add(len).is_none_or(|end| end > map.len() as u64) {
                    return false;
                }
                (map.as_mut_ptr().expose_provenance() + offset as usize, Memory::Shared { _map: map })
            }
            None => (0, Memory::Unreachable),
        };
        self.maps.insert(at, Mapping { iova, len, addr, writable, memory });
        true
    }

    /// Unmaps these addresses, of whatever mappings they are parts.
    #[cfg(feature = "vfio-user")]
    pub(super) fn unmap_at(&mut self, iova: u64, len: u64) {
        let end = iova.saturating_add(len);
        let first = self.maps.partition_point(|m| m.end() <= iova);
        let last = self.maps.partition_point(|m| m.iova < end);
        if first >= last {
            return;
        }
        let mut left: Vec<Mapping> = Vec::new();
        let head = &self.maps[first];
        if head.iova < iova {
            left.push(Mapping { len: iova - head.iova, ..head.clone() });
        }
        let tail = &self.maps[last - 1];
        if tail.end() > end {
            let cut = end - tail.iova;
            left.push(Mapping { iova: end, len: tail.len - cut, addr: tail.addr + cut as usize, ..tail.clone() });
        }
        self.maps.splice(first..last, left);
    }

    /// The mapping that `iova` is in, and the offset in it.
    #[inline]
    fn find(&self, iova: u64, len: usize) -> Result<(&Mapping, u64), Fault> {
        let fault = Fault { iova, len };
        // The first mapping that ends behind the address: mappings are few, or the search is worth its while.
        let at = self.maps.partition_point(|m| m.end() <= iova);
        let map = self.maps.get(at).filter(|m| m.iova <= iova).ok_or(fault)?;
        #[cfg(feature = "vfio-user")]
        if matches!(map.memory, Memory::Unreachable) {
            return Err(fault);
        }
        Ok((map, iova - map.iova))
    }

    /// Address in this process of `len` bytes at `iova`, all of them in one mapping.
    #[inline]
    fn translate(&self, iova: u64, len: usize, write: bool) -> Result<usize, Fault> {
        let (map, offset) = self.find(iova, len)?;
        if len as u64 <= map.len - offset && (map.writable || !write) {
            return Ok(map.addr + offset as usize);
        }
        Err(Fault { iova, len })
    }

    /// Takes `len` bytes at `iova` apart into addresses in this process and their lengths: a buffer may lie in several
    /// mappings, as pages behind an IOMMU do. Nothing is handed out unless all of it is mapped.
    #[inline]
    fn pieces(&self, iova: u64, len: usize, write: bool, mut each: impl FnMut(usize, usize)) -> Result<(), Fault> {
        if let Ok(addr) = self.translate(iova, len, write) {
            each(addr, len);
            return Ok(());
        }
        for hand_out in [false, true] {
            let (mut at, mut left) = (iova, len);
            while left > 0 {
                let (map, offset) = self.find(at, left)?;
                if write && !map.writable {
                    return Err(Fault { iova: at, len: left });
                }
                let here = left.min((map.len - offset).min(usize::MAX as u64) as usize);
                if hand_out {
                    each(map.addr + offset as usize, here);
                }
                (at, left) = (at.wrapping_add(here as u64), left - here);
            }
        }
        Ok(())
    }

    /// Refuses what is not mapped, without an access.
    #[inline]
    pub(super) fn check(&self, iova: u64, len: usize) -> Result<(), Fault> {
        self.pieces(iova, len, false, |_, _| {})
    }

    /// Fetches a descriptor of two 64-bit words at a 16-byte aligned `iova`.
    ///
    /// The caller has loaded the doorbell that handed the descriptor over with acquire ordering.
    #[inline]
    pub(super) fn fetch(&self, iova: u64) -> Result<[u64; 2], Fault> {
        let at = with_exposed_provenance::<AtomicU64>(self.translate(iova, 16, false)?);
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
        let at = with_exposed_provenance::<AtomicU64>(self.translate(iova + 8, 8, true)?);
        // SAFETY: as in `fetch`: in one live mapping, aligned, and atomic on both sides.
        unsafe { (*at).store(words[1], Ordering::Release) };
        Ok(())
    }

    /// Writes word 0 of a descriptor only.
    #[inline]
    pub(super) fn write_first(&self, iova: u64, word: u64) -> Result<(), Fault> {
        let at = with_exposed_provenance::<AtomicU64>(self.translate(iova, 8, true)?);
        debug_assert!(at.is_aligned());
        // SAFETY: as in `fetch`: in one live mapping, aligned, and atomic on both sides.
        unsafe { (*at).store(word, Ordering::Relaxed) };
        Ok(())
    }

    /// Writes a descriptor of four words back: `words[done]`, which holds DD, last and with release ordering.
    #[inline]
    pub(super) fn write_four(&self, iova: u64, words: [u64; 4], done: usize) -> Result<(), Fault> {
        let at = with_exposed_provenance::<AtomicU64>(self.translate(iova, 32, true)?);
        debug_assert!(at.is_aligned());
        for (i, word) in words.into_iter().enumerate().filter(|(i, _)| *i != done) {
            // SAFETY: as in `fetch`, for 32 bytes; `i` is below 4.
            unsafe { (*at.add(i)).store(word, Ordering::Relaxed) };
        }
        let word = words[done];
        // SAFETY: as above; the index into `words` shows that `done` is below 4.
        unsafe { (*at.add(done)).store(word, Ordering::Release) };
        Ok(())
    }

    /// Reads a transmit buffer, appending to `out`.
    #[inline]
    pub(super) fn read(&self, iova: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.reserve(len);
        self.pieces(iova, len, false, |addr, len| {
            let from = with_exposed_provenance::<u8>(addr);
            // SAFETY: `from` has `len` bytes in one live mapping. `out` has room for them behind its length, in memory of
            // its own: `pieces` hands out no more than was reserved. The driver gave the buffer to the device with the
            // doorbell (acquired by the caller) and does not write to it before it sees DD, so the copy does not race
            // with the program.
            unsafe {
                std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().add(out.len()), len);
                out.set_len(out.len() + len);
            }
        })
    }

    /// Writes to a receive buffer.
    #[inline]
    pub(super) fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut left = bytes;
        self.pieces(iova, bytes.len(), true, |addr, len| {
            let to = with_exposed_provenance_mut::<u8>(addr);
            let (here, rest) = left.split_at(len);
            // SAFETY: `to` has `len` bytes in one live mapping, which no Rust reference aliases: the driver gave the
            // buffer to the device and does not look at it before it sees DD, which is stored afterwards with release
            // ordering. `here` is private memory of the model.
            unsafe { std::ptr::copy_nonoverlapping(here.as_ptr(), to, len) };
            left = rest;
        })
    }

    /// Notes that a buffer belongs to a device now.
    pub(super) fn arm(&mut self, iova: u64, len: usize, by: ArmedBy) -> Result<(), String> {
        let Some(end) = iova.checked_add(len.max(1) as u64) else {
            return Err(format!("{by}: the buffer at IOVA {iova:#x} runs past the end of the address space"));
        };
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

    #[cfg(feature = "vfio-user")]
    fn shared(len: usize) -> Arc<MmapRaw> {
        Arc::new(memmap2::MmapOptions::new().len(len).map_anon().unwrap().into())
    }

    #[cfg(feature = "vfio-user")]
    #[test]
    fn a_buffer_may_cross_mappings_and_an_unmap_may_cut_them() {
        let mut space = DmaSpace::new();
        let memory = shared(0x4000);
        // Neighbours to the device, the other way round in memory.
        assert!(space.map_at(0x1000, 0x1000, Some((memory.clone(), 0x1000)), true));
        assert!(space.map_at(0x2000, 0x1000, Some((memory.clone(), 0)), true));
        assert!(!space.map_at(0x2fff, 0x1000, Some((memory.clone(), 0)), true), "overlaps");
        assert!(!space.map_at(0x8000, 0x2000, Some((memory.clone(), 0x3000)), true), "longer than the memory");
        assert!(!space.map_at(u64::MAX, 2, None, true), "wraps");
        space.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
        let mut out = Vec::new();
        space.read(0x1ffe, 4, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3, 4]);
        assert!(space.fetch(0x1ff8).is_err(), "a descriptor lies in one page");
        // The hole refuses, and the writing of what leads into it is not begun.
        space.unmap_at(0x1800, 0x1000);
        assert!(space.write(0x17ff, &[9, 9]).is_err());
        out.clear();
        space.read(0x17ff, 1, &mut out).unwrap();
        space.read(0x2800, 1, &mut out).unwrap();
        assert_eq!(out, [0, 0]);
        assert!(space.check(0x27ff, 1).is_err());
        space.unmap_at(0, u64::MAX);
        assert!(space.check(0x1000, 1).is_err() && Arc::strong_count(&memory) == 1);
    }

    #[cfg(feature = "vfio-user")]
    #[test]
    fn what_cannot_be_reached_or_written_is_refused() {
        let mut space = DmaSpace::new();
        assert!(space.map_at(0x1000, 0x1000, None, true));
        assert!(space.map_at(0x2000, 0x1000, Some((shared(0x1000), 0)), false));
        assert!(space.check(0x1000, 1).is_err());
        assert!(space.check(0x2000, 1).is_ok());
        assert!(space.write(0x2000, &[1]).is_err());
        assert!(space.write_first(0x2000, 1).is_err());
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

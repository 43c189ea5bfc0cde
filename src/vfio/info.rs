//! The answers of VFIO that carry capabilities, taken apart: regions of a device and the IOVA ranges of a container.
//!
//! Owns bounds: every offset and count in an answer is checked against the bytes that came, the chain of capabilities
//! is walked a limited number of steps, and what does not fit is `None`. Called by `container.rs` and `device.rs`.
#![forbid(unsafe_code)]

use std::mem::offset_of;

use vfio_bindings::bindings::vfio;
use vfio_bindings::bindings::vfio::{vfio_info_cap_header, vfio_iommu_type1_info, vfio_region_info};

/// A device has a handful of capabilities; a longer chain is a loop.
const CHAIN_MAX: usize = 64;

/// A region of a device: a BAR or its config space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Length in bytes; 0 when the device lacks the region.
    pub(super) len: u64,
    /// Where it lies in the device's descriptor.
    pub(super) offset: u64,
    /// The parts that may be mapped, inside the region and multiples of 4 bytes.
    pub(super) areas: Vec<Area>,
}

/// A part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    /// First byte, counted from the region's start.
    pub(super) start: u64,
    /// Length in bytes.
    pub(super) len: u64,
}

/// Addresses that a device of the container may use; both ends belong to the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IovaRange {
    /// First usable address.
    pub(super) first: u64,
    /// Last usable address.
    pub(super) last: u64,
}

/// A `vfio_region_info`.
pub(super) fn region(answer: &[u8]) -> Option<Region> {
    let flags = u32_at(answer, offset_of!(vfio_region_info, flags))?;
    let len = u64_at(answer, offset_of!(vfio_region_info, size))?;
    let offset = u64_at(answer, offset_of!(vfio_region_info, offset))?;
    let sparse = match flags & vfio::VFIO_REGION_INFO_FLAG_CAPS {
        0 => None,
        _ => {
            let first = u32_at(answer, offset_of!(vfio_region_info, cap_offset))?;
            capability(answer, first, vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP)
        }
    };
    let areas = match sparse {
        _ if flags & vfio::VFIO_REGION_INFO_FLAG_MMAP == 0 || len == 0 => Vec::new(),
        None => vec![Area { start: 0, len }],
        Some(capability) => pairs(capability, offset_of!(vfio::vfio_region_info_cap_sparse_mmap, nr_areas))?
            .map(|(start, len)| Area { start, len })
            .collect(),
    };
    let inside = |area: &Area| {
        area.start.checked_add(area.len).is_some_and(|end| end <= len)
            && area.start.is_multiple_of(4)
            && area.len.is_multiple_of(4)
    };
    areas.iter().all(inside).then_some(Region { len, offset, areas })
}

/// The ranges of a `vfio_iommu_type1_info`, sorted; `None` when the kernel does not tell them.
pub(super) fn iova_ranges(answer: &[u8]) -> Option<Vec<IovaRange>> {
    let flags = u32_at(answer, offset_of!(vfio_iommu_type1_info, flags))?;
    if flags & vfio::VFIO_IOMMU_INFO_CAPS == 0 {
        return None;
    }
    let first = u32_at(answer, offset_of!(vfio_iommu_type1_info, cap_offset))?;
    let capability = capability(answer, first, vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)?;
    let mut ranges: Vec<IovaRange> =
        pairs(capability, offset_of!(vfio::vfio_iommu_type1_info_cap_iova_range, nr_iovas))?
            .map(|(first, last)| IovaRange { first, last })
            .collect();
    ranges.sort_unstable_by_key(|range| range.first);
    (!ranges.is_empty() && ranges.iter().all(|range| range.first <= range.last)).then_some(ranges)
}

/// The bytes from the capability `id` on.
fn capability(answer: &[u8], first: u32, id: u32) -> Option<&[u8]> {
    let mut at = first as usize;
    for _ in 0..CHAIN_MAX {
        let found = answer.get(at..).filter(|_| at != 0)?;
        let head = u16::from_ne_bytes(found.get(..2)?.try_into().ok()?);
        if u32::from(head) == id {
            return Some(found);
        }
        // Offsets count from the start of the answer; 0 ends the chain.
        at = u32_at(found, offset_of!(vfio_info_cap_header, next))? as usize;
    }
    None
}

/// The array of pairs of 64-bit numbers of a capability: a count, a reserved word, the pairs.
fn pairs(capability: &[u8], count_at: usize) -> Option<impl Iterator<Item = (u64, u64)>> {
    let count = u32_at(capability, count_at)? as usize;
    let bytes = capability.get(count_at + 8..)?.get(..count.checked_mul(16)?)?;
    Some(bytes.chunks_exact(16).filter_map(|pair| Some((u64_at(pair, 0)?, u64_at(pair, 8)?))))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..)?.get(..8)?.try_into().ok()?))
}

/// Answers as the kernel would write them. The fake kernel uses them too.
#[cfg(test)]
pub(super) mod build {
    /// A capability: id, version 1, and its payload in 64-bit words; `next` is filled in by [`answer`].
    pub(in crate::vfio) struct Capability {
        pub(in crate::vfio) id: u16,
        pub(in crate::vfio) words: Vec<u64>,
    }

    /// Appends capabilities to a plain structure whose `cap_offset` lies at `cap_offset_at`, and sets `argsz`.
    pub(in crate::vfio) fn answer(mut plain: Vec<u8>, cap_offset_at: usize, chain: &[Capability]) -> Vec<u8> {
        let mut link_at = cap_offset_at;
        for capability in chain {
            let at = plain.len() as u32;
            plain[link_at..link_at + 4].copy_from_slice(&at.to_ne_bytes());
            plain.extend(capability.id.to_ne_bytes());
            plain.extend(1u16.to_ne_bytes());
            link_at = plain.len();
            plain.extend(0u32.to_ne_bytes());
            plain.extend(capability.words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        let argsz = plain.len() as u32;
        plain[..4].copy_from_slice(&argsz.to_ne_bytes());
        plain
    }

    /// `vfio_region_info`; `areas` adds the sparse capability behind one that nobody knows.
    pub(in crate::vfio) fn region(
        flags: u32,
        index: u32,
        len: u64,
        offset: u64,
        areas: Option<&[(u64, u64)]>,
    ) -> Vec<u8> {
        let flags = flags | if areas.is_some() { 8 } else { 0 };
        let mut plain: Vec<u8> = [0, flags, index, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        plain.extend([len, offset].iter().flat_map(|word| word.to_ne_bytes()));
        let sparse = areas.map(|areas| {
            let words = std::iter::once(areas.len() as u64).chain(areas.iter().flat_map(|&(a, b)| [a, b])).collect();
            [Capability { id: 0x77, words: vec![1] }, Capability { id: 1, words }]
        });
        answer(plain, 12, sparse.as_ref().map_or(&[], |chain| &chain[..]))
    }

    /// `vfio_iommu_type1_info` with these ranges, behind the capability that counts mappings.
    pub(in crate::vfio) fn iommu(ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut plain: Vec<u8> = [0u32, 3].iter().flat_map(|word| word.to_ne_bytes()).collect();
        plain.extend(0x4020_1000u64.to_ne_bytes());
        plain.extend([0u8; 8]);
        let words = std::iter::once(ranges.len() as u64).chain(ranges.iter().flat_map(|&(a, b)| [a, b])).collect();
        answer(plain, 16, &[Capability { id: 3, words: vec![65535] }, Capability { id: 1, words }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_WRITE_MMAP: u32 = 7;

    #[test]
    fn a_plain_region_is_mappable_as_a_whole() {
        let found = region(&build::region(READ_WRITE_MMAP, 0, 0x4000, 1 << 40, None)).unwrap();
        assert_eq!(found, Region { len: 0x4000, offset: 1 << 40, areas: vec![Area { start: 0, len: 0x4000 }] });
        let unmappable = region(&build::region(3, 7, 256, 7 << 40, None)).unwrap();
        assert_eq!((unmappable.len, unmappable.areas.len()), (256, 0));
        assert_eq!(region(&build::region(READ_WRITE_MMAP, 1, 0, 0, None)).unwrap().areas, []);
    }

    #[test]
    fn sparse_areas_replace_the_whole() {
        let areas = [(0, 0x1000), (0x3000, 0x1000)];
        let found = region(&build::region(READ_WRITE_MMAP, 0, 0x4000, 0, Some(&areas))).unwrap();
        assert_eq!(found.areas, [Area { start: 0, len: 0x1000 }, Area { start: 0x3000, len: 0x1000 }]);
        assert_eq!(region(&build::region(READ_WRITE_MMAP, 0, 0x4000, 0, Some(&[]))).unwrap().areas, []);
    }

    #[test]
    fn areas_outside_the_region_or_odd_are_refused() {
        for area in [(0x3000, 0x2000), (u64::MAX - 3, 8), (0x1002, 0x10), (0, 6)] {
            assert_eq!(region(&build::region(READ_WRITE_MMAP, 0, 0x4000, 0, Some(&[area]))), None, "{area:x?}");
        }
    }

    #[test]
    fn iova_ranges_are_sorted_and_sane() {
        let found = iova_ranges(&build::iommu(&[(0xfef0_0000, 0x7f_ffff_ffff), (0, 0xfedf_ffff)])).unwrap();
        let expected =
            [IovaRange { first: 0, last: 0xfedf_ffff }, IovaRange { first: 0xfef0_0000, last: 0x7f_ffff_ffff }];
        assert_eq!(found, expected);
        assert_eq!(iova_ranges(&build::iommu(&[(8, 7)])), None);
        assert_eq!(iova_ranges(&build::iommu(&[])), None);
    }

    #[test]
    fn no_answer_however_cut_or_bent_is_read_past_its_end() {
        let good = build::iommu(&[(0, 0xfff), (0x2000, 0x2fff)]);
        for len in 0..good.len() {
            assert_eq!(iova_ranges(&good[..len]), None, "cut to {len}");
        }
        let good = build::region(READ_WRITE_MMAP, 0, 0x4000, 0, Some(&[(0, 0x1000)]));
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bent = good.clone();
                bent[at] = value;
                if let Some(region) = region(&bent) {
                    assert!(region.areas.iter().all(|area| area.start + area.len <= region.len));
                }
            }
        }
    }

    #[test]
    fn a_chain_that_loops_ends() {
        // The first capability's `next` points at itself.
        let mut looping = build::iommu(&[(0, 0xfff)]);
        looping[24 + 4..24 + 8].copy_from_slice(&24u32.to_ne_bytes());
        assert_eq!(iova_ranges(&looping), None);
    }
}

//! Where in a container's address space a region goes.
//!
//! Owns the choice only; the container keeps the table. What always holds: the place lies inside one usable range, is
//! aligned as asked, overlaps nothing that is taken, and is never 0 (a ring at 0 looks like a ring that was never
//! programmed).
#![forbid(unsafe_code)]

use super::info::IovaRange;

/// Addresses in use: first and length in bytes.
pub(super) type Taken = (u64, u64);

/// `preferred` if it fits, else the lowest free multiple of `align`; `None` when there is no room.
///
/// `ranges` are sorted and do not overlap; `align` is a power of two; `len` is not 0.
pub(super) fn place(ranges: &[IovaRange], taken: &[Taken], preferred: u64, len: u64, align: u64) -> Option<u64> {
    let fits = |at: u64| -> bool {
        let Some(last) = at.checked_add(len - 1) else { return false };
        at != 0 && at.is_multiple_of(align) && ranges.iter().any(|range| range.first <= at && last <= range.last)
    };
    // Compared by last bytes: a place may end at the very top, where its end would overflow.
    let collision = |at: u64| taken.iter().find(|(start, size)| at <= start + (size - 1) && *start <= at + (len - 1));
    if fits(preferred) && collision(preferred).is_none() {
        return Some(preferred);
    }
    for range in ranges {
        // Each step moves past one of the taken places, so this ends.
        let mut at = range.first.max(1).checked_next_multiple_of(align);
        while let Some(candidate) = at.filter(|&at| fits(at)) {
            match collision(candidate) {
                None => return Some(candidate),
                Some((start, size)) => {
                    at = (start + (size - 1)).checked_add(1).and_then(|end| end.checked_next_multiple_of(align));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB2: u64 = 2 << 20;
    const USER: u64 = 0x7f12_3460_0000;

    /// What VT-d reports: everything but the window of the interrupts, up to the width of the IOMMU.
    fn ranges(bits: u32) -> [IovaRange; 2] {
        [IovaRange { first: 0, last: 0xfedf_ffff }, IovaRange { first: 0xfef0_0000, last: (1 << bits) - 1 }]
    }

    #[test]
    fn the_virtual_address_is_kept_where_it_fits() {
        assert_eq!(place(&ranges(48), &[], USER, MIB2, MIB2), Some(USER));
    }

    #[test]
    fn a_narrow_iommu_gets_the_lowest_free_aligned_place() {
        let narrow = ranges(39);
        assert_eq!(place(&narrow, &[], USER, 4 * MIB2, MIB2), Some(MIB2));
        assert_eq!(place(&narrow, &[(MIB2, 4 * MIB2)], USER, MIB2, MIB2), Some(5 * MIB2));
        // A gap that is too small is passed over, one that fits is used.
        let taken = [(MIB2, MIB2), (3 * MIB2, MIB2), (6 * MIB2, MIB2)];
        assert_eq!(place(&narrow, &taken, USER, 2 * MIB2, MIB2), Some(4 * MIB2));
        assert_eq!(place(&narrow, &taken, USER, MIB2, MIB2), Some(2 * MIB2));
        // A page of 1 GiB goes to a multiple of 1 GiB.
        assert_eq!(place(&narrow, &taken, USER, 1 << 30, 1 << 30), Some(1 << 30));
    }

    #[test]
    fn no_place_straddles_a_hole() {
        // 3 GiB from 1 GiB on would cover the interrupt window, so it goes above.
        let at = place(&ranges(39), &[], USER, 3 << 30, 1 << 30).unwrap();
        assert_eq!(at, 4 << 30);
        // The last byte counts: a preferred place that ends at the range's end fits, one page more does not.
        let tight = [IovaRange { first: 0, last: 0xfff_ffff }];
        assert_eq!(place(&tight, &[], 0xfe0_0000, MIB2, MIB2), Some(0xfe0_0000));
        assert_eq!(place(&tight, &[], 0xfe0_0000, 2 * MIB2, MIB2), Some(MIB2));
    }

    #[test]
    fn a_preferred_place_that_is_taken_or_unaligned_is_not_used() {
        assert_eq!(place(&ranges(48), &[(USER + MIB2, MIB2)], USER, 2 * MIB2, MIB2), Some(MIB2));
        assert_eq!(place(&ranges(48), &[], USER + 4096, MIB2, MIB2), Some(MIB2));
        assert_eq!(place(&ranges(48), &[], USER + 4096, MIB2, 4096), Some(USER + 4096));
    }

    #[test]
    fn no_room_is_said_and_nothing_overflows() {
        let tight = [IovaRange { first: MIB2, last: 3 * MIB2 - 1 }];
        assert_eq!(place(&tight, &[(MIB2, MIB2)], USER, 2 * MIB2, MIB2), None);
        let top = [IovaRange { first: u64::MAX - 0xfff, last: u64::MAX }];
        assert_eq!(place(&top, &[], USER, MIB2, MIB2), None);
        assert_eq!(place(&top, &[], u64::MAX - 0xfff, 0x2000, 0x1000), None);
        let high = u64::MAX - 0x1fff;
        assert_eq!(place(&[IovaRange { first: high, last: u64::MAX }], &[(high, 0x2000)], high, 0x1000, 0x1000), None);
        assert_eq!(place(&ranges(48), &[], 0, MIB2, MIB2), Some(MIB2));
        assert_eq!(place(&[], &[], USER, MIB2, MIB2), None);
    }
}

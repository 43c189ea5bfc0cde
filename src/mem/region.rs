//! DMA memory: the only allocator of it.
//!
//! A [`HugeRegion`] is one mapping that is populated when it is made (a limit must be an error now, not a SIGBUS
//! later), hidden from forked children and core dumps, and bound to a NUMA node before it is touched. It hands out raw
//! addresses only; no reference to its memory is ever made here. Whoever maps it for a device holds an `Arc` of it,
//! so it cannot be unmapped from the process while a device may still write to it.

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};

use crate::error::{Error, Result};

/// Which pages a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The system's default hugepage size, anonymous and private.
    Default,
    /// 2 MiB hugepages in a memfd, which can be shared with another process.
    Huge2M,
    /// 1 GiB hugepages in a memfd, which can be shared with another process.
    Huge1G,
    /// Ordinary pages in a memfd: enough for software models, in this process or another, and refused for hardware.
    Ordinary,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// One mapping of memory that a device may read and write.
pub struct HugeRegion {
    base: NonNull<u8>,
    len: usize,
    page_size: usize,
    backing: Backing,
}

enum Backing {
    /// From hugepage-rs, with the layout it must be given back with.
    HugepageRs(std::alloc::Layout),
    /// A memfd, mapped with memmap2; unmapped when dropped.
    Memfd { _map: MmapRaw, fd: OwnedFd },
}

// SAFETY: `base` is an address and nothing in here dereferences it; the mapping belongs to the process, not to a
// thread. `MmapRaw` and `OwnedFd` are Send and Sync themselves.
unsafe impl Send for HugeRegion {}
// SAFETY: as above; no method gives access to the memory behind `base`.
unsafe impl Sync for HugeRegion {}

impl HugeRegion {
    /// Allocates at least `len` bytes, rounded up to whole pages, on `node` where one is given.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system has no such pages left, with the command that reserves them.
    pub(crate) fn allocate(len: usize, pages: Pages, node: Option<u32>) -> Result<HugeRegion> {
        let len = len.max(1);
        let region = match pages {
            Pages::Default => Self::default_huge(len)?,
            Pages::Huge2M => Self::huge_memfd(len, 2 * MIB)?,
            Pages::Huge1G => Self::huge_memfd(len, GIB)?,
            Pages::Ordinary => Self::ordinary(len)?,
        };
        region.finish(node)?;
        Ok(region)
    }

    fn default_huge(len: usize) -> Result<HugeRegion> {
        // hugepage-rs panics where the kernel has no hugepages at all, so look first.
        let page_size = default_page_size()?;
        let len = round_up(len, page_size)?;
        check_free(len, page_size)?;
        let layout = std::alloc::Layout::from_size_align(len, page_size)
            .map_err(|_| Error::Memory(format!("a region of {len} bytes is too large")))?;
        // SAFETY: the layout has a size above zero (rounded up from at least 1).
        let base = unsafe { hugepage_rs::alloc(layout) };
        let base = NonNull::new(base).ok_or_else(|| not_mapped(len, page_size))?;
        Ok(HugeRegion { base, len, page_size, backing: Backing::HugepageRs(layout) })
    }

    fn huge_memfd(len: usize, page_size: usize) -> Result<HugeRegion> {
        let len = round_up(len, page_size)?;
        check_free(len, page_size)?;
        let size_flag = (page_size.trailing_zeros()) << libc::MFD_HUGE_SHIFT;
        Self::memfd(len, page_size, libc::MFD_HUGETLB | size_flag)
    }

    fn ordinary(len: usize) -> Result<HugeRegion> {
        let page_size = 4 * KIB;
        Self::memfd(round_up(len, page_size)?, page_size, 0)
    }

    fn memfd(len: usize, page_size: usize, flags: libc::c_uint) -> Result<HugeRegion> {
        // SAFETY: the name is a C string; the flags are those of memfd_create(2).
        let fd = unsafe { libc::memfd_create(c"vfring".as_ptr(), libc::MFD_CLOEXEC | flags) };
        if fd < 0 {
            return Err(Error::last_os(format!("memfd_create of {} pages", Size(page_size))));
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = fs::File::from(fd);
        file.set_len(len as u64).map_err(|e| Error::os(format!("ftruncate of a {} memfd", Size(len)), e))?;
        let map = MmapOptions::new().len(len).map_raw(&file).map_err(|e| match page_size > 4 * KIB {
            true => not_mapped(len, page_size),
            false => Error::os(format!("mmap of {} of ordinary memory", Size(len)), e),
        })?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or_else(|| Error::Memory("mmap returned null".into()))?;
        Ok(HugeRegion { base, len, page_size, backing: Backing::Memfd { _map: map, fd: file.into() } })
    }

    /// The steps that every backing needs before a device sees the memory.
    fn finish(&self, node: Option<u32>) -> Result<()> {
        let at = self.base.as_ptr().cast::<libc::c_void>();
        if let Some(node) = node.filter(|_| self.page_size > 4 * KIB) {
            bind(at, self.len, node)?;
        }
        for (advice, name) in [(libc::MADV_DONTFORK, "MADV_DONTFORK"), (libc::MADV_DONTDUMP, "MADV_DONTDUMP")] {
            // SAFETY: the range is exactly our own mapping; this advice changes no contents.
            if unsafe { libc::madvise(at, self.len, advice) } != 0 {
                return Err(Error::last_os(format!("madvise({name}) on {}", Size(self.len))));
            }
        }
        // SAFETY: as above; populating faults the pages in and changes no contents.
        if unsafe { libc::madvise(at, self.len, libc::MADV_POPULATE_WRITE) } != 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                return Err(Error::os("madvise(MADV_POPULATE_WRITE): needs Linux 5.14 or later", error));
            }
            return Err(Error::Memory(format!(
                "populating {} of {} pages failed ({error}): too few are free on the device's NUMA node, or the \
                 container's limit of hugepages is lower (see hugepages.md)",
                Size(self.len),
                Size(self.page_size)
            )));
        }
        // The pool and the rings turn integers back into pointers; expose the provenance once, here.
        let _ = self.base.as_ptr().expose_provenance();
        Ok(())
    }

    /// Address of the first byte in this process. Its provenance has been exposed.
    pub fn addr(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// Length in bytes, a multiple of the page size.
    #[allow(clippy::len_without_is_empty)] // a region is never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// True when the region is made of hugepages.
    pub fn is_huge(&self) -> bool {
        self.page_size > 4 * KIB
    }

    /// The memfd behind the region, for sharing it with another process; none for private memory.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Memfd { fd, .. } => Some(fd.as_fd()),
            Backing::HugepageRs(_) => None,
        }
    }
}

impl Drop for HugeRegion {
    fn drop(&mut self) {
        if let Backing::HugepageRs(layout) = self.backing {
            // SAFETY: allocated by hugepage-rs with this very layout and given back once; every user of the memory
            // holds an `Arc` of this region, so none is left.
            unsafe { hugepage_rs::dealloc(self.base.as_ptr(), layout) };
        }
    }
}

impl fmt::Debug for HugeRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugeRegion({} of {} pages at {:#x})", Size(self.len), Size(self.page_size), self.addr())
    }
}

/// A size in bytes, printed in its largest whole unit.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= GIB && n % GIB == 0 => write!(f, "{} GiB", n / GIB),
            n if n >= MIB && n % MIB == 0 => write!(f, "{} MiB", n / MIB),
            n if n >= KIB && n % KIB == 0 => write!(f, "{} KiB", n / KIB),
            n => write!(f, "{n} bytes"),
        }
    }
}

fn round_up(len: usize, page_size: usize) -> Result<usize> {
    len.checked_next_multiple_of(page_size)
        .ok_or_else(|| Error::Memory(format!("a region of {len} bytes is larger than the address space")))
}

/// `Hugepagesize:` of /proc/meminfo, in bytes.
fn default_page_size() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo").map_err(|e| Error::os("reading /proc/meminfo", e))?;
    parse_default_page_size(&text).ok_or_else(|| {
        Error::Memory("this kernel has no hugepages (no Hugepagesize in /proc/meminfo); see hugepages.md".into())
    })
}

fn parse_default_page_size(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("Hugepagesize:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let bytes = kib.checked_mul(KIB)?;
    (bytes.is_power_of_two() && bytes > 4 * KIB).then_some(bytes)
}

/// The kernel's hugepages of one size.
#[derive(Clone, Copy)]
struct Reserve {
    /// Pages set aside for all users, those in use included.
    pages: usize,
    /// Pages that nobody has or is promised.
    free: usize,
    /// Pages that the kernel may make when they are asked for; populating them tells whether it can.
    surplus: usize,
}

fn reserve_dir(page_size: usize) -> String {
    format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page_size / KIB)
}

impl Reserve {
    fn read(page_size: usize) -> Reserve {
        let dir = reserve_dir(page_size);
        let read = |name: &str| -> usize {
            fs::read_to_string(format!("{dir}/{name}")).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
        };
        Reserve {
            pages: read("nr_hugepages"),
            free: read("free_hugepages").saturating_sub(read("resv_hugepages")),
            surplus: read("nr_overcommit_hugepages").saturating_sub(read("surplus_hugepages")),
        }
    }
}

/// Refuses early where the reservation cannot cover the request: the mapping would fail with a bare ENOMEM.
fn check_free(len: usize, page_size: usize) -> Result<()> {
    let dir = reserve_dir(page_size);
    if !fs::exists(&dir).unwrap_or(false) {
        return Err(Error::Memory(format!("this kernel has no {} hugepages ({dir} is absent)", Size(page_size))));
    }
    let reserve = Reserve::read(page_size);
    match reserve.free.saturating_add(reserve.surplus) < len / page_size {
        true => Err(too_few(len, page_size, reserve)),
        false => Ok(()),
    }
}

/// The command keeps what others use: nr_hugepages counts the pages of all.
fn too_few(len: usize, page_size: usize, reserve: Reserve) -> Error {
    let needed = len / page_size;
    let missing = needed.saturating_sub(reserve.free);
    Error::Memory(format!(
        "too few {} hugepages for {}: {needed} needed, {} free; reserve more with `echo {} > {}/nr_hugepages` \
         (see hugepages.md)",
        Size(page_size),
        Size(len),
        reserve.free,
        reserve.pages + missing,
        reserve_dir(page_size)
    ))
}

/// The kernel refused a mapping that [`check_free`] had let pass.
fn not_mapped(len: usize, page_size: usize) -> Error {
    // Somebody else may have been faster.
    check_free(len, page_size).err().unwrap_or_else(|| {
        Error::Memory(format!(
            "the kernel refused {} of {} hugepages, though enough are free: the container's limit of hugepages is lower; \
             in a pod raise `hugepages-{}` (see hugepages.md)",
            Size(len),
            Size(page_size),
            Size(page_size).to_string().replace(' ', "").trim_end_matches('B')
        ))
    })
}

/// `mbind(MPOL_BIND)` before the first touch. A kernel without NUMA is fine, and so is a container that forbids the call,
/// as the default seccomp profiles of Docker and containerd do without CAP_SYS_NICE: the kernel then takes pages of the
/// node that this thread runs on, and others are slower and no less right.
fn bind(at: *mut libc::c_void, len: usize, node: u32) -> Result<()> {
    const MPOL_BIND: libc::c_long = 2;
    let mut mask = [0u64; 16];
    let Some(word) = mask.get_mut(node as usize / 64) else {
        return Err(Error::Memory(format!("NUMA node {node} is out of range")));
    };
    *word = 1 << (node % 64);
    let bits = mask.len() * 64;
    // SAFETY: `mask` holds `bits` bits and outlives the call; the range is our own mapping.
    let rc = unsafe { libc::syscall(libc::SYS_mbind, at, len, MPOL_BIND, mask.as_ptr(), bits, 0) };
    if rc == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        // EPERM is never the kernel's own answer: mbind(2) has it for MPOL_MF_MOVE_ALL alone.
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(Error::os(format!("mbind of {} to NUMA node {node}", Size(len)), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_regions_are_whole_pages_and_writable() {
        let region = HugeRegion::allocate(5000, Pages::Ordinary, None).unwrap();
        assert_eq!(region.len(), 8192);
        assert!(!region.is_huge());
        let p = std::ptr::with_exposed_provenance_mut::<u8>(region.addr());
        // SAFETY: inside the region, which lives until the end of the test.
        unsafe { p.add(8191).write(7) };
        // SAFETY: as above.
        assert_eq!(unsafe { p.add(8191).read() }, 7);
    }

    #[test]
    fn too_few_hugepages_are_refused_with_the_command_that_reserves_them() {
        let error = HugeRegion::allocate(1 << 45, Pages::Huge2M, None).unwrap_err().to_string();
        assert!(error.contains("hugepages"), "{error}");
        let error = not_mapped(0, GIB).to_string();
        assert!(error.contains("`hugepages-1Gi`") || error.contains("is absent"), "{error}");
    }

    #[test]
    fn the_command_adds_what_is_missing_to_what_others_use() {
        let reserve = |pages, free| Reserve { pages, free, surplus: 0 };
        let error = too_few(10 * MIB, 2 * MIB, reserve(128, 2)).to_string();
        assert_eq!(
            error,
            "too few 2 MiB hugepages for 10 MiB: 5 needed, 2 free; reserve more with \
             `echo 131 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages` (see hugepages.md)"
        );
    }

    #[test]
    fn the_default_page_size_is_read_from_meminfo() {
        assert_eq!(parse_default_page_size("MemTotal: 1 kB\nHugepagesize:       2048 kB\n"), Some(2 * MIB));
        assert_eq!(parse_default_page_size("Hugepagesize: 1048576 kB"), Some(GIB));
        assert_eq!(parse_default_page_size("MemTotal: 1 kB"), None);
        assert_eq!(parse_default_page_size("Hugepagesize: 0 kB"), None);
    }
}

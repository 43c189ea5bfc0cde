//! Every call into the kernel's VFIO interface, behind the trait [`Kernel`].
//!
//! [`Linux`] is the real one; tests put `fake.rs` in its place. Nothing here decides anything: a method is one `open`
//! or one `ioctl`, with the operating system's own error. Whoever calls explains the error (`explain.rs`). What always
//! holds: a size in a structure is the size of the buffer that holds it, and no pointer passed to the kernel outlives
//! the call, except the memory given to [`Kernel::map_dma`], whose contract is spelled out there.
//!
//! The structures are those of vfio-bindings; the numbers of the ioctls, which it lacks, are made here.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_ulong;
use vfio_bindings::bindings::vfio;
use vfio_bindings::bindings::vfio::{vfio_device_info, vfio_irq_info, vfio_irq_set};

use crate::addr::Iova;

/// `_IO(VFIO_TYPE, VFIO_BASE + n)` of `linux/vfio.h`: no direction and no size, whatever the argument is.
const fn nr(n: u32) -> c_ulong {
    ((vfio::VFIO_TYPE as c_ulong) << 8) | (vfio::VFIO_BASE + n) as c_ulong
}

const VFIO_GET_API_VERSION: c_ulong = nr(0);
const VFIO_CHECK_EXTENSION: c_ulong = nr(1);
const VFIO_SET_IOMMU: c_ulong = nr(2);
const VFIO_GROUP_GET_STATUS: c_ulong = nr(3);
const VFIO_GROUP_SET_CONTAINER: c_ulong = nr(4);
const VFIO_GROUP_GET_DEVICE_FD: c_ulong = nr(6);
const VFIO_DEVICE_GET_INFO: c_ulong = nr(7);
const VFIO_DEVICE_GET_REGION_INFO: c_ulong = nr(8);
const VFIO_DEVICE_GET_IRQ_INFO: c_ulong = nr(9);
const VFIO_DEVICE_SET_IRQS: c_ulong = nr(10);
const VFIO_DEVICE_RESET: c_ulong = nr(11);
const VFIO_IOMMU_GET_INFO: c_ulong = nr(12);
const VFIO_IOMMU_MAP_DMA: c_ulong = nr(13);
const VFIO_IOMMU_UNMAP_DMA: c_ulong = nr(14);

/// Answers with capabilities are a few hundred bytes; one that asks for more than this is not believed.
const INFO_BYTES_MAX: usize = 64 << 10;

/// The calls of the VFIO group interface.
///
/// Device descriptors are also read, written and mapped as files, by [`read_at`], [`write_at`] and mmap, on whatever
/// descriptor the kernel gave.
pub(crate) trait Kernel: Clone + Send + Sync + 'static {
    /// An open container, group or device; dropping it closes it.
    type Fd: AsFd + Send + Sync + 'static;

    /// Opens `/dev/vfio/vfio`.
    fn open_container(&self) -> io::Result<Self::Fd>;
    /// Opens `/dev/vfio/<group>`.
    fn open_group(&self, group: u32) -> io::Result<Self::Fd>;

    /// `VFIO_GET_API_VERSION`.
    fn api_version(&self, container: &Self::Fd) -> io::Result<u32>;
    /// `VFIO_CHECK_EXTENSION`.
    fn has_extension(&self, container: &Self::Fd, extension: u32) -> io::Result<bool>;
    /// `VFIO_SET_IOMMU`; the container must have a group.
    fn set_iommu(&self, container: &Self::Fd, iommu: u32) -> io::Result<()>;
    /// `VFIO_IOMMU_GET_INFO`: a `vfio_iommu_type1_info` and its capabilities.
    fn iommu_info(&self, container: &Self::Fd) -> io::Result<Vec<u8>>;
    /// `VFIO_IOMMU_MAP_DMA`, readable and writable.
    ///
    /// # Safety
    /// The memory must stay mapped in this process, and must hold nothing but bytes that a device may change at any
    /// time, until it is unmapped with success or the container is closed.
    unsafe fn map_dma(&self, container: &Self::Fd, address: usize, iova: Iova, len: usize) -> io::Result<()>;
    /// `VFIO_IOMMU_UNMAP_DMA`: returns how many bytes were unmapped.
    fn unmap_dma(&self, container: &Self::Fd, iova: Iova, len: usize) -> io::Result<u64>;

    /// `VFIO_GROUP_GET_STATUS`: the flags.
    fn group_status(&self, group: &Self::Fd) -> io::Result<u32>;
    /// `VFIO_GROUP_SET_CONTAINER`. Closing the group undoes it.
    fn set_container(&self, group: &Self::Fd, container: &Self::Fd) -> io::Result<()>;
    /// `VFIO_GROUP_GET_DEVICE_FD`.
    fn device(&self, group: &Self::Fd, name: &str) -> io::Result<Self::Fd>;

    /// `VFIO_DEVICE_GET_INFO`.
    fn device_info(&self, device: &Self::Fd) -> io::Result<vfio_device_info>;
    /// `VFIO_DEVICE_GET_REGION_INFO`: a `vfio_region_info` and its capabilities.
    fn region_info(&self, device: &Self::Fd, index: u32) -> io::Result<Vec<u8>>;
    /// `VFIO_DEVICE_GET_IRQ_INFO`.
    fn irq_info(&self, device: &Self::Fd, index: u32) -> io::Result<vfio_irq_info>;
    /// `VFIO_DEVICE_SET_IRQS`: vector i of the index triggers `eventfds[i]`; an empty slice disables the index.
    fn set_irqs(&self, device: &Self::Fd, index: u32, eventfds: &[BorrowedFd<'_>]) -> io::Result<()>;
    /// `VFIO_DEVICE_RESET`.
    fn reset(&self, device: &Self::Fd) -> io::Result<()>;
}

/// The kernel that this process runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linux;

impl Kernel for Linux {
    type Fd = OwnedFd;

    fn open_container(&self) -> io::Result<OwnedFd> {
        open("/dev/vfio/vfio")
    }

    fn open_group(&self, group: u32) -> io::Result<OwnedFd> {
        open(&format!("/dev/vfio/{group}"))
    }

    fn api_version(&self, container: &OwnedFd) -> io::Result<u32> {
        Ok(ioctl_value(container, VFIO_GET_API_VERSION, 0)? as u32)
    }

    fn has_extension(&self, container: &OwnedFd, extension: u32) -> io::Result<bool> {
        Ok(ioctl_value(container, VFIO_CHECK_EXTENSION, extension)? > 0)
    }

    fn set_iommu(&self, container: &OwnedFd, iommu: u32) -> io::Result<()> {
        ioctl_value(container, VFIO_SET_IOMMU, iommu).map(drop)
    }

    fn iommu_info(&self, container: &OwnedFd) -> io::Result<Vec<u8>> {
        let head = [size_of::<vfio::vfio_iommu_type1_info>() as u32, 0, 0];
        ioctl_info(container, VFIO_IOMMU_GET_INFO, head)
    }

    unsafe fn map_dma(&self, container: &OwnedFd, address: usize, iova: Iova, len: usize) -> io::Result<()> {
        let mut map = vfio::vfio_iommu_type1_dma_map {
            argsz: size_of::<vfio::vfio_iommu_type1_dma_map>() as u32,
            flags: vfio::VFIO_DMA_MAP_FLAG_READ | vfio::VFIO_DMA_MAP_FLAG_WRITE,
            vaddr: address as u64,
            iova: iova.0,
            size: len as u64,
        };
        // SAFETY: this ioctl takes exactly this structure. That the device may then touch the memory behind `vaddr` is
        // what our caller vouches for.
        unsafe { ioctl_struct(container, VFIO_IOMMU_MAP_DMA, &mut map) }
    }

    fn unmap_dma(&self, container: &OwnedFd, iova: Iova, len: usize) -> io::Result<u64> {
        let mut unmap = vfio::vfio_iommu_type1_dma_unmap {
            argsz: size_of::<vfio::vfio_iommu_type1_dma_unmap>() as u32,
            flags: 0,
            iova: iova.0,
            size: len as u64,
            data: Default::default(),
        };
        // SAFETY: this ioctl takes exactly this structure; without flags the trailing array is not looked at.
        unsafe { ioctl_struct(container, VFIO_IOMMU_UNMAP_DMA, &mut unmap) }?;
        Ok(unmap.size)
    }

    fn group_status(&self, group: &OwnedFd) -> io::Result<u32> {
        let argsz = size_of::<vfio::vfio_group_status>() as u32;
        let mut status = vfio::vfio_group_status { argsz, flags: 0 };
        // SAFETY: this ioctl fills exactly this structure.
        unsafe { ioctl_struct(group, VFIO_GROUP_GET_STATUS, &mut status) }?;
        Ok(status.flags)
    }

    fn set_container(&self, group: &OwnedFd, container: &OwnedFd) -> io::Result<()> {
        let mut fd: i32 = container.as_raw_fd();
        // SAFETY: this ioctl reads one int, the descriptor, which is open.
        unsafe { ioctl_struct(group, VFIO_GROUP_SET_CONTAINER, &mut fd) }
    }

    fn device(&self, group: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
        let name = CString::new(name)?;
        // SAFETY: this ioctl reads a C string, which `name` is for the length of the call.
        let fd = unsafe { libc::ioctl(group.as_raw_fd(), VFIO_GROUP_GET_DEVICE_FD, name.as_ptr()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor (close-on-exec) for us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn device_info(&self, device: &OwnedFd) -> io::Result<vfio_device_info> {
        let argsz = size_of::<vfio_device_info>() as u32;
        let mut info = vfio_device_info { argsz, ..Default::default() };
        // SAFETY: this ioctl fills exactly this structure, up to `argsz`.
        unsafe { ioctl_struct(device, VFIO_DEVICE_GET_INFO, &mut info) }?;
        Ok(info)
    }

    fn region_info(&self, device: &OwnedFd, index: u32) -> io::Result<Vec<u8>> {
        let head = [size_of::<vfio::vfio_region_info>() as u32, 0, index];
        ioctl_info(device, VFIO_DEVICE_GET_REGION_INFO, head)
    }

    fn irq_info(&self, device: &OwnedFd, index: u32) -> io::Result<vfio_irq_info> {
        let argsz = size_of::<vfio_irq_info>() as u32;
        let mut info = vfio_irq_info { argsz, index, ..Default::default() };
        // SAFETY: this ioctl fills exactly this structure, up to `argsz`.
        unsafe { ioctl_struct(device, VFIO_DEVICE_GET_IRQ_INFO, &mut info) }?;
        Ok(info)
    }

    fn set_irqs(&self, device: &OwnedFd, index: u32, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let data = if eventfds.is_empty() { vfio::VFIO_IRQ_SET_DATA_NONE } else { vfio::VFIO_IRQ_SET_DATA_EVENTFD };
        // argsz, flags, index, start, count, then one descriptor a vector: all of them 32 bits wide.
        const HEAD_WORDS: usize = 5;
        const { assert!(size_of::<vfio_irq_set>() == HEAD_WORDS * size_of::<u32>()) };
        let argsz = ((HEAD_WORDS + eventfds.len()) * size_of::<u32>()) as u32;
        let flags = data | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
        let mut words = vec![argsz, flags, index, 0, eventfds.len() as u32];
        words.extend(eventfds.iter().map(|fd| fd.as_raw_fd() as u32));
        // SAFETY: this ioctl reads `argsz` bytes, which is the length of `words`: a `vfio_irq_set` (the assertion holds
        // its layout) followed by `count` descriptors, all open for the length of the call.
        check(unsafe { libc::ioctl(device.as_raw_fd(), VFIO_DEVICE_SET_IRQS, words.as_ptr()) }).map(drop)
    }

    fn reset(&self, device: &OwnedFd) -> io::Result<()> {
        ioctl_value(device, VFIO_DEVICE_RESET, 0).map(drop)
    }
}

fn open(path: &str) -> io::Result<OwnedFd> {
    // The standard library opens close-on-exec.
    OpenOptions::new().read(true).write(true).open(path).map(OwnedFd::from)
}

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// An ioctl of this file whose argument is a number or nothing.
fn ioctl_value(fd: &OwnedFd, request: c_ulong, value: u32) -> io::Result<libc::c_int> {
    // SAFETY: the callers pass requests whose argument the kernel takes as a number, so no memory is touched.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, c_ulong::from(value)) })
}

/// An ioctl whose argument is a structure, which the kernel may change.
///
/// # Safety
/// `T` must be what the request takes, and its contents must make the request one that leaves this process's other
/// memory alone.
unsafe fn ioctl_struct<T>(fd: &OwnedFd, request: c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the pointer is to a whole `T`; the rest is the caller's promise.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) }).map(drop)
}

/// An ioctl that answers with a structure and, behind it, capabilities whose length it tells in its first word.
///
/// `head` is `argsz` (the size of the plain structure), `flags` and the next word, which every such structure has.
fn ioctl_info(fd: &OwnedFd, request: c_ulong, head: [u32; 3]) -> io::Result<Vec<u8>> {
    let mut len = head[0] as usize;
    // Twice suffices, unless the answer grows between the calls.
    for _ in 0..4 {
        // Words of 64 bits align the structure and, as its offsets are multiples of 8, its capabilities.
        let mut words = vec![0u64; len.div_ceil(8)];
        words[0] = u64::from_ne_bytes(pair(len as u32, head[1]));
        words[1] = u64::from_ne_bytes(pair(head[2], 0));
        // SAFETY: the kernel writes at most `argsz` = `len` bytes, which `words` has.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) })?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect();
        let needed = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if needed <= len {
            return Ok(bytes);
        }
        if needed > INFO_BYTES_MAX {
            break;
        }
        len = needed;
    }
    Err(io::Error::other("the kernel's answer does not fit into any buffer of a sensible size"))
}

/// Two 32-bit words as they lie in memory.
fn pair(first: u32, second: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Reads exactly `buffer.len()` bytes of a device's region.
pub(crate) fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    // SAFETY: the buffer is ours and as long as we say.
    let n = unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t) };
    whole(n, buffer.len())
}

/// Writes exactly `bytes` to a device's region.
pub(crate) fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> io::Result<()> {
    // SAFETY: the bytes are ours and as many as we say.
    let n = unsafe { libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset as libc::off_t) };
    whole(n, bytes.len())
}

fn whole(n: isize, len: usize) -> io::Result<()> {
    match usize::try_from(n) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(n) if n == len => Ok(()),
        Ok(n) => Err(io::Error::other(format!("{n} of {len} bytes transferred"))),
    }
}

/// An eventfd that never blocks, starting at 0.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// True when the eventfd was signalled since it was last asked.
pub(crate) fn was_signalled(fd: BorrowedFd<'_>) -> bool {
    let mut count = [0u8; 8];
    // SAFETY: the buffer is ours and 8 bytes long, which is what an eventfd delivers.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) == count.len() as isize }
}

/// The soft limit of `RLIMIT_MEMLOCK` in bytes; none when it is unlimited.
pub(crate) fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours; the call fills it.
    let rc = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (rc == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_numbers_are_those_of_linux() {
        // Written out by hand from `';' = 0x3b` and base 100 = 0x64.
        assert_eq!(VFIO_GET_API_VERSION, 0x3b64);
        assert_eq!(VFIO_GROUP_GET_DEVICE_FD, 0x3b6a);
        assert_eq!(VFIO_IOMMU_UNMAP_DMA, 0x3b72);
    }

    #[test]
    fn calls_on_a_descriptor_that_is_no_vfio_report_the_system_s_error() {
        let fd = eventfd().unwrap();
        assert!(Linux.api_version(&fd).is_err());
        assert!(Linux.iommu_info(&fd).is_err());
        assert!(Linux.device_info(&fd).is_err());
        assert!(Linux.set_irqs(&fd, 2, &[fd.as_fd()]).is_err());
        assert!(Linux.device(&fd, "0000:01:10.0").is_err());
        assert_eq!(Linux.open_group(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_eventfd_tells_once_that_it_was_signalled() {
        let fd = eventfd().unwrap();
        assert!(!was_signalled(fd.as_fd()));
        let mut writer = std::fs::File::from(fd.try_clone().unwrap());
        writer.write_all(&1u64.to_ne_bytes()).unwrap();
        assert!(was_signalled(fd.as_fd()));
        assert!(!was_signalled(fd.as_fd()));
    }

    #[test]
    fn a_short_transfer_is_an_error() {
        assert!(whole(4, 4).is_ok());
        assert!(whole(2, 4).unwrap_err().to_string().contains("2 of 4"));
    }
}

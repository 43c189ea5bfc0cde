//! Memory in files: pages of the BAR that are shared with the client, and the client's own. Of the latter, each file that it shares is mapped once, however many pieces of it are mapped for the device.
//!
//! A guest behind an emulated IOMMU maps and unmaps single pages of one memfd all the time. What always holds: a map is
//! as long as was asked for when it was made, and it goes when its last piece is unmapped.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use memmap2::{MmapOptions, MmapRaw};

/// A file in memory, of `len` zeroes, and all of it mapped.
pub(super) fn memory(len: u32) -> io::Result<(File, Arc<MmapRaw>)> {
    // SAFETY: the name is a C string; the flag is one of memfd_create(2).
    let fd = unsafe { libc::memfd_create(c"vfring-bar".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len.into())?;
    let map = MmapOptions::new().len(len as usize).map_raw(&file)?;
    Ok((file, Arc::new(map)))
}

/// A file that is mapped.
struct Known {
    device: u64,
    inode: u64,
    writable: bool,
    map: Weak<MmapRaw>,
}

/// The files that a client shares.
#[derive(Default)]
pub(super) struct Files(Vec<Known>);

impl Files {
    /// The map of `file` from its beginning, at least to `end`.
    ///
    /// # Errors
    /// `InvalidInput` when the file ends before; what mmap says.
    pub(super) fn map(&mut self, file: &File, end: u64, writable: bool) -> io::Result<Arc<MmapRaw>> {
        let metadata = file.metadata()?;
        if end > metadata.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.retain(|known| known.map.strong_count() > 0);
        let same = |k: &&Known| (k.device, k.inode, k.writable) == (metadata.dev(), metadata.ino(), writable);
        for known in self.0.iter().filter(same) {
            // A file may have grown since it was mapped.
            if let Some(map) = known.map.upgrade().filter(|map| map.len() as u64 >= end) {
                return Ok(map);
            }
        }
        let len = usize::try_from(metadata.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut options = MmapOptions::new();
        options.len(len);
        let map = Arc::new(if writable { options.map_raw(file)? } else { options.map_raw_read_only(file)? });
        let (device, inode) = (metadata.dev(), metadata.ino());
        self.0.push(Known { device, inode, writable, map: Arc::downgrade(&map) });
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_mapped_once_and_only_as_long_as_it_is() {
        let path = std::env::temp_dir().join(format!("vfring-files-{}", std::process::id()));
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        open().set_len(8192).unwrap();
        let mut files = Files::default();
        let first = files.map(&open(), 4096, true).unwrap();
        assert!(Arc::ptr_eq(&first, &files.map(&open(), 8192, true).unwrap()));
        assert!(!Arc::ptr_eq(&first, &files.map(&open(), 8192, false).unwrap()));
        assert!(files.map(&open(), 8193, true).is_err());
        open().set_len(16384).unwrap();
        let longer = files.map(&open(), 16384, true).unwrap();
        assert_eq!((first.len(), longer.len()), (8192, 16384));
        drop((first, longer));
        files.map(&open(), 1, true).unwrap();
        assert_eq!(files.0.len(), 1, "maps that nobody uses are forgotten");
        std::fs::remove_file(path).unwrap();
    }
}

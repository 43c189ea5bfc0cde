//! The files that a test adds to its guest, as a second archive behind the base initramfs.
//!
//! Linux unpacks concatenated archives one after the other into the same tree, so the base is built once (by
//! `tests/vm/prepare`) and a boot only appends. The format is "newc": a header of thirteen 8-digit hexadecimal fields,
//! the name, the data, each padded to 4 bytes, and an entry named `TRAILER!!!` at the end. Always holds: a folder is
//! listed before what lies in it, because the kernel creates no missing parents.

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive under construction.
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    next_inode: u32,
}

impl Archive {
    pub(super) fn new() -> Archive {
        // The base archive's inode numbers do not matter here: only files with several links are matched by them.
        Archive { bytes: Vec::new(), folders: BTreeSet::new(), next_inode: 1 }
    }

    /// Adds an executable file at an absolute guest path, with the folders that lead to it.
    pub(super) fn add(&mut self, guest_path: &str, contents: &[u8]) {
        let path = guest_path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, 2, &[]);
            }
        }
        self.entry(path, PROGRAM, 1, contents);
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.next_inode = 0;
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, links: u32, contents: &[u8]) {
        let name_size = name.len() as u32 + 1;
        let fields = [self.next_inode, mode, 0, 0, links, 0, contents.len() as u32, 0, 0, 0, 0, name_size, 0];
        self.next_inode += 1;
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn folders_come_first_and_once_and_everything_is_aligned() {
        let mut archive = Archive::new();
        archive.add("/opt/vfring/l2fwd", b"12345");
        archive.add("/opt/vfring/rxdump", b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name_at = at + 110;
            names.push(String::from_utf8(bytes[name_at..name_at + name_size - 1].to_vec()).unwrap());
            at = (name_at + name_size).next_multiple_of(4) + size.next_multiple_of(4);
        }
        assert_eq!(names, ["opt", "opt/vfring", "opt/vfring/l2fwd", "opt/vfring/rxdump", "TRAILER!!!"]);
    }
}

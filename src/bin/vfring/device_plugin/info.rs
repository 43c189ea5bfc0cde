//! Device-information files: what Multus copies into a pod's network-status, so that the pod can tell which VF belongs to
//! which network.
//!
//! Owns the files in the directory `devinfo/dp`. They are written when a device is advertised, not when it is handed
//! out: the directory is empty after a restart of the machine, and kubelet then allocates nothing anew.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use vfring::plugin::{DeviceInfoFile, Pools};

/// The directory, and what was written there.
pub(super) struct InfoFiles {
    directory: PathBuf,
    written: BTreeMap<String, String>,
}

impl InfoFiles {
    pub(super) fn new(directory: PathBuf) -> InfoFiles {
        InfoFiles { directory, written: BTreeMap::new() }
    }

    /// Writes the files of all advertised devices, and removes those of devices that no longer are.
    pub(super) fn follow(&mut self, pools: &Pools) -> io::Result<()> {
        let wanted = pools
            .list()
            .iter()
            .flat_map(|pool| pool.devices().map(|device| pool.resource().device_info(device.address)));
        let wanted: BTreeMap<String, String> = wanted.map(|DeviceInfoFile { name, content }| (name, content)).collect();
        for name in self.written.keys().filter(|name| !wanted.contains_key(*name)) {
            match fs::remove_file(self.directory.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.written.retain(|name, _| wanted.contains_key(name));
        for (name, content) in wanted {
            let path = self.directory.join(&name);
            // Another may have emptied the directory.
            if self.written.get(&name) != Some(&content) || !path.exists() {
                write(&self.directory, &path, &content)?;
                self.written.insert(name, content);
            }
        }
        Ok(())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Writes a file whole or not at all.
fn write(directory: &Path, path: &Path, content: &str) -> io::Result<()> {
    if !directory.exists() {
        make_directories(directory)?;
    }
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    fs::write(&new, content)?;
    fs::set_permissions(&new, Permissions::from_mode(0o444))?;
    fs::rename(new, path)
}

/// Makes the directory and those above it, which Multus must be able to enter whatever files of this process are.
fn make_directories(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent().filter(|parent| !parent.exists()) {
        make_directories(parent)?;
    }
    match DirBuilder::new().create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

//! The socket on which kubelet finds the plugin of one resource.
//!
//! Owns the file. What always holds: what another process listens on is left alone, and so is what is no socket or
//! belongs to another user; a socket is removed only while its file is still the one that was made here.
#![forbid(unsafe_code)]

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use vfring::{Error, Result};

use super::process;

/// How long a connection to a socket that is found may take: it is there at once or never.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// A socket's file that was made here.
pub(super) struct OwnSocket {
    path: PathBuf,
    identity: (u64, u64),
}

/// The device and inode of a file. The kernel gives an inode to nobody else while a socket that was bound to it is open.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl OwnSocket {
    /// Makes the socket, in the place of one that an earlier run left.
    pub(super) async fn bind(path: PathBuf) -> Result<(OwnSocket, UnixListener)> {
        let os = |context: &str, error| Error::os(format!("{context} {}", path.display()), error);
        match fs::symlink_metadata(&path) {
            Ok(found) => {
                check_is_left_over(&path, &found).await?;
                fs::remove_file(&path).map_err(|error| os("removing the socket of an earlier run,", error))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(os("looking at", error)),
        }
        let listener = UnixListener::bind(&path).map_err(|error| {
            let context =
                "the plugin must be able to write to kubelet's directory, which --plugin-dir names; listening on";
            os(context, error)
        })?;
        let made = fs::symlink_metadata(&path).map_err(|error| os("looking at", error))?;
        Ok((OwnSocket { identity: identity(&made), path }, listener))
    }

    /// False when it was removed, or another was made in its place.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity)
    }

    /// Removes it, if it is still there.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self.is_there() {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }
}

/// Checks that what is in the way is a socket of this user on which nobody listens.
async fn check_is_left_over(path: &Path, found: &Metadata) -> Result<()> {
    let in_the_way = |what: String| Err(Error::Config(format!("{} is in the way: {what}", path.display())));
    if !found.file_type().is_socket() {
        return in_the_way("it is no socket, and not of this plugin; move it away".into());
    }
    if found.uid() != process::user() {
        return in_the_way(format!("it is a socket of user {}; remove it if nothing needs it", found.uid()));
    }
    match timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        _ => in_the_way("another process listens on it; does a second device plugin serve this resource?".into()),
    }
}

//! vfio-user: a device that another process serves on a unix socket, spoken to with VFIO's questions as messages.
//!
//! [`VfioUserBus`] is all that the rest of the crate sees. Below it: `connection` sends a message and waits for its
//! reply, `device` owns the connection, the pages of BAR0 that are shared with the server and the doorbells that are not, and
//! `bus` is what drivers drive. Written from the vfio-user protocol specification 0.9.2 (QEMU, docs/interop/vfio-user)
//! and VFIO's structures.
//!
//! The life of a device:
//!
//! 1. The socket is connected and a version agreed on.
//! 2. The server is asked what it has: a PCI function, its regions, its interrupts.
//! 3. Memory is shared by descriptor, so every region that is mapped for the device lies in a memfd.
//! 4. A server that closes its socket, keeps silent for longer than [`REPLY_DEADLINE`] or breaks the protocol is not spoken
//!    to again: registers read all ones, and the port is dead.
//!
//! The server can reach what it was given and nothing else: a memfd that is unmapped here stays the server's, and the
//! addresses are ours again.

mod bus;
mod connection;
mod device;

#[cfg(test)]
mod tests;

pub(crate) use bus::VfioUserBus;

/// Takes a device over from a server that says these bytes, whatever it is asked, and closes; for fuzzing.
#[cfg(any(fuzzing, test))]
pub fn parse_anything(bytes: &[u8]) {
    use std::io::Write;
    let Ok((ours, mut theirs)) = std::os::unix::net::UnixStream::pair() else { return };
    // More than a socket holds would wait for a reader.
    let _ = theirs.write_all(&bytes[..bytes.len().min(1 << 16)]);
    let _ = theirs.shutdown(std::net::Shutdown::Write);
    if let Err(error) = device::Device::attach("vfio-user:fuzz", ours, Duration::from_secs(1)) {
        assert!(!error.to_string().contains('\n'), "an error is one line: {error}");
    }
}

use std::time::Duration;

/// How long a server may take for a reply. Messages are answered in some ten microseconds; a server on a busy machine,
/// or one that resets a device, takes milliseconds (measured).
const REPLY_DEADLINE: Duration = Duration::from_secs(5);

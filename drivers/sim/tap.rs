//! A TAP interface as a wire: what the VF sends arrives on the interface of the host, and the other way round.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use super::frame::MIN_FRAME;
use crate::error::{Error, Result};

/// Longest frame that a TAP can hand over: 64 KiB with header.
const FRAME_MAX: usize = 65536 + 18;
/// How long an empty TAP is left alone: asking costs a system call.
const REST: Duration = Duration::from_micros(20);

/// An attached TAP interface.
pub(super) struct Tap {
    file: File,
    buffer: Vec<u8>,
    rest_until: Duration,
}

impl Tap {
    /// Attaches to the TAP interface `name`, making it if it does not exist.
    pub(super) fn open(name: &str) -> Result<Tap> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(Error::Config(format!(
                "'{name}' is no interface name: 1 to {} characters",
                libc::IFNAMSIZ - 1
            )));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|e| Error::os("opening /dev/net/tun (load it with `modprobe tun`)", e))?;
        // SAFETY: `ifreq` is a plain C struct for which all-zero is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF takes a pointer to an `ifreq`, which outlives the call; the name is terminated because it
        // is shorter than the field.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(Error::last_os(format!(
                "attaching to TAP '{name}' (make it for this user with `ip tuntap add dev {name} mode tap user $USER`, \
                 or run with CAP_NET_ADMIN; another program may have it)"
            )));
        }
        Ok(Tap { file, buffer: vec![0; FRAME_MAX], rest_until: Duration::ZERO })
    }

    /// Hands a frame to the host; a full or downed interface drops it, as a cable would.
    pub(super) fn send(&mut self, frame: &[u8]) {
        let _ = self.file.write(frame);
    }

    /// Takes up to `limit` frames from the host.
    pub(super) fn receive(&mut self, limit: usize, now: Duration, mut frame: impl FnMut(&[u8])) -> usize {
        if now < self.rest_until {
            return 0;
        }
        for taken in 0..limit {
            match self.file.read(&mut self.buffer) {
                Ok(len) => {
                    // The host's stack does not pad; a wire carries no frame shorter than this.
                    let padded = len.max(MIN_FRAME);
                    self.buffer[len..padded].fill(0);
                    frame(&self.buffer[..padded]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.rest_until = now + REST;
                    return taken;
                }
            }
        }
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "sixteen_or_longer"] {
            assert!(Tap::open(name).err().unwrap().to_string().contains("interface name"));
        }
    }

    #[test]
    fn an_interface_that_is_no_tap_is_refused_with_the_fix() {
        // Without /dev/net/tun or the right to use it, it is refused too, each time with what mends it.
        let error = Tap::open("lo").err().unwrap().to_string();
        assert!(error.contains("ip tuntap add dev lo") || error.contains("modprobe tun"), "{error}");
    }
}

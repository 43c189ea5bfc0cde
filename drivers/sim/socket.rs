//! A pair of unix datagram sockets as a wire between two processes, one frame (without FCS) in each datagram.
//!
//! The two ends of the pair PATH are the sockets PATH-a and PATH-b: whoever comes first is a. An end that is killed and
//! started again takes its place again. As on a cable, frames for an end that is not there, or that does not keep
//! up, are lost.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame::MIN_FRAME;
use crate::error::{Error, Result};

/// Longest frame on the wire.
const FRAME_MAX: usize = 65536;
/// How often an end looks for its peer, which may be another socket since: a system call each time.
const SEARCH: Duration = Duration::from_millis(50);
/// How long an empty socket is left alone: asking costs a system call.
const REST: Duration = Duration::from_micros(20);

/// One end of a pair.
pub(super) struct SocketWire {
    socket: UnixDatagram,
    own: PathBuf,
    peer: PathBuf,
    search_at: Duration,
    rest_until: Duration,
    buffer: Vec<u8>,
}

impl SocketWire {
    /// Takes the first free end of the pair at `path`.
    pub(super) fn open(path: &str) -> Result<SocketWire> {
        let [a, b] = ["-a", "-b"].map(|end| PathBuf::from(format!("{path}{end}")));
        for (own, peer) in [(&a, &b), (&b, &a)] {
            if is_listened_to(own) {
                continue;
            }
            // What nobody listens to was left behind by a process that was killed.
            let _ = std::fs::remove_file(own);
            let failed = |e| Error::os(format!("making the end {} of a pair", own.display()), e);
            let socket = UnixDatagram::bind(own).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            let (own, peer, buffer) = (own.clone(), peer.clone(), vec![0; FRAME_MAX]);
            return Ok(SocketWire { socket, own, peer, search_at: Duration::ZERO, rest_until: Duration::ZERO, buffer });
        }
        Err(Error::Config(format!("the pair '{path}' already has two ends ({} and {})", a.display(), b.display())))
    }

    /// Hands a frame to the peer.
    pub(super) fn send(&mut self, frame: &[u8]) {
        let _ = self.socket.send(frame);
    }

    /// Takes up to `limit` frames from the peer.
    pub(super) fn receive(&mut self, limit: usize, now: Duration, mut frame: impl FnMut(&[u8])) -> usize {
        if now < self.rest_until {
            return 0;
        }
        if now >= self.search_at {
            self.search_at = now + SEARCH;
            // Connected to each other, the ends are spared the system's limit of ten datagrams that wait.
            let _ = self.socket.connect(&self.peer);
        }
        for taken in 0..limit {
            match self.socket.recv(&mut self.buffer) {
                Ok(0) => {}
                Ok(len) => {
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

impl Drop for SocketWire {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.own);
    }
}

/// True when a socket is bound at `path`.
fn is_listened_to(path: &Path) -> bool {
    let tried = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    // One that is connected to somebody else answers with another error.
    !tried.is_err_and(|e| matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(wire: &mut SocketWire, now: u64) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        wire.receive(64, Duration::from_millis(now), |frame| frames.push(frame.to_vec()));
        frames
    }

    #[test]
    fn frames_pass_between_two_ends_and_one_of_them_may_be_killed() {
        let path = std::env::temp_dir().join(format!("vfring-pair-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let mut a = SocketWire::open(path).unwrap();
        a.send(&[1; 60]);
        let mut b = SocketWire::open(path).unwrap();
        assert!(SocketWire::open(path).err().unwrap().to_string().contains("two ends"));
        assert!(received(&mut a, 0).is_empty() && received(&mut b, 0).is_empty());
        for n in 0..40 {
            a.send(&[n; 60]);
        }
        b.send(&[9; 20]);
        assert_eq!(received(&mut b, 1), (0..40).map(|n| vec![n; 60]).collect::<Vec<_>>());
        assert_eq!(received(&mut a, 1), [[[9; 20].as_slice(), &[0; 40]].concat()]);
        // Killed: its file stays, and nobody is behind it.
        let left = b.own.clone();
        drop(b);
        drop(UnixDatagram::bind(&left).unwrap());
        let mut b = SocketWire::open(path).unwrap();
        assert_eq!(b.own, left);
        assert!(received(&mut a, 100).is_empty() && received(&mut b, 100).is_empty());
        b.send(&[7; 60]);
        a.send(&[8; 60]);
        assert_eq!((received(&mut a, 101), received(&mut b, 101)), (vec![vec![7; 60]], vec![vec![8; 60]]));
    }
}

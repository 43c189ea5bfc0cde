//! One message and its reply: the framing of vfio-user on a stream socket, with descriptors beside the bytes.
//!
//! Owns the socket and the numbering of messages. What always holds: a reply is taken only if its number, command and length
//! are right; every wait ends at the deadline; after a failure that leaves the stream in an unknown state
//! nothing is sent or read again.

use std::fmt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Bytes of a message's header: number, command, length, flags, error.
const HEADER: usize = 16;
/// Longest reply that makes sense here: a region with its capabilities.
const MESSAGE_MAX: usize = 16 << 10;
/// Most descriptors that may come with a reply.
const FDS_MAX: usize = 16;
/// Flags of a header: the type in four bits, and two more.
const TYPE: u32 = 0xf;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// The messages that are sent, under their names in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DeviceReset = 13,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Version => "VERSION",
            Command::DmaMap => "DMA_MAP",
            Command::DmaUnmap => "DMA_UNMAP",
            Command::DeviceGetInfo => "DEVICE_GET_INFO",
            Command::DeviceGetRegionInfo => "DEVICE_GET_REGION_INFO",
            Command::DeviceGetIrqInfo => "DEVICE_GET_IRQ_INFO",
            Command::DeviceSetIrqs => "DEVICE_SET_IRQS",
            Command::RegionRead => "REGION_READ",
            Command::RegionWrite => "REGION_WRITE",
            Command::DeviceReset => "DEVICE_RESET",
        })
    }
}

/// What came back.
pub(super) struct Reply {
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// A connected server.
pub(super) struct Connection {
    name: String,
    stream: UnixStream,
    deadline: Duration,
    next: u16,
    /// The stream is in an unknown state, or closed.
    broken: bool,
    /// The server closed it.
    closed: bool,
    buffer: Vec<u8>,
}

impl Connection {
    /// A connection that waits at most `deadline` for each reply.
    pub(super) fn new(name: String, stream: UnixStream, deadline: Duration) -> Connection {
        Connection { name, stream, deadline, next: 0, broken: false, closed: false, buffer: Vec::new() }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// True when the server has closed the connection, or ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends a message and waits for its reply.
    ///
    /// # Errors
    /// [`Error::Os`] or [`Error::Device`] when the server refuses; [`Error::Timeout`] after the deadline and [`Error::Device`] for
    /// a reply that cannot be, after which the connection is broken; [`Error::Gone`] on a broken one.
    pub(super) fn request(&mut self, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        let until = Instant::now() + self.deadline;
        let number = self.send(command, payload, fds, 0, until)?;
        self.broken = true; // until the reply is whole
        let reply = self.receive(command, number, until)?;
        self.broken = false;
        let (header, reply) = reply;
        if header.flags & ERROR == 0 {
            return Ok(reply);
        }
        match header.error {
            0 => Err(Error::device(&self.name, format!("the server refuses {command}"))),
            errno => Err(Error::os(
                format!("{}: the server refuses {command}", self.name),
                io::Error::from_raw_os_error(errno as i32),
            )),
        }
    }

    /// Sends a message that asks for no reply.
    pub(super) fn post(&mut self, command: Command, payload: &[u8]) -> Result<()> {
        let until = Instant::now() + self.deadline;
        self.send(command, payload, &[], NO_REPLY, until).map(drop)
    }

    fn send(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        flags: u32,
        until: Instant,
    ) -> Result<u16> {
        if self.broken {
            return Err(Error::gone(&self.name));
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.buffer.clear();
        self.buffer.extend(number.to_le_bytes());
        self.buffer.extend((command as u16).to_le_bytes());
        self.buffer.extend(((HEADER + payload.len()) as u32).to_le_bytes());
        self.buffer.extend(flags.to_le_bytes());
        self.buffer.extend(0u32.to_le_bytes());
        self.buffer.extend(payload);
        self.broken = true; // until the message is out
        let (mut sent, mut fds) = (0, fds);
        while sent < self.buffer.len() {
            match send_some(&self.stream, &self.buffer[sent..], fds) {
                // The descriptors went with the first byte.
                Ok(n) => (sent, fds) = (sent + n, &[]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(libc::POLLOUT, command, until)?,
                Err(e) => return Err(self.hung_up(command, &e.to_string())),
            }
        }
        self.broken = false;
        Ok(number)
    }

    fn receive(&mut self, command: Command, number: u16, until: Instant) -> Result<(Header, Reply)> {
        let mut fds = Vec::new();
        let mut bytes = [0; HEADER];
        self.fill(&mut bytes, &mut fds, command, until)?;
        let header = Header::parse(&bytes);
        let malformed = |what: String| Err(Error::device(&self.name, format!("the reply to {command} {what}")));
        if header.flags & TYPE != TYPE_REPLY || header.command != command as u16 {
            return malformed(format!("is a message {} with the flags {:#x}", header.command, header.flags));
        }
        if header.number != number {
            return malformed(format!("has the number {}, and {number} was asked", header.number));
        }
        let len = header.len as usize;
        if !(HEADER..=MESSAGE_MAX).contains(&len) {
            return malformed(format!("claims to be {len} bytes long"));
        }
        let mut payload = vec![0; len - HEADER];
        self.fill(&mut payload, &mut fds, command, until)?;
        Ok((header, Reply { payload, fds }))
    }

    /// Reads exactly `bytes`, and whatever descriptors come with them.
    fn fill(&mut self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>, command: Command, until: Instant) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match receive_some(&self.stream, &mut bytes[filled..], fds) {
                Ok(0) => return Err(self.hung_up(command, "it closed the connection")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(libc::POLLIN, command, until)?,
                Err(e) => return Err(self.hung_up(command, &e.to_string())),
            }
        }
        Ok(())
    }

    fn hung_up(&mut self, command: Command, why: &str) -> Error {
        self.closed = true;
        Error::device(&self.name, format!("the server is gone at {command}: {why}"))
    }

    /// Waits until the socket is ready, at most until the deadline.
    fn wait(&self, events: libc::c_short, command: Command, until: Instant) -> Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::timeout(
                &self.name,
                format!(
                    "no answer to {command} within {:?}: a server has one client at a time, and another may have it",
                    self.deadline
                ),
            ));
        }
        let mut fd = libc::pollfd { fd: self.stream.as_raw_fd(), events, revents: 0 };
        let millis = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
        // SAFETY: one pollfd, which lives through the call. Whatever it says, the next attempt finds out.
        unsafe { libc::poll(&raw mut fd, 1, millis) };
        Ok(())
    }
}

/// The fields of a header.
struct Header {
    number: u16,
    command: u16,
    len: u32,
    flags: u32,
    error: u32,
}

impl Header {
    fn parse(b: &[u8; HEADER]) -> Header {
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        Header {
            number: u16::from_le_bytes([b[0], b[1]]),
            command: u16::from_le_bytes([b[2], b[3]]),
            len: u32_at(4),
            flags: u32_at(8),
            error: u32_at(12),
        }
    }
}

/// Room for the descriptors of one message, aligned as control messages are.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);
// SAFETY: CMSG_SPACE is arithmetic.
const CONTROL: usize = unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<libc::c_int>()) as u32) } as usize;

/// Sends what the socket takes at once.
pub(super) fn send_some(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let fds = &fds[..fds.len().min(FDS_MAX)];
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a msghdr is plain integers and pointers, for which all zeroes is a value: no name, no parts, no control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as _;
        // SAFETY: the control buffer is aligned for a header and long enough for FDS_MAX descriptors, so the first header
        // exists and its data has room for these. A BorrowedFd is a C int (repr(transparent)).
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), len as usize);
        }
    }
    // SAFETY: the message's parts point to memory that lives through the call; sendmsg only reads them.
    let n = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Receives what is there; descriptors are appended to `fds`.
fn receive_some(stream: &UnixStream, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: as in `send_some`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (control.0.as_mut_ptr().cast(), CONTROL as _);
    // SAFETY: the parts are ours, as long as we say, and live through the call.
    let n = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel filled the control buffer and said how far; the macros walk within that.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers that lie wholly in what the kernel wrote.
        let (level, kind, len) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic.
            let count = (len - unsafe { libc::CMSG_LEN(0) } as usize) / size_of::<libc::c_int>();
            for i in 0..count {
                // SAFETY: the kernel wrote `count` descriptors behind the header, perhaps not aligned for our eyes, and
                // made each for us alone.
                fds.push(unsafe {
                    OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<libc::c_int>().add(i).read_unaligned())
                });
            }
        }
        // SAFETY: `header` is one that these macros returned for this message.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(n)
}

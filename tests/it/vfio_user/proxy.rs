//! Between a client and its server: a relay that closes both connections at a message of the test's choice.

use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use vfring::DeviceSpec;

const HEADER: usize = 16;
/// The flag of a message that wants no reply.
const NO_REPLY: u8 = 1 << 4;
/// Bytes of control messages: enough for 16 descriptors.
const CONTROL: usize = 128;

/// A relay for one client.
pub struct Proxy {
    relay: JoinHandle<usize>,
    path: PathBuf,
}

impl Proxy {
    /// Relays `limit` messages of the next client to the server at `server`, then closes.
    pub fn start(server: &Path, limit: usize) -> Proxy {
        let path = PathBuf::from(format!("{}.relay", server.display()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = server.to_owned();
        let relay = thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            relay(&client, &UnixStream::connect(server).expect("the server"), limit)
        });
        Proxy { relay, path }
    }

    /// How a port names it.
    pub fn spec(&self) -> DeviceSpec {
        DeviceSpec::VfioUser(self.path.clone())
    }

    /// Messages that it relayed, once the connections are closed.
    pub fn relayed(self) -> usize {
        let relayed = self.relay.join().expect("a relay");
        let _ = std::fs::remove_file(&self.path);
        relayed
    }
}

fn relay(client: &UnixStream, server: &UnixStream, limit: usize) -> usize {
    for relayed in 0..limit {
        let Some(message) = receive(client) else { return relayed };
        send(server, &message);
        if message.bytes[8] & NO_REPLY == 0 {
            let Some(reply) = receive(server) else { return relayed };
            send(client, &reply);
        }
    }
    limit
}

struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// One whole message; none when the stream ends.
fn receive(stream: &UnixStream) -> Option<Message> {
    let mut message = Message { bytes: vec![0; HEADER], fds: Vec::new() };
    fill(stream, &mut message, 0)?;
    let len = u32::from_le_bytes(message.bytes[4..8].try_into().ok()?) as usize;
    message.bytes.resize(len, 0);
    fill(stream, &mut message, HEADER)?;
    Some(message)
}

/// Reads the bytes from `at` on, and the descriptors that come with them.
fn fill(stream: &UnixStream, message: &mut Message, mut at: usize) -> Option<()> {
    while at < message.bytes.len() {
        let mut control = [0u64; CONTROL / 8];
        let rest = &mut message.bytes[at..];
        let mut part = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        // SAFETY: plain integers and pointers, for which all zeroes is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), CONTROL as _);
        // SAFETY: both buffers are ours, as long as we say, and live through the call.
        let n = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        at += usize::try_from(n).ok().filter(|&n| n > 0)?;
        // SAFETY: the kernel filled in the control buffer; one message at most, of descriptors it made for us.
        unsafe {
            let found = libc::CMSG_FIRSTHDR(&raw const header);
            if !found.is_null() && (*found).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*found).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<libc::c_int>();
                let first = libc::CMSG_DATA(found).cast::<libc::c_int>();
                message.fds.extend((0..count).map(|i| OwnedFd::from_raw_fd(first.add(i).read_unaligned())));
            }
        }
    }
    Some(())
}

/// Sends a message; one that the other end does not want any more is lost.
fn send(stream: &UnixStream, message: &Message) {
    let mut control = [0u64; CONTROL / 8];
    let mut part = libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast(), iov_len: message.bytes.len() };
    // SAFETY: as in `fill`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
    if !message.fds.is_empty() {
        let len = (message.fds.len() * size_of::<libc::c_int>()) as u32;
        // SAFETY: the control buffer is aligned, and has room for 16 descriptors and a header.
        unsafe {
            (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), libc::CMSG_SPACE(len) as _);
            let head = libc::CMSG_FIRSTHDR(&raw const header);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(message.fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(head), len as usize);
        }
    }
    // SAFETY: the buffers live through the call. Messages are short: the socket takes them whole.
    unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
}

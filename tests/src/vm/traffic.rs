//! Counted frames: a paced sender and a receiver that knows each frame it should see.
//!
//! Frames have the EtherType that IEEE 802 leaves to experiments, so no protocol stack answers them. Behind it: the
//! stream's number, the frame's length, a sequence number and its complement, then a pattern that depends on the
//! sequence number. A frame that was cut, padded, mixed up with another one or changed anywhere but in its two MAC
//! addresses is counted as corrupt.

use super::error::{Error, Result};
use super::net::{Mac, Netns};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// "IEEE Std 802 - Local Experimental Ethertype 1".
const ETHER_TYPE: u16 = 0x88b5;

/// Bytes in front of the pattern: MAC addresses and type (14), stream (4), length (2), sequence (8), complement (8).
const HEADER: usize = 36;

/// The shortest frame on Ethernet, without its check sequence.
const SHORTEST: usize = 60;

/// The longest frame here: MTU 9000 with its Ethernet header.
const LONGEST: usize = 9014;

/// Distinct places in the pattern at which a frame's payload may begin.
const PHASES: usize = 1 << 15;

/// How long the sender sleeps between looks at the clock: it must leave the processors to QEMU.
const TICK: Duration = Duration::from_micros(250);

/// The most frames sent at one tick, however late it is: what a ring of 512 takes in its stride.
const LARGEST_BURST: u64 = 128;

/// The receiver's socket buffer: a second of 60-byte frames at 100 kpps, as the kernel accounts them.
const RECEIVE_BUFFER: libc::c_int = 128 << 20;

/// How long a sender that follows a receiver waits for frames in flight before it takes them for lost. Long: a machine
/// that stands still must not lose frames by it, and where few are lost no window fills with them.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// How late a frame may be that nobody follows any more.
const LATEST: Duration = Duration::from_secs(10);

/// How long frames that nobody sent may take to come.
const EXTRA: Duration = Duration::from_secs(1);

/// How often the receiver looks whether it should end.
const RECEIVE_TICK: Duration = Duration::from_millis(20);

/// Sends frames from a namespace at a fixed rate.
#[derive(Debug, Clone)]
pub struct PacedSender {
    namespace: Netns,
    device: String,
    source: Mac,
    destination: Mac,
    frame_len: usize,
    rate: u32,
    stream: u32,
    follow: Option<(Arc<Shared>, u64)>,
    urgent: bool,
}

/// What a sender did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Frames that the interface took. A TAP device drops what QEMU is too slow for: see its counters.
    pub frames: u64,
    /// Frames that the interface refused at once; the sender does not try them again.
    pub refused: u64,
    /// Their length in bytes, without the check sequence.
    pub bytes: u64,
    /// How long it took.
    pub wall: Duration,
}

impl PacedSender {
    /// Sends from `device` of `namespace`: by default frames of 60 bytes at 10,000 a second, as stream 1.
    pub fn new(namespace: &Netns, device: &str, source: Mac, destination: Mac) -> PacedSender {
        PacedSender {
            namespace: namespace.clone(),
            device: device.to_owned(),
            source,
            destination,
            frame_len: SHORTEST,
            rate: 10_000,
            stream: 1,
            follow: None,
            urgent: false,
        }
    }

    /// The length of each frame, 60 to 9014 bytes: with the Ethernet header, without the check sequence.
    pub fn frame_len(mut self, bytes: usize) -> PacedSender {
        assert!((SHORTEST..=LONGEST).contains(&bytes), "a frame has {SHORTEST} to {LONGEST} bytes, not {bytes}");
        self.frame_len = bytes;
        self
    }

    /// Frames a second. A sender that falls behind sends the rest in bursts of at most 128.
    pub fn rate(mut self, frames_per_second: u32) -> PacedSender {
        assert!(frames_per_second > 0, "a rate of 0 never ends");
        self.rate = frames_per_second;
        self
    }

    /// A number that tells this sender's frames from others'.
    pub fn stream(mut self, stream: u32) -> PacedSender {
        self.stream = stream;
        self
    }

    /// Keeps at most `window` frames between this sender and a receiver of its stream: below the rate when frames are
    /// late, and caught up later. QEMU's `igb` drops what finds a VF's ring full, and on a busy machine the forwarder
    /// may not run for longer than a ring lasts; with a window below the ring size every lost frame is somebody's fault.
    pub fn following(mut self, receiver: &Receiver, window: u64) -> PacedSender {
        self.follow = Some((Arc::clone(&receiver.shared), window));
        self
    }

    /// Lets the sender run before all that is not urgent on this machine, so that the pace is kept while others work. Needs
    /// root.
    pub fn urgent(mut self) -> PacedSender {
        self.urgent = true;
        self
    }

    /// Sends for `duration`: rate times duration frames, exactly.
    pub fn send_for(&self, duration: Duration) -> Result<Sent> {
        self.send((duration.as_secs_f64() * f64::from(self.rate)).round() as u64)
    }

    /// Sends `count` frames, with sequence numbers from 0.
    pub fn send(&self, count: u64) -> Result<Sent> {
        let sent = self.namespace.enter(|| self.send_here(count))?;
        sent.map_err(Error::during(format!("sending on {}", self.device)))
    }

    fn send_here(&self, count: u64) -> io::Result<Sent> {
        let socket = packet_socket(&self.device, 0)?;
        if self.urgent {
            be_urgent()?;
        }
        let pattern = pattern();
        let mut frame = vec![0; self.frame_len];
        let (mut next, mut refused) = (0, 0);
        let mut window = self.follow.as_ref().map(|(shared, size)| Window::new(shared, *size));
        let started = Instant::now();
        while next < count {
            let due = (started.elapsed().as_secs_f64() * f64::from(self.rate)) as u64;
            let open = window.as_mut().map_or(u64::MAX, |window| window.open_until(next));
            let until = due.min(next + LARGEST_BURST).min(open).min(count);
            while next < until {
                fill(&mut frame, &pattern, self.destination, self.source, self.stream, next);
                // SAFETY: the buffer is `frame`, alive and of this length; the kernel copies from it before it returns.
                let taken = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
                if taken < 0 {
                    match io::Error::last_os_error() {
                        error if error.raw_os_error() == Some(libc::ENOBUFS) => refused += 1,
                        error if error.kind() == io::ErrorKind::Interrupted => continue,
                        error => return Err(error),
                    }
                }
                next += 1;
            }
            std::thread::sleep(TICK);
        }
        let frames = count - refused;
        Ok(Sent { frames, refused, bytes: frames * self.frame_len as u64, wall: started.elapsed() })
    }
}

/// Makes the calling thread one that the kernel runs as soon as it can.
fn be_urgent() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one `sched_param`, which outlives the call; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How far a sender that follows a receiver may go.
struct Window<'a> {
    receiver: &'a Shared,
    size: u64,
    /// Frames that the receiver had counted before the first one was sent.
    before: u64,
    /// Frames taken for lost.
    lost: u64,
    /// What had arrived when something last arrived, and when that was.
    progress: (u64, Instant),
}

impl Window<'_> {
    fn new(receiver: &Shared, size: u64) -> Window<'_> {
        let before = receiver.frames.load(Ordering::Relaxed);
        Window { receiver, size, before, lost: 0, progress: (0, Instant::now()) }
    }

    /// The sequence number before which the sender must stop, when it has sent `sent`.
    fn open_until(&mut self, sent: u64) -> u64 {
        let arrived = self.receiver.frames.load(Ordering::Relaxed) - self.before;
        // What was taken for lost may have been late.
        self.lost = self.lost.min(sent.saturating_sub(arrived));
        if arrived != self.progress.0 || arrived + self.lost >= sent {
            self.progress = (arrived, Instant::now());
        } else if self.progress.1.elapsed() > LOST_AFTER {
            self.lost = sent - arrived;
            self.progress = (arrived, Instant::now());
        }
        arrived + self.lost + self.size
    }
}

/// Counts the frames of one stream that arrive at an interface.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<Received>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: AtomicU64,
    stop: AtomicBool,
}

/// Corrupt frames of which a receiver says what is wrong.
const DESCRIBED: u64 = 8;

/// What a receiver saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Intact frames of the stream, duplicates included.
    pub frames: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Frames of the stream that are not as they were sent.
    pub corrupt: u64,
    /// Intact frames whose sequence number had come before.
    pub duplicates: u64,
    /// Intact frames that came after one with a higher sequence number.
    pub reordered: u64,
    /// Frames that arrived and found the receiver's own socket full: not the fault of what is tested.
    pub overrun: u64,
    /// The source addresses seen.
    pub sources: BTreeSet<Mac>,
    /// The destination addresses seen.
    pub destinations: BTreeSet<Mac>,
}

impl Receiver {
    /// Starts counting at `device` of `namespace`, on a thread of its own; frames sent after this are seen.
    pub fn start(namespace: &Netns, device: &str, stream: u32) -> Result<Receiver> {
        let socket = namespace.enter(|| {
            let socket = packet_socket(device, ETHER_TYPE)?;
            set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
            Ok(socket)
        })?;
        let socket = socket.map_err(|error: io::Error| Error::new(format!("receiving on {device}: {error}")))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || receive(&socket, stream, &theirs));
        Ok(Receiver { shared, thread })
    }

    /// Intact frames so far.
    pub fn frames(&self) -> u64 {
        self.shared.frames.load(Ordering::Relaxed)
    }

    /// Waits until `count` frames have come, or none for a time in which no machine stands still, and returns what came.
    pub fn finish_after(self, count: u64) -> Result<Received> {
        self.settle(count, LATEST);
        // A moment for what must not come.
        self.finish(EXTRA)
    }

    /// Waits until no frame has come for `quiet`, and returns what came.
    pub fn finish(self, quiet: Duration) -> Result<Received> {
        self.settle(u64::MAX, quiet);
        self.shared.stop.store(true, Ordering::Relaxed);
        let received = self.thread.join().map_err(|_| Error::new("the receiver panicked"))?;
        received.map_err(Error::during("receiving"))
    }

    /// Waits until `count` frames have come, or none for `quiet`.
    fn settle(&self, count: u64, quiet: Duration) {
        let mut last = (self.frames(), Instant::now());
        while last.0 < count && last.1.elapsed() < quiet {
            std::thread::sleep(RECEIVE_TICK);
            if self.frames() != last.0 {
                last = (self.frames(), Instant::now());
            }
        }
    }
}

fn receive(socket: &OwnedFd, stream: u32, shared: &Shared) -> io::Result<Received> {
    let pattern = pattern();
    let mut seen = Received::default();
    let mut sequences: Vec<u64> = Vec::new();
    let mut highest = None;
    let mut buffer = vec![0u8; LONGEST + 1];
    loop {
        // SAFETY: the buffer is alive and of the length given; the kernel writes at most that much.
        let length = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if length < 0 {
            match io::Error::last_os_error() {
                error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                error => return Err(error),
            }
            if shared.stop.load(Ordering::Relaxed) {
                seen.overrun = overrun(socket)?;
                return Ok(seen);
            }
            continue;
        }
        let frame = &buffer[..length as usize];
        match check(frame, &pattern, stream) {
            Verdict::Other => continue,
            Verdict::Corrupt => {
                seen.corrupt += 1;
                if seen.corrupt <= DESCRIBED {
                    println!("corrupt: {}", describe(frame, &pattern));
                }
            }
            Verdict::Intact(sequence) => {
                let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
                if sequences.len() <= word {
                    sequences.resize(word + 1, 0);
                }
                seen.duplicates += u64::from(sequences[word] & bit != 0);
                sequences[word] |= bit;
                seen.reordered += u64::from(highest.is_some_and(|highest| sequence < highest));
                highest = highest.max(Some(sequence));
                seen.frames += 1;
                seen.bytes += frame.len() as u64;
                shared.frames.store(seen.frames, Ordering::Relaxed);
            }
        }
        seen.destinations.insert(mac(&frame[..6]));
        seen.sources.insert(mac(&frame[6..12]));
    }
}

enum Verdict {
    Other,
    Corrupt,
    Intact(u64),
}

fn fill(frame: &mut [u8], pattern: &[u8], destination: Mac, source: Mac, stream: u32, sequence: u64) {
    let length = frame.len() as u16;
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
    frame[12..14].copy_from_slice(&ETHER_TYPE.to_be_bytes());
    frame[14..18].copy_from_slice(&stream.to_be_bytes());
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame[20..28].copy_from_slice(&sequence.to_be_bytes());
    frame[28..36].copy_from_slice(&(!sequence).to_be_bytes());
    let payload = &mut frame[HEADER..];
    let phase = phase(sequence);
    payload.copy_from_slice(&pattern[phase..phase + payload.len()]);
}

fn check(frame: &[u8], pattern: &[u8], stream: u32) -> Verdict {
    let field = |at: usize| frame.get(at..at + 8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap_or_default()));
    let (Some(sequence), Some(complement)) = (field(20), field(28)) else {
        return Verdict::Corrupt;
    };
    if frame[14..18] != stream.to_be_bytes() {
        return Verdict::Other;
    }
    let phase = phase(sequence);
    let intact = frame.len() <= LONGEST
        && sequence == !complement
        && sequence < 1 << 32
        && frame[18..20] == (frame.len() as u16).to_be_bytes()
        && frame[HEADER..] == pattern[phase..phase + frame.len() - HEADER];
    if intact { Verdict::Intact(sequence) } else { Verdict::Corrupt }
}

/// What is wrong with a frame, for whoever has to find out why.
fn describe(frame: &[u8], pattern: &[u8]) -> String {
    let Some(sequence) = frame.get(20..28).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap_or_default())) else {
        return format!("{} bytes: {frame:02x?}", frame.len());
    };
    let (phase, payload) = (phase(sequence), frame.get(HEADER..).unwrap_or_default());
    let wrong = payload.iter().zip(pattern.iter().skip(phase)).position(|(a, b)| a != b);
    let at = wrong.map_or(String::from("payload as sent"), |at| {
        let bytes = &payload[at..payload.len().min(at + 16)];
        let from = pattern.windows(bytes.len()).position(|window| window == bytes);
        let good = payload[at..].iter().zip(pattern.iter().skip(phase + at)).filter(|(a, b)| a == b).count();
        format!("wrong from byte {} on: {bytes:02x?}, pattern byte {from:?}, {good} good after it", HEADER + at)
    });
    format!(
        "{} bytes, head {:02x?}, sequence {sequence}, its payload begins at pattern byte {phase}; {at}",
        frame.len(),
        &frame[..HEADER.min(frame.len())]
    )
}

fn phase(sequence: u64) -> usize {
    sequence.wrapping_mul(7919) as usize % PHASES
}

/// The bytes that payloads are cut from: 64 bits of state, no two places of 8 bytes alike in practice.
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (PHASES + LONGEST).div_ceil(8);
    (0..words)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

fn mac(bytes: &[u8]) -> Mac {
    let mut mac = Mac([0; 6]);
    mac.0.copy_from_slice(bytes);
    mac
}

/// A raw socket on an interface of the calling thread's namespace that receives `protocol`, or nothing for 0.
pub(super) fn packet_socket(device: &str, protocol: u16) -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointer, and the descriptor that it returns is owned by nobody else.
    let socket = unsafe {
        match libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
            -1 => return Err(io::Error::last_os_error()),
            socket => OwnedFd::from_raw_fd(socket),
        }
    };
    let name = CString::new(device)?;
    // SAFETY: `name` ends with a zero byte and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`: it consists of integers and an array of them.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index as i32;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    let tick = libc::timeval { tv_sec: 0, tv_usec: RECEIVE_TICK.as_micros() as libc::suseconds_t };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, tick)?;
    // SAFETY: the address is a `sockaddr_ll` of the size given, which is what bind reads for AF_PACKET.
    let bound = unsafe {
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size)
    };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

pub(super) fn set_option<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: the kernel reads `value`, of the size given, before the call returns.
    let set = unsafe {
        let size = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Frames that the socket has dropped because it was full.
fn overrun(socket: &OwnedFd) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut size = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into `statistics`, a structure of that size.
    let got = unsafe {
        let to = (&raw mut statistics).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, to, &mut size)
    };
    if got == 0 { Ok(u64::from(statistics.tp_drops)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_moves_with_what_arrives_and_over_what_is_lost() {
        let shared = Shared::default();
        shared.frames.store(5, Ordering::Relaxed);
        let mut window = Window::new(&shared, 100);
        assert_eq!(window.open_until(0), 100);
        shared.frames.store(65, Ordering::Relaxed);
        assert_eq!(window.open_until(100), 160);
        assert_eq!(window.open_until(160), 160);
        std::thread::sleep(LOST_AFTER * 2);
        assert_eq!(window.open_until(160), 260);
        assert_eq!(window.open_until(260), 260);
        shared.frames.store(165, Ordering::Relaxed);
        assert_eq!(window.open_until(260), 360);
        // Late, not lost.
        shared.frames.store(265, Ordering::Relaxed);
        assert_eq!(window.open_until(260), 360);
    }

    #[test]
    fn a_change_of_any_byte_behind_the_addresses_is_noticed() {
        let frame_of = |sequence| {
            let mut frame = vec![0; 100];
            fill(&mut frame, &pattern(), Mac([1; 6]), Mac([2; 6]), 7, sequence);
            frame
        };
        let pattern = pattern();
        let intact = frame_of(123_456);
        assert!(matches!(check(&intact, &pattern, 7), Verdict::Intact(123_456)));
        assert!(matches!(check(&intact, &pattern, 8), Verdict::Other));
        for at in 18..intact.len() {
            let mut changed = intact.clone();
            changed[at] ^= 0x10;
            assert!(matches!(check(&changed, &pattern, 7), Verdict::Corrupt), "byte {at}");
        }
        for length in [0, 14, 35, 60, 99] {
            assert!(matches!(check(&intact[..length], &pattern, 7), Verdict::Corrupt), "length {length}");
        }
        let mut longer = intact.clone();
        longer.push(0);
        assert!(matches!(check(&longer, &pattern, 7), Verdict::Corrupt));
        // The payload of one frame under the head of another.
        let mut mixed = frame_of(123_457);
        mixed[HEADER..].copy_from_slice(&intact[HEADER..]);
        assert!(matches!(check(&mixed, &pattern, 7), Verdict::Corrupt));
    }
}

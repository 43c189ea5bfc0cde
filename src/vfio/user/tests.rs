//! The client against a server that a script plays: right answers, and one that is wrong at each message in turn.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::bus::VfioUserBus;
use super::connection::send_some;
use super::device::Device;
use crate::error::Result;
use crate::event::eventfd;
use crate::mem::{HugeRegion, Pages};
use crate::mmio::{ALL_ONES, Bus, Reg};

/// How long clients wait for a reply of a server that keeps silent, and of any other: on a busy machine a right answer
/// takes its time.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);
/// How long anything may take that does not wait for [`LONG`].
const PATIENCE: Duration = Duration::from_secs(30);

const BAR_LEN: u32 = 0x4000;
const VALUE: u32 = 0x1234_5678;
const WRITE: u16 = 10;

/// What is wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trick {
    Close,
    HalfAHeader,
    Silence,
    WrongNumber,
    WrongCommand,
    ACommand,
    TooShort,
    TooLong,
    Refuse(u32),
    NoPayload,
    Rubbish,
    OneWordMore,
}

/// A message as the server got it.
#[derive(Clone, Debug)]
struct Seen {
    command: u16,
    payload: Vec<u8>,
}

/// A server with its device.
#[derive(Default)]
struct Server {
    /// The n-th message that wants a reply is answered wrongly.
    trick: Option<(usize, Trick)>,
    /// Pages of BAR0 that are shared: the file, and the areas.
    pages: Option<(File, Vec<(u64, u64)>)>,
    /// `max_msg_fds`, where it is told.
    fds: Option<usize>,
    major: u16,
}

type Log = Arc<Mutex<Vec<Seen>>>;

impl Server {
    /// Serves one end of a socket pair; the other end, and what comes.
    fn start(self) -> (UnixStream, Log) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let log = Log::default();
        let seen = log.clone();
        thread::spawn(move || self.serve(theirs, &seen));
        (ours, log)
    }

    fn open(self) -> (Result<VfioUserBus>, Log) {
        let deadline = if self.trick.is_some_and(|(_, trick)| trick == Trick::Silence) { SHORT } else { LONG };
        let (stream, log) = self.start();
        (Device::attach("fake", stream, deadline).and_then(VfioUserBus::new), log)
    }

    fn serve(self, mut stream: UnixStream, log: &Log) {
        let (mut asked, mut command_register) = (0, [0u8; 2]);
        let mut header = [0; 16];
        while stream.read_exact(&mut header).is_ok() {
            let (number, command) = ([header[0], header[1]], u16::from_le_bytes([header[2], header[3]]));
            let mut payload = vec![0; u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize - 16];
            stream.read_exact(&mut payload).unwrap();
            log.lock().unwrap().push(Seen { command, payload: payload.clone() });
            if header[8] & 0x10 != 0 {
                continue;
            }
            let trick = self.trick.filter(|(at, _)| *at == asked).map(|(_, trick)| trick);
            asked += 1;
            let mut answer = self.answer(command, &payload, &mut command_register);
            let (mut flags, mut error, mut number, mut command) = (1u32, 0, number, command);
            let mut claimed = None;
            match trick {
                None => {}
                Some(Trick::Close) => return,
                Some(Trick::HalfAHeader) => return stream.write_all(&header[..8]).unwrap(),
                Some(Trick::Silence) => continue,
                Some(Trick::WrongNumber) => number[0] ^= 1,
                Some(Trick::WrongCommand) => command ^= 1,
                Some(Trick::ACommand) => flags = 0,
                Some(Trick::TooShort) => claimed = Some(15),
                Some(Trick::TooLong) => claimed = Some(u32::MAX),
                Some(Trick::Refuse(errno)) => (flags, error, answer) = (0x21, errno, Vec::new()),
                Some(Trick::NoPayload) => answer.clear(),
                Some(Trick::Rubbish) => answer.fill(0xff),
                Some(Trick::OneWordMore) => answer.extend([0; 4]),
            }
            let mut reply = [number, command.to_le_bytes()].concat();
            reply.extend(claimed.unwrap_or(16 + answer.len() as u32).to_le_bytes());
            reply.extend([flags, error].iter().flat_map(|word| word.to_le_bytes()));
            reply.extend(answer);
            let shared = self.pages.as_ref().filter(|_| command == 5).map(|(file, _)| file.as_fd());
            if send_some(&stream, &reply, shared.as_slice()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, command: u16, payload: &[u8], command_register: &mut [u8; 2]) -> Vec<u8> {
        let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
        match command {
            1 => {
                let mut answer = [self.major.to_le_bytes(), [0; 2]].concat();
                let fds = self.fds.map_or(String::new(), |n| format!("\"max_msg_fds\": {n}, "));
                answer.extend(format!("{{\"capabilities\":{{{fds}\"pgsizes\":4096}}}}\0").into_bytes());
                answer
            }
            4 => words(&[16, 3, 9, 5]),
            5 => match &self.pages {
                None => words(&[32, 3, 0, 0, BAR_LEN, 0, 0, 0]),
                Some((_, areas)) => {
                    // READ, WRITE, MMAP, CAPS; one capability behind the fixed part: sparse mmap.
                    let mut answer = words(&[0, 0xf, 0, 32, BAR_LEN, 0, 0, 0, 1 | 1 << 16, 0, areas.len() as u32, 0]);
                    answer.extend(areas.iter().flat_map(|(at, len)| [at.to_le_bytes(), len.to_le_bytes()].concat()));
                    answer
                }
            },
            7 => words(&[16, 1, 2, 3]),
            9 => {
                let (region, offset, count) = (payload[8], payload[0], payload[12]);
                let data: &[u8] = match (region, offset) {
                    (7, 0) => &[0x86, 0x80],
                    (7, 2) => &[0xca, 0x10],
                    (7, _) => &*command_register,
                    _ => &VALUE.to_le_bytes(),
                };
                [payload, &data[..usize::from(count)]].concat()
            }
            WRITE => {
                if payload[8] == 7 {
                    command_register.copy_from_slice(&payload[16..18]);
                }
                payload[..16].to_vec()
            }
            _ => Vec::new(),
        }
    }
}

fn region() -> Arc<HugeRegion> {
    Arc::new(HugeRegion::allocate(4096, Pages::Ordinary, None).unwrap())
}

/// Everything that a bus does.
fn use_all(bus: &mut VfioUserBus) {
    bus.read32(Reg(8));
    bus.write32(Reg(0x1000), 1);
    if let Ok(doorbell) = bus.doorbell(Reg(0x2818)) {
        doorbell.ring(7);
    }
    let region = region();
    let _ = bus.set_bus_master(true);
    let _ = bus.map_dma(&region);
    let fd = eventfd().unwrap();
    let _ = bus.connect_vectors(&[fd.as_fd(), fd.as_fd()]);
    let _ = bus.connect_vectors(&[]);
    let _ = bus.unmap_dma(&region);
    let _ = bus.reset_function();
    bus.read32(Reg(8));
}

/// Replies that a client asks for when it opens a device and uses it.
fn replies() -> usize {
    let (bus, log) = Server::default().open();
    use_all(&mut bus.unwrap());
    // The doorbell is a message without a reply.
    let log = log.lock().unwrap();
    log.len() - log.iter().filter(|seen| seen.command == WRITE && seen.payload[..2] == [0x18, 0x28]).count()
}

#[test]
fn a_server_that_fails_at_any_message_is_dead_within_the_deadline() {
    let replies = replies();
    assert!(replies > 15, "{replies}");
    let mut refused_to_open = 0;
    for trick in [
        Trick::Close,
        Trick::HalfAHeader,
        Trick::Silence,
        Trick::WrongNumber,
        Trick::WrongCommand,
        Trick::ACommand,
        Trick::TooShort,
        Trick::TooLong,
    ] {
        for at in 0..replies {
            let begun = Instant::now();
            match (Server { trick: Some((at, trick)), ..Server::default() }).open().0 {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("fake: ") && !text.contains('\n'), "{trick:?} at {at}: {text}");
                    refused_to_open += 1;
                }
                Ok(mut bus) => {
                    use_all(&mut bus);
                    assert!(bus.removal_requested(), "{trick:?} at {at}");
                    assert_eq!(bus.read32(Reg(8)), ALL_ONES, "{trick:?} at {at}");
                    assert!(bus.bus_master().is_err(), "{trick:?} at {at}");
                    // One that hung up has let go of all memory, and nobody knows what another one does.
                    let closed = [Trick::Close, Trick::HalfAHeader].contains(&trick);
                    assert_eq!(bus.reset_function().is_ok(), closed, "{trick:?} at {at}");
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{trick:?} at {at}: {:?}", begun.elapsed());
        }
    }
    assert!(refused_to_open >= 8 * 6, "opening takes six replies: {refused_to_open}");
}

#[test]
fn a_server_that_refuses_or_answers_rubbish_at_any_message_stays_alive() {
    let replies = replies();
    for trick in [Trick::Refuse(12), Trick::Refuse(0), Trick::NoPayload, Trick::Rubbish, Trick::OneWordMore] {
        for at in 0..replies {
            let begun = Instant::now();
            if let Ok(mut bus) = (Server { trick: Some((at, trick)), ..Server::default() }).open().0 {
                use_all(&mut bus);
                assert!(!bus.removal_requested(), "{trick:?} at {at}");
                assert_eq!(bus.read32(Reg(8)), VALUE, "{trick:?} at {at}");
            }
            assert!(begun.elapsed() < PATIENCE, "{trick:?} at {at}");
        }
    }
}

/// The message that maps memory is the seventh that wants a reply, when it is the first after opening.
#[test]
fn a_refusal_is_an_error_with_its_number() {
    for (errno, text) in [(12, "Cannot allocate memory"), (0, "refuses DMA_MAP")] {
        let (bus, _) = Server { trick: Some((6, Trick::Refuse(errno))), ..Server::default() }.open();
        let (mut bus, region) = (bus.unwrap(), region());
        let error = bus.map_dma(&region).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert!(bus.unmap_dma(&region).is_err(), "what was refused is not mapped");
        bus.map_dma(&region).unwrap();
    }
}

#[test]
fn a_region_is_shared_once_by_its_memfd() {
    let (bus, log) = Server::default().open();
    let (mut bus, region) = (bus.unwrap(), region());
    log.lock().unwrap().clear();
    let iova = bus.map_dma(&region).unwrap();
    assert_eq!(bus.map_dma(&region).unwrap(), iova);
    bus.unmap_dma(&region).unwrap();
    bus.unmap_dma(&region).unwrap();
    let log = log.lock().unwrap();
    assert_eq!(log.iter().map(|seen| seen.command).collect::<Vec<_>>(), [2, 3]);
    // argsz, READ | WRITE, offset, address, length.
    let expected = [32u64 | 3 << 32, 0, iova.0, 4096].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    assert_eq!(log[0].payload, expected);
    let expected = [24u64, iova.0, 4096].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    assert_eq!(log[1].payload, expected);
}

#[test]
fn doorbells_are_forwarded_before_what_follows_them() {
    let (bus, log) = Server::default().open();
    let mut bus = bus.unwrap();
    // Two threads that unmask through one register do not overwrite each other's.
    let (tail, mask, other) =
        (bus.doorbell(Reg(0x2818)).unwrap(), bus.doorbell(Reg(0x1524)).unwrap(), bus.doorbell(Reg(0x1524)).unwrap());
    for round in 0..100u32 {
        log.lock().unwrap().clear();
        tail.ring(round);
        mask.ring(1);
        other.ring(2);
        assert_eq!(bus.read32(Reg(8)), VALUE);
        let log = log.lock().unwrap();
        assert_eq!(log.last().unwrap().command, 9);
        let mut rung: Vec<(u8, u8)> = log[..log.len() - 1].iter().map(|s| (s.payload[0], s.payload[16])).collect();
        rung.sort_unstable();
        assert_eq!(rung, [(0x18, round as u8), (0x24, 1), (0x24, 2)]);
    }
    // By itself, and the last value of a doorbell that is gone.
    log.lock().unwrap().clear();
    tail.ring(5);
    drop(tail);
    let begun = Instant::now();
    while log.lock().unwrap().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nobody forwards");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(log.lock().unwrap()[0].payload[16], 5);
    assert!(bus.doorbell(Reg(BAR_LEN)).is_err() && bus.doorbell(Reg(2)).is_err());
}

fn memfd(len: u64) -> File {
    // SAFETY: the name is a C string and the flag one of memfd_create(2).
    let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len).unwrap();
    file
}

#[test]
fn pages_that_are_shared_need_no_messages() {
    let file = memfd(BAR_LEN.into());
    let pages = Some((file.try_clone().unwrap(), vec![(0, 0x1000), (0x2000, 0x1000)]));
    let (bus, log) = Server { pages, ..Server::default() }.open();
    let mut bus = bus.unwrap();
    log.lock().unwrap().clear();
    let doorbell = bus.doorbell(Reg(0x2004)).unwrap();
    doorbell.ring(9);
    bus.write32(Reg(0xffc), 3);
    let word = |at| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).unwrap();
        u32::from_le_bytes(bytes)
    };
    assert_eq!((word(0x2004), word(0xffc), bus.read32(Reg(0x2004))), (9, 3, 9));
    assert!(log.lock().unwrap().is_empty());
    // Between the pages everything is a message.
    assert_eq!(bus.read32(Reg(0x1000)), VALUE);
    assert_eq!(log.lock().unwrap().len(), 1);
    // A queue may ring after the port is gone.
    drop(bus);
    doorbell.ring(10);
    assert_eq!(word(0x2004), 10);
}

#[test]
fn pages_beyond_the_end_of_the_file_are_refused() {
    for areas in [vec![(0x2000, 0x1000)], vec![(0, 0x1000), (u64::MAX - 3, 8)], vec![(0x3000, 0x2000)]] {
        let (bus, _) = Server { pages: Some((memfd(0x2fff), areas.clone())), ..Server::default() }.open();
        assert!(bus.is_err(), "{areas:x?}");
    }
}

#[test]
fn vectors_go_in_pieces_that_the_server_takes() {
    for (fds, pieces) in
        [(None, vec![(0, 1), (1, 1), (2, 1)]), (Some(2), vec![(0, 2), (2, 1)]), (Some(0), vec![(0, 1), (1, 1), (2, 1)])]
    {
        let (bus, log) = Server { fds, ..Server::default() }.open();
        let mut bus = bus.unwrap();
        log.lock().unwrap().clear();
        let fd = eventfd().unwrap();
        bus.connect_vectors(&[fd.as_fd(); 3]).unwrap();
        assert!(bus.connect_vectors(&[fd.as_fd(); 4]).is_err(), "the function has three");
        let seen: Vec<(u8, u8)> = log.lock().unwrap().iter().map(|s| (s.payload[12], s.payload[16])).collect();
        assert_eq!(seen, pieces);
    }
}

#[test]
fn errors_say_what_to_do() {
    let missing = std::path::Path::new("/nonexistent/vf.sock");
    let error = VfioUserBus::open(missing).err().unwrap().to_string();
    assert!(error.contains("vfio-user:/nonexistent/vf.sock") && error.contains("vfring sim serve"), "{error}");
    let (bus, _) = Server { major: 1, ..Server::default() }.open();
    assert!(bus.err().unwrap().to_string().contains("vfio-user 1.0"));
}

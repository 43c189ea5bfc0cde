//! A served device: its connection, its registers and its doorbells.
//!
//! Owns the connection, which the control path and the thread that forwards doorbells share behind a lock, and the pages
//! of BAR0 that the server shares. A doorbell in such a page is a store to it. Any other is a cell of its own, which a
//! thread empties into messages, so that a queue's thread makes one store either way. What always holds: a doorbell that
//! was rung before a message is sent to the server before it; once the connection is broken, registers read all ones.

use std::fs::File;
use std::io::ErrorKind;
use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam::utils::CachePadded;
use memmap2::{Advice, MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio;

use super::super::info;
use super::connection::{Command, Connection, Reply};
use crate::error::{Error, Result};
use crate::mem::HugeRegion;
use crate::mmio::{Doorbell, Reg};

/// What is offered to the server: version 0.1 and the descriptors that a message may bring.
const VERSION: (u16, u16) = (0, 1);
const CAPABILITIES: &[u8] = b"{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576}}\0";
/// Room that a region's capabilities are asked for in.
const REGION_ARGSZ: u32 = 4096;
/// Descriptors in one message: what a server takes unless it says otherwise, and most that are sent.
const DEFAULT_FDS: usize = 1;
const MOST_FDS: usize = 16;

/// No doorbell was rung. No tail and no interrupt mask has all bits set.
const NOTHING: u32 = u32::MAX;
/// Rounds without a doorbell after which the forwarding thread sleeps, and how long at first and at most.
const PATIENCE: u32 = 200;
const NAP: Duration = Duration::from_micros(50);
const NAP_MAX: Duration = Duration::from_micros(500);

/// A device that a server has.
pub(super) struct Device {
    name: String,
    link: Mutex<Link>,
    dead: AtomicBool,
    /// The thread that forwards doorbells runs.
    forwarding: AtomicBool,
    bar_len: u32,
    windows: Arc<Vec<Window>>,
    can_reset: bool,
    vectors: u32,
    fds_per_message: usize,
}

/// What the lock protects.
struct Link {
    connection: Connection,
    cells: Vec<Cell>,
}

/// A doorbell whose register is no shared page.
struct Cell {
    register: u32,
    value: Arc<CachePadded<AtomicU32>>,
}

/// A part of BAR0 that the server shares.
struct Window {
    start: u32,
    len: u32,
    map: MmapRaw,
}

impl Device {
    /// Connects to the server's socket and asks what it has.
    pub(super) fn open(name: &str, path: &Path, deadline: Duration) -> Result<Device> {
        let stream = UnixStream::connect(path).map_err(|e| {
            let hint = match e.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    format!(
                        " (nobody serves there: start the device first, for example `vfring sim serve --socket {} …`)",
                        path.display()
                    )
                }
                _ => String::new(),
            };
            Error::os(format!("{name}: connecting{hint}"), e)
        })?;
        Device::attach(name, stream, deadline)
    }

    /// Takes over a connected socket.
    pub(super) fn attach(name: &str, stream: UnixStream, deadline: Duration) -> Result<Device> {
        let mut connection = Connection::new(name.to_owned(), stream, deadline);
        let fds_per_message = negotiate(name, &mut connection)?;
        let argsz = 16u32;
        let reply = connection.request(Command::DeviceGetInfo, &words(&[argsz, 0, 0, 0]), &[])?;
        let [_, flags, regions, irqs] = u32s(name, Command::DeviceGetInfo, &reply)?;
        if flags & vfio::VFIO_DEVICE_FLAGS_PCI == 0
            || regions <= vfio::VFIO_PCI_CONFIG_REGION_INDEX
            || irqs <= vfio::VFIO_PCI_MSIX_IRQ_INDEX
        {
            return Err(Error::device(name, "the server's device is no PCI function"));
        }
        let (bar, file) = region(name, &mut connection, vfio::VFIO_PCI_BAR0_REGION_INDEX)?;
        let bar_len = u32::try_from(bar.len)
            .ok()
            .filter(|&len| len > 0)
            .ok_or_else(|| Error::device(name, format!("BAR0 has {} bytes, which no VF has", bar.len)))?;
        let windows = match file {
            Some(file) => map_windows(name, &bar, &File::from(file))?,
            // Without a descriptor everything is a message.
            None => Vec::new(),
        };
        let payload = words(&[argsz, 0, vfio::VFIO_PCI_MSIX_IRQ_INDEX, 0]);
        let reply = connection.request(Command::DeviceGetIrqInfo, &payload, &[])?;
        let [_, _, _, vectors] = u32s(name, Command::DeviceGetIrqInfo, &reply)?;
        Ok(Device {
            name: name.to_owned(),
            link: Mutex::new(Link { connection, cells: Vec::new() }),
            dead: AtomicBool::new(false),
            forwarding: AtomicBool::new(false),
            bar_len,
            windows: Arc::new(windows),
            can_reset: flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0,
            vectors,
            fds_per_message,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn bar_len(&self) -> u32 {
        self.bar_len
    }

    pub(super) fn vectors(&self) -> u32 {
        self.vectors
    }

    /// True once the server is gone or cannot be understood.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message after the doorbells that were rung before, and waits for its reply.
    fn request(&self, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        let mut link = self.link();
        link.flush();
        let reply = link.connection.request(command, payload, fds);
        self.dead.fetch_or(link.connection.is_broken(), Ordering::Relaxed);
        reply
    }

    /// Forwards the doorbells that were rung; true when there was any.
    fn flush(&self) -> bool {
        let mut link = self.link();
        let any = link.flush();
        self.dead.fetch_or(link.connection.is_broken(), Ordering::Relaxed);
        any
    }

    /// Reads a register; `None` outside the BAR or when the device does not answer.
    pub(super) fn read(&self, register: Reg) -> Option<u32> {
        if self.is_dead() {
            return None;
        }
        if let Some(cell) = self.window(register) {
            // SAFETY: the cell lies aligned in a map that `self` keeps. The server accesses it at the same time, so both
            // sides use atomics; the reference lasts for this load.
            return Some(unsafe { cell.as_ref() }.load(Ordering::Acquire));
        }
        let bytes = self.region_read(vfio::VFIO_PCI_BAR0_REGION_INDEX, self.trapped(register)?, 4).ok()?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Writes a register; nothing happens outside the BAR. A device that is gone is found by reading.
    pub(super) fn write(&self, register: Reg, value: u32) {
        if let Some(cell) = self.window(register) {
            // SAFETY: as in `read`.
            unsafe { cell.as_ref() }.store(value, Ordering::Release);
        } else if let Some(offset) = self.trapped(register) {
            let _ = self.region_write(vfio::VFIO_PCI_BAR0_REGION_INDEX, offset, &value.to_le_bytes());
        }
    }

    /// Where a register is shared with the server.
    fn window(&self, register: Reg) -> Option<NonNull<AtomicU32>> {
        let offset = register.0;
        let end = offset.checked_add(4).filter(|_| offset.is_multiple_of(4))?;
        let window = self.windows.iter().find(|w| w.start <= offset && end <= w.start + w.len)?;
        // SAFETY: the offset is inside the map, which is as long as the window.
        let at = unsafe { window.map.as_mut_ptr().add((offset - window.start) as usize) };
        NonNull::new(at.cast())
    }

    /// The offset of a register in the BAR, where it has one.
    fn trapped(&self, register: Reg) -> Option<u64> {
        let inside = register.0.is_multiple_of(4) && register.0.checked_add(4).is_some_and(|end| end <= self.bar_len);
        inside.then_some(register.0.into())
    }

    /// The doorbell of a register.
    pub(super) fn doorbell(self: &Arc<Self>, register: Reg) -> Result<Doorbell> {
        if let Some(cell) = self.window(register) {
            // SAFETY: the cell lies aligned in a map of `windows`, which the doorbell keeps.
            return Ok(unsafe { Doorbell::new(cell, Arc::clone(&self.windows) as _) });
        }
        if self.trapped(register).is_none() {
            return Err(Error::device(&self.name, format!("there is no register at {:#x}", register.0)));
        }
        let value = Arc::new(CachePadded::new(AtomicU32::new(NOTHING)));
        if !self.forwarding.swap(true, Ordering::Relaxed) {
            let device = Arc::downgrade(self);
            thread::Builder::new()
                .name("vfring-doorbells".into())
                .spawn(move || forward(&device))
                .map_err(|e| Error::os(format!("{}: making the thread that forwards doorbells", self.name), e))?;
        }
        self.link().cells.push(Cell { register: register.0, value: Arc::clone(&value) });
        let cell = NonNull::from(&**value);
        // SAFETY: the cell is an AtomicU32 (aligned) in the Arc that the doorbell keeps, whose contents do not move.
        Ok(unsafe { Doorbell::new(cell, value) })
    }

    fn region_read(&self, region: u32, offset: u64, len: u32) -> Result<Vec<u8>> {
        let reply = self.request(Command::RegionRead, &region_access(region, offset, len), &[])?;
        match reply.payload.get(16..) {
            Some(data) if data.len() == len as usize => Ok(data.to_vec()),
            _ => Err(malformed(&self.name, Command::RegionRead)),
        }
    }

    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let mut payload = region_access(region, offset, data.len() as u32);
        payload.extend(data);
        self.request(Command::RegionWrite, &payload, &[]).map(drop)
    }

    /// Reads 16 bits of config space.
    pub(super) fn read_config(&self, offset: u64) -> Result<u16> {
        let bytes = self.region_read(vfio::VFIO_PCI_CONFIG_REGION_INDEX, offset, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Writes 16 bits of config space.
    pub(super) fn write_config(&self, offset: u64, value: u16) -> Result<()> {
        self.region_write(vfio::VFIO_PCI_CONFIG_REGION_INDEX, offset, &value.to_le_bytes())
    }

    /// Shares a region with the server, which sees it at its address in this process.
    pub(super) fn map(&self, region: &HugeRegion) -> Result<()> {
        let fd = region.fd().ok_or_else(|| {
            Error::Config(format!(
                "{}: {region:?} lies in no memfd, and a server can be given nothing else: make the pool with \
                 `.pages(Pages::Huge2M)`, or on ports that are all models or vfio-user",
                self.name
            ))
        })?;
        let flags = vfio::VFIO_DMA_MAP_FLAG_READ | vfio::VFIO_DMA_MAP_FLAG_WRITE;
        let mut payload = words(&[size_of::<vfio::vfio_iommu_type1_dma_map>() as u32, flags]);
        for number in [0, region.addr() as u64, region.len() as u64] {
            payload.extend(number.to_le_bytes());
        }
        self.request(Command::DmaMap, &payload, &[fd]).map(drop)
    }

    /// Takes a region back from the server.
    pub(super) fn unmap(&self, region: &HugeRegion) -> Result<()> {
        let mut payload = words(&[UNMAP_ARGSZ, 0]);
        for number in [region.addr() as u64, region.len() as u64] {
            payload.extend(number.to_le_bytes());
        }
        self.request(Command::DmaUnmap, &payload, &[]).map(drop)
    }

    /// Connects MSI-X vector i to `eventfds[i]`; none: disables MSI-X.
    pub(super) fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        let set = |kind: u32, start: usize, count: usize, fds: &[BorrowedFd<'_>]| {
            let flags = kind | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
            let payload = words(&[20, flags, vfio::VFIO_PCI_MSIX_IRQ_INDEX, start as u32, count as u32]);
            self.request(Command::DeviceSetIrqs, &payload, fds).map(drop)
        };
        if eventfds.is_empty() {
            return set(vfio::VFIO_IRQ_SET_DATA_NONE, 0, 0, &[]);
        }
        for (i, fds) in eventfds.chunks(self.fds_per_message).enumerate() {
            set(vfio::VFIO_IRQ_SET_DATA_EVENTFD, i * self.fds_per_message, fds.len(), fds)?;
        }
        Ok(())
    }

    /// Function-level reset; false when the server offers none. A server that has closed the connection has let go of
    /// all memory, so that its device is as good as reset; one that keeps silent may still write to it.
    pub(super) fn reset(&self) -> Result<bool> {
        if !self.can_reset {
            return Ok(false);
        }
        match self.request(Command::DeviceReset, &[], &[]) {
            Err(_) if self.link().connection.is_closed() => Ok(true),
            reply => reply.map(|_| true),
        }
    }
}

/// Bytes of the fixed part of `vfio_iommu_type1_dma_unmap`.
const UNMAP_ARGSZ: u32 = 24;
const _: () = assert!(offset_of!(vfio::vfio_iommu_type1_dma_unmap, data) == UNMAP_ARGSZ as usize);

impl Link {
    /// Sends the doorbells that were rung, and forgets those that nobody can ring any more.
    fn flush(&mut self) -> bool {
        let mut any = false;
        let Link { connection, cells } = self;
        cells.retain(|cell| {
            let last = Arc::strong_count(&cell.value) == 1;
            // Acquire: what was written to memory before the doorbell is there before the server hears of it.
            if cell.value.load(Ordering::Relaxed) != NOTHING {
                let value = cell.value.swap(NOTHING, Ordering::AcqRel);
                let mut payload = region_access(vfio::VFIO_PCI_BAR0_REGION_INDEX, cell.register.into(), 4);
                payload.extend(value.to_le_bytes());
                // A device that is gone is found by reading.
                let _ = connection.post(Command::RegionWrite, &payload);
                any = true;
            }
            !last
        });
        any
    }
}

/// The thread that forwards doorbells; it ends with the device.
fn forward(device: &Weak<Device>) {
    let (mut idle, mut nap) = (0, NAP);
    while let Some(device) = device.upgrade().filter(|device| !device.is_dead()) {
        let any = device.flush();
        drop(device);
        if any {
            (idle, nap) = (0, NAP);
        } else if idle < PATIENCE {
            idle += 1;
            thread::yield_now();
        } else {
            thread::sleep(nap);
            nap = (nap * 2).min(NAP_MAX);
        }
    }
}

/// Agrees on a version; how many descriptors the server takes in a message.
fn negotiate(name: &str, connection: &mut Connection) -> Result<usize> {
    let mut payload = Vec::from(VERSION.0.to_le_bytes());
    payload.extend(VERSION.1.to_le_bytes());
    payload.extend(CAPABILITIES);
    let reply = connection.request(Command::Version, &payload, &[])?;
    let Some((version, capabilities)) = reply.payload.split_at_checked(4) else {
        return Err(malformed(name, Command::Version));
    };
    let (major, minor) = (u16::from_le_bytes([version[0], version[1]]), u16::from_le_bytes([version[2], version[3]]));
    if major != VERSION.0 {
        return Err(Error::device(name, format!("the server speaks vfio-user {major}.{minor}; {VERSION:?} is known")));
    }
    Ok(max_msg_fds(capabilities).unwrap_or(DEFAULT_FDS).clamp(1, MOST_FDS))
}

/// The number behind `"max_msg_fds":` of a JSON text: the only thing in it that matters here.
fn max_msg_fds(json: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(json).ok()?;
    let (_, rest) = text.split_once("\"max_msg_fds\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

/// Asks for a region, and the descriptor of what can be mapped of it.
fn region(name: &str, connection: &mut Connection, index: u32) -> Result<(info::Region, Option<OwnedFd>)> {
    let mut payload = words(&[REGION_ARGSZ, 0, index, 0]);
    payload.extend([0; 16]);
    let mut reply = connection.request(Command::DeviceGetRegionInfo, &payload, &[])?;
    let region = info::region(&reply.payload).ok_or_else(|| malformed(name, Command::DeviceGetRegionInfo))?;
    Ok((region, reply.fds.pop()))
}

/// Maps the parts of BAR0 that the server shares.
fn map_windows(name: &str, bar: &info::Region, file: &File) -> Result<Vec<Window>> {
    let failed = |e| Error::os(format!("{name}: mapping pages of BAR0"), e);
    let len = file.metadata().map_err(failed)?.len();
    let mut windows = Vec::new();
    for area in &bar.areas {
        // Beyond the end of the file, an access would end this process.
        let start = bar.offset.checked_add(area.start);
        let Some(start) = start.filter(|start| start.checked_add(area.len).is_some_and(|end| end <= len)) else {
            return Err(malformed(name, Command::DeviceGetRegionInfo));
        };
        let map = MmapOptions::new().offset(start).len(area.len as usize).map_raw(file).map_err(failed)?;
        map.advise(Advice::DontFork).map_err(failed)?;
        // `info::region` checked that areas lie inside the BAR, whose length fits into 32 bits.
        windows.push(Window { start: area.start as u32, len: area.len as u32, map });
    }
    Ok(windows)
}

fn malformed(name: &str, command: Command) -> Error {
    Error::device(name, format!("the server's reply to {command} is malformed"))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn region_access(region: u32, offset: u64, len: u32) -> Vec<u8> {
    let mut payload = Vec::from(offset.to_le_bytes());
    payload.extend(words(&[region, len]));
    payload
}

/// The first words of a reply.
fn u32s<const N: usize>(name: &str, command: Command, reply: &Reply) -> Result<[u32; N]> {
    let mut words = [0; N];
    let bytes = reply.payload.get(..4 * N).ok_or_else(|| malformed(name, command))?;
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Ok(words)
}

//! What a client's messages do to the model: the back end of the stock server.
//!
//! Lives as long as one connection, under nobody's lock: each message takes the lock of the world for as long as it needs
//! it, and models make every DMA access under that lock, so nothing is in flight any more when an unmap is answered.
//! What always holds: a message that makes no sense is refused or ignored and never panics, and when the connection
//! ends the model is reset, without vectors and without a single mapping.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use vfio_bindings::bindings::vfio;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend};

use super::super::world::World;
use super::config::ConfigSpace;
use super::files::Files;

/// DMA maps are whole pages.
const PAGE: u64 = 4096;

/// One client and its device.
pub(super) struct Backend {
    world: World,
    port: usize,
    bar_len: u32,
    config: ConfigSpace,
    files: Files,
    /// Eventfds of the client, by vector.
    vectors: Vec<Option<OwnedFd>>,
    /// Takes the messages of vectors that the client left out below the highest one that it connected.
    nobody: OwnedFd,
}

fn refused() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

impl Backend {
    pub(super) fn new(
        world: World,
        port: usize,
        bar_len: u32,
        config: ConfigSpace,
        vectors: usize,
    ) -> io::Result<Self> {
        let nobody = File::options().write(true).open("/dev/null")?.into();
        let vectors = (0..vectors).map(|_| None).collect();
        Ok(Backend { world, port, bar_len, config, files: Files::default(), vectors, nobody })
    }

    /// Gives the model the vectors as they are now.
    fn connect(&self) -> io::Result<()> {
        let used = self.vectors.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let fds: Vec<_> = self.vectors[..used].iter().map(|fd| fd.as_ref().unwrap_or(&self.nobody).as_fd()).collect();
        self.world.access(self.port, |port, _| port.vf.connect_vectors(&fds)).map_err(io::Error::other)
    }

    fn function_reset(&mut self) {
        self.config.reset();
        self.world.access(self.port, |port, env| port.vf.function_reset(env));
    }

    /// The client is gone: the device forgets it.
    pub(super) fn hang_up(&mut self) {
        self.function_reset();
        self.vectors.fill_with(|| None);
        let _ = self.connect();
        self.world.with(|state| state.env.dma.unmap_at(0, u64::MAX));
    }

    fn bar_read(&self, offset: u32) -> u32 {
        self.world.access(self.port, |port, env| port.vf.read(offset, env))
    }

    fn bar_write(&self, offset: u32, value: u32) {
        self.world.access(self.port, |port, env| port.vf.write(offset, value, env));
    }

    /// The register at `offset`, when `len` bytes there are whole registers.
    fn register(&self, offset: u64, len: usize) -> Option<u32> {
        let end = offset.checked_add(len as u64)?;
        let whole = offset.is_multiple_of(4) && len.is_multiple_of(4) && end <= u64::from(self.bar_len);
        if !whole {
            let what = format!("access of {len} bytes at BAR0+{offset:#x}: registers are 32 bits, aligned");
            self.world.access(self.port, |port, env| port.vf.violate(env, &what));
        }
        whole.then_some(offset as u32)
    }
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        match region {
            vfio::VFIO_PCI_BAR0_REGION_INDEX => match self.register(offset, data.len()) {
                Some(first) => {
                    for (register, word) in (first..).step_by(4).zip(data.chunks_exact_mut(4)) {
                        word.copy_from_slice(&self.bar_read(register).to_le_bytes());
                    }
                }
                None => data.fill(u8::MAX),
            },
            vfio::VFIO_PCI_CONFIG_REGION_INDEX => {
                let bus_master = self.world.access(self.port, |port, _| port.vf.bus_master());
                self.config.read(offset, data, bus_master);
            }
            // Clients keep the MSI-X table to themselves.
            _ => data.fill(0),
        }
        Ok(())
    }

    /// Never fails: a write that wants no reply would get one.
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        match region {
            vfio::VFIO_PCI_BAR0_REGION_INDEX => {
                if let Some(first) = self.register(offset, data.len()) {
                    for (register, word) in (first..).step_by(4).zip(data.chunks_exact(4)) {
                        self.bar_write(register, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
                    }
                }
                // There may be frames to send now.
                self.world.wake();
            }
            vfio::VFIO_PCI_CONFIG_REGION_INDEX => {
                let written = self.config.write(offset, data);
                if let Some(on) = written.bus_master {
                    self.world.access(self.port, |port, _| port.vf.set_bus_master(on));
                }
                if written.reset {
                    self.function_reset();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        if ![offset, address, size].iter().all(|n| n.is_multiple_of(PAGE)) {
            return Err(refused());
        }
        let writable = flags.contains(DmaMapFlags::WRITE);
        let memory = match file {
            Some(file) => {
                let end = offset.checked_add(size).ok_or_else(refused)?;
                Some((self.files.map(&file, end, writable)?, offset))
            }
            None => None,
        };
        match self.world.with(|state| state.env.dma.map_at(address, size, memory, writable)) {
            true => Ok(()),
            false => Err(refused()),
        }
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        let (address, size) = if flags.contains(DmaUnmapFlags::UNMAP_ALL) { (0, u64::MAX) } else { (address, size) };
        self.world.with(|state| state.env.dma.unmap_at(address, size));
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.function_reset();
        Ok(())
    }

    fn set_irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: Vec<File>) -> io::Result<()> {
        if index != vfio::VFIO_PCI_MSIX_IRQ_INDEX {
            return Err(refused());
        }
        let end = start.checked_add(count).filter(|&end| end as usize <= self.vectors.len()).ok_or_else(refused)?;
        let vectors = start as usize..end as usize;
        let eventfds = flags & vfio::VFIO_IRQ_SET_DATA_EVENTFD != 0;
        match (flags & vfio::VFIO_IRQ_SET_ACTION_TYPE_MASK, fds.len()) {
            (vfio::VFIO_IRQ_SET_ACTION_TRIGGER, 0) if !eventfds && count == 0 => self.vectors.fill_with(|| None),
            (vfio::VFIO_IRQ_SET_ACTION_TRIGGER, 0) if eventfds => self.vectors[vectors].fill_with(|| None),
            (vfio::VFIO_IRQ_SET_ACTION_TRIGGER, n) if eventfds && n == vectors.len() => {
                for (vector, fd) in self.vectors[vectors].iter_mut().zip(fds) {
                    *vector = Some(fd.into());
                }
            }
            _ => return Err(refused()),
        }
        self.connect()
    }
}

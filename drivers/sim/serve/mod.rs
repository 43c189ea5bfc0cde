//! Serving a model to another process over vfio-user: QEMU's `vfio-user-pci`, or `vfio-user:PATH` of this crate.
//!
//! A [`Server`] owns a world with one model in it, in real time, and a socket. It serves one client at a time, and the
//! next when that one has gone, as when a guest is started again. `vfring sim serve` is a program around it. What always
//! holds: the model is reset when a client goes, and the socket's file goes with the server.
//!
//! Registers are trapped: each access is a message. Where a model has pages that are plain memory, the client maps them. Clients are trusted as much as this process: they share their
//! memory with it, and one that shortens a file which it shared ends it.

mod backend;
mod config;
mod control;
mod files;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use vfio_bindings::bindings::vfio;
use vfio_user::{IrqInfo, ServerRegion, SparseArea};

use super::pages::PAGE;
use super::spec;
use super::world::{PortId, World};
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::PciId;
use crate::spec::SimSpec;
use backend::Backend;
use config::ConfigSpace;

/// Bytes of BAR3 (fact sheets igbvf 1, ixgbevf 1, iavf 1).
const BAR3_LEN: u32 = 16 << 10;

/// A model and the socket that it is served on.
pub struct Server {
    world: World,
    port: PortId,
    spec: SimSpec,
    id: PciId,
    bar_len: u32,
    vectors: usize,
    socket: PathBuf,
    listener: UnixListener,
}

impl Server {
    /// Makes the model that `spec` describes, in a world of its own, and the socket. Unless the spec names a MAC address,
    /// the socket's path decides it, so that two models which are served have different ones.
    ///
    /// # Errors
    /// Those of `sim:` specs; [`Error::Config`] when somebody listens on the socket already, or the path is no socket;
    /// [`Error::Os`] when it cannot be made.
    pub fn bind(spec: &SimSpec, socket: &Path) -> Result<Server> {
        let mut spec = spec.clone();
        if spec.get("mac").is_none() {
            spec.params.push(("mac".to_owned(), mac_of(socket).to_string()));
        }
        let world = World::threaded();
        let port = spec::add(&spec, &world)?;
        let (id, bar_len, vectors) = world.access(port, |port, _| (port.vf.id(), port.vf.bar_len(), port.vf.vectors()));
        let listener = listen(socket)?;
        let (port, socket) = (PortId(port), socket.to_owned());
        Ok(Server { world, port, spec, id, bar_len, vectors, socket, listener })
    }

    /// Vendor and device id of the model.
    pub fn id(&self) -> PciId {
        self.id
    }

    /// The station address that the model's PF filters by.
    pub fn mac(&self) -> MacAddr {
        self.world.mac(self.port)
    }

    /// Serves one client after the other, for ever.
    ///
    /// # Errors
    /// [`Error::Os`] when no further client can be accepted.
    pub fn run(&self) -> Result<()> {
        let failed = |what: &str, e| Error::os(format!("{}: {what}", self.socket.display()), e);
        loop {
            let listener = self.listener.try_clone().map_err(|e| failed("duplicating the socket", e))?;
            let (file, pages) = self.share_pages().map_err(|e| failed("a memfd for pages of BAR0", e))?;
            let (irqs, regions) = self.describe(&file, pages);
            let server = vfio_user::Server::from_owned_fd(OwnedFd::from(listener), true, irqs, regions);
            let config = ConfigSpace::new(self.id, self.bar_len, BAR3_LEN, self.vectors);
            let mut backend = Backend::new(self.world.clone(), self.port.0, self.bar_len, config, self.vectors)
                .map_err(|e| failed("eventfd", e))?;
            // The stock server believes lengths: a client that lies about one must end itself only.
            let ended = catch_unwind(AssertUnwindSafe(|| server.run(&mut backend)));
            backend.hang_up();
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(vfio_user::Error::SocketAccept(e))) => return Err(failed("accepting a client", e)),
                Ok(Err(error)) => eprintln!("vfring model: {}: the client is gone: {error}", self.spec),
                Err(_) => eprintln!("vfring model: {}: a client sent a malformed message", self.spec),
            }
        }
    }

    /// A file with the pages of BAR0 that the model lets a client write without a message. Each client gets new ones.
    fn share_pages(&self) -> std::io::Result<(File, &'static [u32])> {
        let (file, bar) = files::memory(self.bar_len)?;
        Ok((file, self.world.access(self.port.0, |port, _| port.vf.share_pages(&bar))))
    }

    /// Interrupts and regions as VFIO numbers them: MSI-X, BAR0, BAR3 and config space are there.
    fn describe(&self, file: &File, pages: &[u32]) -> (Vec<IrqInfo>, Vec<ServerRegion>) {
        let irqs = (0..vfio::VFIO_PCI_NUM_IRQS).map(|index| match index {
            vfio::VFIO_PCI_MSIX_IRQ_INDEX => {
                IrqInfo { index, flags: vfio::VFIO_IRQ_INFO_EVENTFD, count: self.vectors as u32 }
            }
            _ => IrqInfo { index, flags: 0, count: 0 },
        });
        let regions = (0..vfio::VFIO_PCI_NUM_REGIONS).map(|index| {
            let size = match index {
                vfio::VFIO_PCI_BAR0_REGION_INDEX => self.bar_len.into(),
                vfio::VFIO_PCI_BAR3_REGION_INDEX => BAR3_LEN.into(),
                vfio::VFIO_PCI_CONFIG_REGION_INDEX => config::LEN as u64,
                _ => 0,
            };
            let mut flags = match size {
                0 => 0,
                _ => vfio::VFIO_REGION_INFO_FLAG_READ | vfio::VFIO_REGION_INFO_FLAG_WRITE,
            };
            let shared = if index == vfio::VFIO_PCI_BAR0_REGION_INDEX { pages } else { &[] };
            if !shared.is_empty() {
                flags |= vfio::VFIO_REGION_INFO_FLAG_MMAP;
            }
            let argsz = size_of::<vfio::vfio_region_info>() as u32;
            let region_info = vfio::vfio_region_info { argsz, flags, index, cap_offset: 0, size, offset: 0 };
            let area = |&page: &u32| vfio::vfio_region_sparse_mmap_area { offset: page.into(), size: PAGE as u64 };
            let sparse_areas: Vec<_> = shared.iter().map(|page| SparseArea { area: area(page) }).collect();
            let mmap_fd = (!sparse_areas.is_empty()).then(|| file.as_raw_fd());
            ServerRegion { region_info, sparse_areas, mmap_fd }
        });
        (irqs.collect(), regions.collect())
    }

    /// Removes the socket's file, so that nobody new comes.
    pub fn remove_socket(&self) {
        let _ = fs::remove_file(&self.socket);
    }

    /// Does what a line of the control language says, and returns one line; see `help`.
    ///
    /// # Errors
    /// [`Error::Parse`] for a line that means nothing, with what would.
    pub fn command(&self, line: &str) -> Result<String> {
        control::obey(&self.world, self.port, line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remove_socket();
    }
}

/// A locally administered address that a path decides.
fn mac_of(path: &Path) -> MacAddr {
    // FNV-1a, 64 bits.
    let hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let [.., a, b, c, d] = (hash ^ hash >> 32).to_be_bytes();
    MacAddr([0x02, 0x56, a, b, c, d])
}

/// Listens on a path. A socket that a killed process left there is replaced.
fn listen(path: &Path) -> Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(Error::Config(format!("{} exists and is no socket: choose another path", path.display())));
        }
        match UnixStream::connect(path) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|e| Error::os(format!("removing {}", path.display()), e))?;
            }
            _ => {
                return Err(Error::Config(format!(
                    "another process serves on {}: end it, or choose another path",
                    path.display()
                )));
            }
        }
    }
    UnixListener::bind(path).map_err(|e| Error::os(format!("making the socket {}", path.display()), e))
}

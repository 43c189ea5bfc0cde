//! vfring
#![deny(missing_docs)]

mod addr;
mod error;
mod mem;
mod mmio;
pub mod pci;
mod port;
mod ring;
mod spec;
mod sync;
#[allow(dead_code, unused_imports)] // until the port opens it
mod vfio;

pub use addr::{Iova, MacAddr, PciAddress};
pub use error::{Error, Result};
pub use mem::*;
pub use mmio::PciId;
pub use port::*;
pub use ring::*;
pub use spec::{DeviceSpec, SimSpec};

#[path = "../drivers/mod.rs"]
pub mod drivers;

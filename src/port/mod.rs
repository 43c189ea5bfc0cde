//! Ports.
pub(crate) mod device;
pub use device::{Counters, Link};

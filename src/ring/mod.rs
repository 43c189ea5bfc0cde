//! Descriptor rings.
mod format;
pub use format::{RxFormat, TxFormat};

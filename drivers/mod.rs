//! The NIC families, the models of them, and what does not care which: opening a port by its spec, and the queues of
//! whatever VF it turns out to be.
//!
//! `any` has the enums over the families, matched once per burst, and `forward` what does so for two queues at once. Each family has a module of its own; `sim` is the
//! device side and shares no constant with them.

mod any;
mod forward;
#[cfg(feature = "iavf")]
pub mod iavf;
#[cfg(feature = "igbvf")]
pub mod igbvf;
#[cfg(any(feature = "igbvf", feature = "ixgbevf"))]
mod intel;
#[cfg(feature = "ixgbevf")]
pub mod ixgbevf;
mod open;
#[cfg(feature = "sim")]
pub mod sim;

pub use any::{AnyRx, AnyTx, Started};
pub use forward::Forward;
pub use open::driver_for;

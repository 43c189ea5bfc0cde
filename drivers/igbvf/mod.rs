//! The driver of the 82576 and I350 virtual functions (8086:10ca and 8086:1520).
//!
//! Owns everything that is particular to these two parts, one file per concern:
//!
//! | file | concern |
//! |---|---|
//! | `regs.rs` | the registers used, under their datasheet names |
//! | `messages.rs` | the messages to the PF that only igb's know |
//! | `desc.rs` | the descriptor formats [`IgbRx`] and [`IgbTx`], all that the fast path sees of this part |
//! | `desc_avx2.rs`, `desc_avx512.rs` | the metadata of eight received packets at once |
//! | `counters.rs` | the statistics registers, extended to 64 bits |
//! | `port.rs` | `Igbvf`, which the port framework drives through its trait `Device` |
//!
//! The mailbox's mechanics, the arithmetic of descriptors and much of an opened function are shared with ixgbe's VFs, in
//! `drivers/intel`.
//!
//! A VF's life: `Igbvf::open` looks at ids and BAR only; `reset` silences the function and shakes hands with the PF;
//! `restore` tells the PF what the program wants; `start_tx`, `start_rx` and `start_interrupts` program rings; `check`
//! looks for signs of a reset ten times a second, and the framework answers them with `reset` and all the rest again.
//! What always holds: no method waits without a deadline, a device that reads all ones is `Gone`, and nothing here
//! touches ring memory.
//!
//! Facts cite the project's fact sheet as "fact sheet igbvf" with the section.

mod counters;
mod desc;
#[cfg(target_arch = "x86_64")]
mod desc_avx2;
#[cfg(target_arch = "x86_64")]
mod desc_avx512;
mod messages;
mod port;
mod regs;
#[cfg(test)]
mod tests;

use super::intel;
pub use desc::{IgbRx, IgbTx, Quirks};
pub(crate) use port::Igbvf;

/// The mailbox against a PF that says `bytes`, for fuzzing.
#[cfg(any(fuzzing, test))]
pub fn talk_to_anyone(bytes: &[u8]) {
    intel::talk::talk(messages::MAILBOX, bytes);
}

//! The driver of the virtual functions of the 82599, X540, X550, X550EM_x, X550EM_a and E610.
//!
//! Owns everything that is particular to these parts, one file per concern:
//!
//! | file | concern |
//! |---|---|
//! | `regs.rs` | the registers used, under their datasheet names |
//! | `messages.rs` | the messages to the PF that only ixgbe's know, by API version |
//! | `desc.rs` | the descriptor formats [`IxgbeRx`] and [`IxgbeTx`], all that the fast path sees of these parts |
//! | `desc_avx2.rs`, `desc_avx512.rs` | the metadata of eight received packets at once |
//! | `counters.rs` | the statistics registers |
//! | `part.rs` | the parts: ids, generations, what differs |
//! | `port.rs` | `Ixgbevf`, which the port framework drives through its trait `Device`: resets, rings, interrupts, link |
//! | `settings.rs` | what the program asks of the PF: filters, modes, RSS |
//!
//! The mailbox's mechanics, the arithmetic of descriptors and much of an opened function are shared with igb's VFs, in
//! `drivers/intel`.
//!
//! A VF's life: `Ixgbevf::open` looks at ids and BAR only; `reset` silences the function, shakes hands with the PF and
//! agrees on a version of the API and the number of queues; `restore` tells the PF what the program wants; `start_rings`
//! and `start_interrupts` program rings; `check` looks for signs of a reset ten times a second, and the framework
//! answers them with `reset` and all the rest again. What always holds: no method waits without a deadline, a device that
//! reads all ones is `Gone`, and nothing here touches ring memory.
//!
//! Facts cite the project's fact sheet as "fact sheet ixgbevf" with the section.

mod counters;
mod desc;
#[cfg(target_arch = "x86_64")]
mod desc_avx2;
#[cfg(target_arch = "x86_64")]
mod desc_avx512;
mod messages;
mod part;
mod port;
mod regs;
mod settings;
#[cfg(test)]
mod tests;

use super::intel;
pub use desc::{IxgbeRx, IxgbeTx, Quirks};
#[cfg(any(fuzzing, test))]
pub use messages::parse_anything;
pub(crate) use port::Ixgbevf;

/// The mailbox against a PF that says `bytes`, for fuzzing.
#[cfg(any(fuzzing, test))]
pub fn talk_to_anyone(bytes: &[u8]) {
    intel::talk::talk(messages::MAILBOX, bytes);
}

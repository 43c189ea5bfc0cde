//! What the igb and ixgbe families of virtual functions share, each fact in one place.
//!
//! | file | concern |
//! |---|---|
//! | `mailbox.rs` | the channel to the PF: ownership, deadlines, the words of a message |
//! | `request.rs` | the requests that both families make in the same words |
//! | `function.rs` | one opened function: registers, address, settings, running rings |
//! | `interrupts.rs` | vectors, and which cause raises which |
//! | `desc.rs` | the 16-byte advanced descriptors, as far as both have them alike |
//! | `desc_avx2.rs`, `desc_avx512.rs` | the metadata of eight of them at once |
//! | `counters.rs` | statistics registers, extended to 64 bits |
//! | `talk.rs` | the mailbox against a PF that says anything, for fuzzing |
//!
//! `igbvf` and `ixgbevf` call all of it; nothing here knows an offset of either, they are given by the family. What
//! always holds: no method waits without a deadline, and a register that reads all ones ends in an error that says so.

pub(super) mod counters;
pub(super) mod desc;
#[cfg(target_arch = "x86_64")]
pub(super) mod desc_avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod desc_avx512;
#[cfg(test)]
pub(super) mod fake;
pub(super) mod function;
pub(super) mod interrupts;
pub(super) mod mailbox;
pub(super) mod request;
#[cfg(any(fuzzing, test))]
pub(super) mod talk;

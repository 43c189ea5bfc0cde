//! The driver of the adaptive virtual functions: XL710, X710 and XXV710 (8086:154c), X722 (8086:37cd), and those of
//! the 800 series (8086:1889).
//!
//! Owns everything that is particular to these parts, one file per concern:
//!
//! | file | concern |
//! |---|---|
//! | `regs.rs` | the registers used, under their datasheet names |
//! | `adminq.rs` | the two rings of descriptors in host memory that carry messages |
//! | `virtchnl.rs` | the messages themselves: what a request looks like, what a reply may say |
//! | `channel.rs` | the conversation: one request at a time, events in between, deadlines |
//! | `negotiate.rs` | what the PF grants: version, capabilities, formats, VLAN |
//! | `desc.rs`, `ptype.rs` | the descriptor formats, all that the fast path sees of these parts |
//! | `desc_avx2.rs`, `desc_avx512.rs` | the metadata of eight received packets at once |
//! | `counters.rs` | the PF's statistics of this VF, over resets |
//! | `port.rs` | `Iavf`, which the port framework drives through its trait `Device` |
//! | `reset.rs`, `settings.rs`, `queues.rs` | its parts that ask the PF for something |
//!
//! Apart from tails, interrupts and the admin queue the VF has no registers: whatever is to happen is asked of the PF.
//! A VF's life: `Iavf::open` looks at ids and BAR only; `reset` makes sure that the function was reset, waits for the PF to
//! make it active, and asks for resources; `restore` tells the PF what the program wants; `start_rings` and
//! `start_interrupts` have queues configured and enabled; `check` looks for signs of a reset ten times a second. What
//! always holds: no method waits without a deadline, a device that reads all ones is `Gone`, and whatever a PF answers is
//! checked before it is used.
//!
//! Facts cite the project's fact sheet as "fact sheet iavf" with the section.

mod adminq;
mod channel;
mod counters;
mod desc;
#[cfg(target_arch = "x86_64")]
mod desc_avx2;
#[cfg(target_arch = "x86_64")]
mod desc_avx512;
mod negotiate;
mod port;
mod ptype;
mod queues;
mod regs;
mod reset;
mod settings;
#[cfg(test)]
mod tests;
mod virtchnl;

pub use desc::{AvfFlexRx, AvfLegacyRx, AvfQuirks, AvfTx, TAG_IN_CONTEXT, TAG_IN_DATA, TAG_NOWHERE};
pub(crate) use port::Iavf;

#[cfg(any(fuzzing, test))]
pub use virtchnl::parse_anything;

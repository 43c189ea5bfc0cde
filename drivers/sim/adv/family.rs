//! What sets one family of VFs with advanced descriptors apart from another: where its registers are, its numbers and
//! bits, its PF, and the few things that its hardware does differently.
//!
//! The engine ([`AdvVf`](super::AdvVf)) is generic over a [`Family`]; the values come from the family's own fact sheet and are
//! shared with no driver.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::super::fault::Faults;
use super::rx::Verdict;
use crate::addr::MacAddr;
use crate::mmio::PciId;

pub(in super::super) use super::super::env::Checked;

/// MSI-X vectors of a VF (igbvf 1, ixgbevf 1).
pub(in super::super) const VECTORS: usize = 3;
/// Most queues of a VF of any family.
pub(in super::super) const QUEUES_MAX: usize = 8;

// Bits that are where they are in every family of this kind (igbvf 2.2, 4.2, 4.5, 4.6; ixgbevf 2.3, 4.2, 4.5, 4.6).

/// CTRL and VFCTRL: reset the VF.
pub(super) const CTRL_RST: u32 = 1 << 26;
/// RXDCTL and TXDCTL: the queue runs.
pub(in super::super) const DCTL_ENABLE: u32 = 1 << 25;
/// RXDCTL and TXDCTL: flush.
pub(in super::super) const DCTL_SWFLSH: u32 = 1 << 26;
/// TXCTL and DCA_TXCTRL: relaxed ordering of descriptor write-back, which must be off.
pub(super) const DCA_WB_RO: u32 = 1 << 11;
/// Bits of EICS, EIMS and their kin: one for each vector.
pub(in super::super) const CAUSES: u32 = 0x7;

/// A register as the engine knows it; the family says at which offset it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Register {
    /// CTRL, VFCTRL: only RST is known.
    Ctrl,
    /// V2PMAILBOX, VFMAILBOX.
    Mailbox,
    /// A word of VMBMEM, VFMBMEM.
    Memory(usize),
    Eics,
    Eims,
    Eimc,
    Eiac,
    Eiam,
    Eicr,
    Eitr(usize),
    /// Bytes of two queues: Rx, Tx, Rx, Tx.
    Ivar(usize),
    IvarMisc,
    /// A register of a queue.
    Queue {
        tx: bool,
        queue: usize,
        register: QueueRegister,
    },
    /// One that only this family has.
    Own,
}

/// A register of a queue, under its name without the family's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum QueueRegister {
    Bal,
    Bah,
    Len,
    Head,
    Tail,
    /// RXDCTL, TXDCTL.
    Dctl,
    /// RXCTL, TXCTL, DCA_RXCTRL, DCA_TXCTRL.
    Dca,
    Srrctl,
    Rqdpc,
    Tdwbal,
    Tdwbah,
}

/// Numbers and bits of a family.
pub(in super::super) struct Rules {
    /// Most descriptors of a ring.
    pub(in super::super) ring_max: u32,
    /// Bits of RDLEN and TDLEN that exist.
    pub(in super::super) len_bits: u32,
    /// A reset of the VF leaves head, tail, SRRCTL, RXDCTL, TXDCTL, head write-back and the DCA registers as they were.
    pub(in super::super) reset_keeps_queues: bool,
    /// Without interrupt moderation, the last descriptors of a batch (WTHRESH above 1) may never be written back.
    pub(in super::super) batches_stay_out: bool,
    /// Bits of RXDCTL and TXDCTL that exist.
    pub(in super::super) dctl_bits: [u32; 2],
    /// Values of RXDCTL and TXDCTL, and of the DCA registers, after power-on.
    pub(in super::super) dctl_reset: [u32; 2],
    pub(in super::super) dca_reset: [u32; 2],
    /// The transmit DCA register's name.
    pub(in super::super) tx_dca: &'static str,
    /// Bits of SRRCTL that exist, and its value after power-on.
    pub(in super::super) srrctl_bits: u32,
    pub(in super::super) srrctl_reset: u32,
    /// Bytes of a receive buffer by SRRCTL.
    pub(in super::super) buffer_len: fn(u32) -> Result<usize, String>,
    /// The model splits headers from payload (DESCTYPE 5). Only drivers of other hands ask for it.
    pub(in super::super) splits_headers: bool,
    /// Bit 0 of a receive descriptor's header address must be 0 although only one buffer is used.
    pub(in super::super) header_address_counts: bool,
    /// Receive errors in dword 2: L4 checksum, IP checksum, frame.
    pub(in super::super) rx_l4e: u32,
    pub(in super::super) rx_ipe: u32,
    pub(in super::super) rx_rxe: u32,
    /// VP and the tag are reported of tagged frames also when the tag stays in the frame.
    pub(in super::super) reports_kept_tags: bool,
    /// Bits that may be set in dwords 2 and 3 of a data descriptor and of a context descriptor.
    pub(in super::super) tx_data_bits: u32,
    pub(in super::super) tx_olinfo_bits: u32,
    pub(in super::super) tx_context_bits: u32,
    pub(in super::super) tx_context_info_bits: u32,
    /// What dword 1 of a context holds; the model does without.
    pub(in super::super) tx_context_dword1: &'static str,
    /// Each packet must name (CC) a context that says where its headers are (MACLEN of 14 or more).
    pub(in super::super) tx_needs_context: bool,
    /// Longest frame without TSO, and without FCS and tag.
    pub(in super::super) tx_frame_max: usize,
    /// Descriptors of one packet, less WTHRESH.
    pub(in super::super) tx_descriptors_max: u32,
    /// Largest MSS, and longest headers of a segmented packet.
    pub(in super::super) mss_max: u16,
    pub(in super::super) tso_headers_max: usize,
}

/// What a family's own registers may look at.
pub(in super::super) struct Look {
    /// Time of the world.
    pub(in super::super) now: Duration,
    /// The physical link is up.
    pub(in super::super) link: bool,
}

/// One family, with what only it has: its options, its own registers, its statistics.
pub(in super::super) trait Family: Sized + Send + 'static {
    /// The PF's side.
    type Pf: PfSide;
    /// Bytes of BAR0.
    const BAR_LEN: u32;
    /// Numbers and bits.
    const RULES: &'static Rules;

    /// The function's identity.
    fn id(&self) -> PciId;

    /// Receive queues and transmit queues that have registers.
    fn queues(&self) -> usize;

    /// Queues that the PF granted: the others never run.
    fn granted(&self) -> usize {
        self.queues()
    }

    /// A PF that never heard of the VF.
    fn pf(&self) -> Self::Pf;

    /// The register at an offset of a VF with registers for this many queues.
    fn decode(offset: u32, queues: usize) -> Option<Register>;

    /// The datasheet's name of a register, for traces.
    fn register_name(offset: u32) -> String;

    /// Reads a register of its own.
    fn read_own(&mut self, offset: u32, look: &Look) -> Option<u32>;

    /// Writes a register of its own; `None`: there is no such register.
    fn write_own(&mut self, offset: u32, value: u32) -> Option<Checked>;

    /// Its own registers after a function reset, or (`power_on`) after a reset of the PF.
    fn reset(&mut self, power_on: bool);

    /// What is wrong with this value of RXDCTL or TXDCTL for a queue that is being enabled by it.
    fn check_control(&self, tx: bool, queue: usize, value: u32) -> Checked;

    /// Most descriptors that WTHRESH keeps from one packet.
    fn wthresh(txdctl: u32) -> u32;

    /// A frame that is received (`len` with the tag, without FCS) or sent.
    fn received(&mut self, len: usize, multicast: bool, loopback: bool);
    fn sent(&mut self, len: usize, loopback: bool);

    /// Sets the statistics registers.
    fn preset_counters(&mut self, value: u32);

    /// The queue that a frame goes to, and what is reported of it besides a tag.
    fn route(&self, frame: &[u8]) -> (usize, Verdict);

    /// True when a queue with this RXDCTL strips tags.
    fn strips(&self, pf: &Self::Pf, rxdctl: u32) -> bool;

    /// True when a queue with this RXDCTL takes a frame of `len` bytes without FCS and tag.
    fn takes_length(&self, _rxdctl: u32, _len: usize) -> bool {
        true
    }

    /// A stripped tag as it stands in the descriptor.
    fn tag(&self, tci: u16, _loopback: bool) -> u16 {
        tci
    }

    /// A queue's head or tail may only be written once its length has reached the device, which a read makes sure of.
    fn head_needs_flush(&self) -> bool {
        false
    }

    /// The PF clears TDWBAL and TDWBAH when it grants the reset request.
    fn pf_clears_write_back(&self) -> bool;

    /// The driver must take relaxed ordering from write-backs: it works on most silicon with it, too.
    fn minds_relaxed_write_back(&self) -> bool {
        true
    }

    /// The PF stops a VF that breaks the rules (MDD).
    fn detects_malice(&self) -> bool;
}

/// The PF behind a VF: policy of the mailbox, and the switch.
pub(in super::super) trait PfSide: Send {
    /// Bytes of the longest frame that can come in now, with FCS and tag.
    fn longest(&self) -> usize;

    /// Handles the message in the mailbox; the words of the reply, if there is one.
    fn request(&mut self, memory: &[u32; 16], now: Duration, faults: &Faults) -> Option<Vec<u32>>;

    /// The VF acknowledged a message; what the PF says to that.
    fn acknowledged(&mut self, now: Duration) -> Option<Vec<u32>>;

    /// It reads messages also while the VF owns the mailbox buffer.
    fn reads_owned_buffer(&self) -> bool {
        false
    }

    /// It clears the mailbox buffer when it notices a reset of the VF.
    fn clears_memory(&self) -> bool {
        false
    }

    /// The VF may talk: it completed a reset handshake and the PF did not reset since.
    fn clear_to_send(&self) -> bool;

    /// Frames reach the VF (VFRE), and leave it (VFTE).
    fn receives(&self) -> bool;
    fn transmits(&self) -> bool;

    /// The VF was reset: everything that it asked for is lost.
    fn forget(&mut self, now: Duration);

    /// Word 0 of a ping.
    fn ping(&self) -> u32;

    /// The VF was found malicious: everything that it asked for is lost, and it gets this message.
    fn punish(&mut self, now: Duration) -> u32;

    /// The station address that the switch filters by.
    fn mac(&self) -> MacAddr;

    /// True when the switch passes this frame to the VF. `frame` has at least an Ethernet header.
    fn accepts(&self, frame: &[u8]) -> bool;

    /// The VLAN that the switch puts the VF in without its knowledge.
    fn port_vlan(&self) -> Option<u16> {
        None
    }
}

//! Receive-side scaling of the ixgbe VF (fact sheet ixgbevf 2.6): the PF's key and table on generation A, the VF's own
//! registers on generation B.
//!
//! On both, VFPSRTYPE.RQPL says over how many queues of the pool the table may spread.
#![forbid(unsafe_code)]

use super::super::adv::Checked;
use super::super::frame::{self, Layout};
use super::regs;

/// Entries of the PF's table (ixgbevf 3.3: GET_RETA).
pub(super) const PF_ENTRIES: usize = 128;
/// Most queues that the PF's table spreads over: two bits for each entry.
const PF_QUEUES_MAX: usize = 4;
/// What a stock PF hashes: TCP/IPv4, IPv4, TCP/IPv6 and IPv6, but no UDP.
const PF_TYPES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5;
/// Entries of a VF's own table.
const ENTRIES: usize = 64;

/// The key of the PF.
pub(super) const PF_KEY: [u8; 40] = frame::RSS_KEY;

/// An entry of the PF's table in a pool of `queues`.
pub(super) fn pf_entry(index: usize, queues: usize) -> usize {
    index % queues.min(PF_QUEUES_MAX)
}

/// VFPSRTYPE and the RSS registers of generation B.
#[derive(Clone)]
pub(super) struct Rss {
    /// Generation B: the VF has registers of its own.
    private: bool,
    psrtype: u32,
    mrqc: u32,
    /// The RSS types of `mrqc`.
    types: u32,
    key: [u8; 40],
    table: [u8; ENTRIES],
}

impl Rss {
    pub(super) fn new(private: bool) -> Self {
        Rss { private, psrtype: 0, mrqc: 0, types: 0, key: [0; 40], table: [0; ENTRIES] }
    }

    /// A reset of the VF leaves VFPSRTYPE as it was (ixgbevf 2.4).
    pub(super) fn reset(&mut self, power_on: bool) {
        let psrtype = if power_on { 0 } else { self.psrtype };
        *self = Rss { psrtype, ..Rss::new(self.private) };
    }

    pub(super) fn read(&self, offset: u32) -> Option<u32> {
        let word = |bytes: &[u8], first: u32| {
            let at = (offset - first) as usize;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Some(match offset {
            regs::VFPSRTYPE => self.psrtype,
            _ if !self.private => return None,
            regs::VFMRQC => self.mrqc,
            regs::VFRSSRK0..=regs::VFRSSRK9 => word(&self.key, regs::VFRSSRK0),
            regs::VFRETA0..=regs::VFRETA15 => word(&self.table, regs::VFRETA0),
            _ => return None,
        })
    }

    /// Writes a register of a VF with `granted` queues; `None` when it is not one of these.
    pub(super) fn write(&mut self, offset: u32, value: u32, granted: usize) -> Option<Checked> {
        let put = |bytes: &mut [u8], first: u32| {
            let at = (offset - first) as usize;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        match offset {
            regs::VFPSRTYPE => {
                self.psrtype = value;
                if value & !regs::PSRTYPE_BITS != 0 {
                    return Some(Err(format!("VFPSRTYPE {value:#010x} has reserved bits set")));
                }
            }
            _ if !self.private => return None,
            regs::VFMRQC => {
                self.mrqc = value;
                self.types =
                    regs::MRQC_TYPES.iter().filter(|(bit, _)| value & 1 << bit != 0).fold(0, |t, m| t | 1 << m.1);
                let exist = regs::MRQC_TYPES.iter().fold(regs::MRQC_RSSEN, |bits, (bit, _)| bits | 1 << bit);
                if value & !exist != 0 {
                    return Some(Err(format!("VFMRQC {value:#010x} has reserved bits set")));
                }
                if let Some(entry) = self.table.iter().find(|entry| **entry as usize >= granted)
                    && value & regs::MRQC_RSSEN != 0
                {
                    return Some(Err(format!(
                        "RSS switched on with queue {entry} in VFRETA; the PF granted {granted}"
                    )));
                }
            }
            regs::VFRSSRK0..=regs::VFRSSRK9 => put(&mut self.key, regs::VFRSSRK0),
            regs::VFRETA0..=regs::VFRETA15 => put(&mut self.table, regs::VFRETA0),
            _ => return None,
        }
        Some(Ok(()))
    }

    /// RSS type and hash of a frame, and its queue in a pool of `granted`.
    pub(super) fn spread(&self, frame: &[u8], layout: &Layout, granted: usize) -> ((u32, u32), usize) {
        let (key, types) = match self.private {
            true if self.mrqc & regs::MRQC_RSSEN == 0 => return ((0, 0), 0),
            true => (&self.key, self.types),
            false => (&PF_KEY, PF_TYPES),
        };
        let rss = frame::rss(frame, layout, key, types);
        if rss.0 == 0 {
            return (rss, 0);
        }
        let entry = match self.private {
            true => (self.table[rss.1 as usize % ENTRIES] & 7) as usize,
            false => pf_entry(rss.1 as usize % PF_ENTRIES, granted),
        };
        let rqpl = self.psrtype >> 29;
        (rss, entry & ((1 << rqpl) - 1))
    }
}

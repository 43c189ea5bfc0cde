//! The igb VF: an 82576 VF or an I350 VF (fact sheet igbvf); the engine is [`AdvVf`].
#![forbid(unsafe_code)]

mod pf;
mod regs;
mod stats;

use super::adv::{AdvVf, Checked, Family, Look, Register, Rules, Verdict, classify};
use super::frame;
use crate::addr::MacAddr;
use crate::mmio::PciId;

/// Which VF is modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// 82576 VF, 8086:10ca: two receive and two transmit queues.
    I82576,
    /// I350 VF, 8086:1520: one of each; the PF detects malicious drivers.
    I350,
}

/// What a modelled igb VF is like, and what its PF does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgbOptions {
    /// The part.
    pub part: Part,
    /// The station address that the PF assigns; `None`: it assigns none and answers the reset request 0x4000_0001.
    pub mac: Option<MacAddr>,
    /// The host set the address administratively: the PF refuses another one.
    pub mac_fixed: bool,
    /// The PF spreads received frames over the queues by RSS and reports the hash. A stock PF does not.
    pub rss: bool,
    /// The driver may leave to others what Linux's and DPDK's leave: head write-back, which the PF clears when it grants the
    /// reset request (Intel's own does, Linux's does not: fact sheet igbvf 2.3), and relaxed ordering of write-backs.
    pub lenient: bool,
}

impl Default for IgbOptions {
    fn default() -> Self {
        IgbOptions {
            part: Part::I82576,
            mac: Some(MacAddr([0x02, 0x56, 0x46, 0, 0, 1])),
            mac_fixed: false,
            rss: false,
            lenient: false,
        }
    }
}

/// One igb VF.
pub(super) type IgbVf = AdvVf<Igb>;

/// What only an igb VF has.
pub(super) struct Igb {
    options: IgbOptions,
    stats: stats::Stats,
    pbacl: u32,
    psrtype: u32,
}

impl Igb {
    pub(super) fn new(options: IgbOptions) -> Self {
        Igb { options, stats: stats::Stats::default(), pbacl: 0, psrtype: 0 }
    }
}

impl Family for Igb {
    type Pf = pf::Pf;
    const BAR_LEN: u32 = regs::BAR_LEN;
    const RULES: &'static Rules = &regs::RULES;

    fn id(&self) -> PciId {
        PciId { vendor: 0x8086, device: if self.options.part == Part::I82576 { 0x10ca } else { 0x1520 } }
    }

    fn queues(&self) -> usize {
        match self.options.part {
            Part::I82576 => 2,
            Part::I350 => 1,
        }
    }

    fn pf(&self) -> pf::Pf {
        pf::Pf::new(self.options.mac, self.options.mac_fixed)
    }

    fn decode(offset: u32, queues: usize) -> Option<Register> {
        regs::decode(offset, queues)
    }

    fn register_name(offset: u32) -> String {
        regs::name(offset)
    }

    fn read_own(&mut self, offset: u32, look: &Look) -> Option<u32> {
        Some(match offset {
            regs::STATUS if look.link => regs::STATUS_FD | regs::STATUS_LU | regs::STATUS_SPEED_1000,
            regs::STATUS => 0,
            regs::FRTIMER => look.now.as_micros() as u32,
            regs::PBACL => self.pbacl,
            regs::PSRTYPE => self.psrtype,
            regs::PBRWAC | regs::PBTWAC => 0,
            _ => return self.stats.read(offset),
        })
    }

    fn write_own(&mut self, offset: u32, value: u32) -> Option<Checked> {
        match offset {
            regs::PBACL => self.pbacl = value,
            regs::PSRTYPE => self.psrtype = value,
            regs::STATUS | regs::FRTIMER => return Some(Err(format!("{} is read only", regs::name(offset)))),
            _ => return None,
        }
        Some(Ok(()))
    }

    fn reset(&mut self, _power_on: bool) {
        (self.pbacl, self.psrtype) = (0, 0);
    }

    fn check_control(&self, tx: bool, queue: usize, value: u32) -> Checked {
        let wthresh = Self::wthresh(value);
        if !tx && self.options.part == Part::I82576 && wthresh != 1 {
            return Err(format!(
                "RXDCTL({queue}).WTHRESH is {wthresh}: an 82576 VF needs 1, or write-backs stay out (erratum)"
            ));
        }
        // Batches of sent descriptors only come back later; DPDK's driver asks for 16 in one.
        if !tx && wthresh > 1 {
            return Err(format!("rx queue {queue} enabled with WTHRESH {wthresh}: write-backs would be batched"));
        }
        Ok(())
    }

    fn wthresh(txdctl: u32) -> u32 {
        txdctl >> 16 & 0x1f
    }

    fn received(&mut self, len: usize, multicast: bool, loopback: bool) {
        self.stats.received(len, multicast, loopback);
    }

    fn sent(&mut self, len: usize, loopback: bool) {
        self.stats.sent(len, loopback);
    }

    fn preset_counters(&mut self, value: u32) {
        self.stats.preset(value);
    }

    fn route(&self, frame: &[u8]) -> (usize, Verdict) {
        let layout = frame::layout(frame);
        let rss = match self.options.rss {
            true => frame::rss(frame, &layout, &frame::RSS_KEY, frame::RSS_TYPES_ALL),
            false => (0, 0),
        };
        (rss.1 as usize % self.queues(), classify(frame, &layout, rss, &regs::RULES))
    }

    fn strips(&self, pf: &pf::Pf, _rxdctl: u32) -> bool {
        pf.strip
    }

    /// Loopback frames of an I350 carry the tag in network order (igbvf 4.4).
    fn tag(&self, tci: u16, loopback: bool) -> u16 {
        if loopback && self.options.part == Part::I350 { tci.swap_bytes() } else { tci }
    }

    fn pf_clears_write_back(&self) -> bool {
        self.options.lenient
    }

    fn minds_relaxed_write_back(&self) -> bool {
        !self.options.lenient
    }

    fn detects_malice(&self) -> bool {
        self.options.part == Part::I350
    }
}

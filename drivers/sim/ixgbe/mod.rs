//! The ixgbe VF: an 82599, X540, X550 or E610 VF (fact sheet ixgbevf); the engine is [`AdvVf`].
//!
//! "Generation A" is 82599 and X540, "generation B" X550 and E610: RSS registers of its own, and malicious-driver detection.
#![forbid(unsafe_code)]

mod pf;
mod regs;
mod rss;
mod stats;

use super::adv::{AdvVf, Checked, Family, Look, Register, Rules, Verdict, classify};
use super::frame::{self, FCS, Ip, Transport};
use crate::addr::MacAddr;
use crate::mmio::PciId;

/// Which ixgbe VF is modelled (ixgbevf 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IxgbePart {
    /// 82599 VF, 8086:10ed: generation A; PF and VFs share one frame limit.
    I82599,
    /// X540 VF, 8086:1515: generation A.
    X540,
    /// X550 VF, 8086:1565: generation B.
    X550,
    /// E610 VF, 8086:57ad: generation B; the PF tells its link.
    E610,
}

impl IxgbePart {
    fn generation_b(self) -> bool {
        matches!(self, IxgbePart::X550 | IxgbePart::E610)
    }
}

/// What a modelled ixgbe VF is like, and what its PF does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IxgbeOptions {
    /// The part.
    pub part: IxgbePart,
    /// Queues that the PF grants: 1, 2, 4 or 8. Linux's driver uses two from API 1.1 on, however many are granted.
    pub queues: u8,
    /// The highest mailbox API that the PF speaks: 1.0 to 1.7 by its second digit. It speaks all older ones too.
    pub api: u8,
    /// The station address that the PF assigns; `None`: it assigns none and answers the reset request 0x4000_0001.
    pub mac: Option<MacAddr>,
    /// The host set the address administratively: the PF refuses others, unless the VF is trusted.
    pub mac_fixed: bool,
    /// The host trusts the VF: all multicast, and other addresses than the one that it set.
    pub trusted: bool,
    /// The PF itself is promiscuous, so that a trusted VF may be.
    pub pf_promiscuous: bool,
    /// The host lets the VF read the RSS key and table that it shares with the PF (generation A).
    pub query_rss: bool,
    /// The PF's MTU is above 1500, which decides over the VF's on an 82599.
    pub jumbo: bool,
    /// Traffic classes of the port: 0 (none), 4 or 8. Each has one queue; frames come by their priority.
    pub traffic_classes: u8,
    /// The VLAN that the host put the VF in without its knowledge: frames on the wire carry its tag.
    pub port_vlan: Option<u16>,
    /// Which 12 bits of an address the multicast table is indexed by: 0 to 3.
    pub multicast_filter: u8,
}

impl Default for IxgbeOptions {
    fn default() -> Self {
        IxgbeOptions {
            part: IxgbePart::X550,
            queues: 4,
            api: 7,
            mac: Some(MacAddr([0x02, 0x56, 0x46, 0, 0, 1])),
            mac_fixed: false,
            trusted: false,
            pf_promiscuous: false,
            query_rss: false,
            jumbo: false,
            traffic_classes: 0,
            port_vlan: None,
            multicast_filter: 0,
        }
    }
}

impl IxgbeOptions {
    /// Queues that run.
    fn granted(&self) -> usize {
        match self.traffic_classes {
            0 | 1 => self.queues as usize,
            classes => classes as usize,
        }
        .clamp(1, regs::QUEUES)
    }
}

/// One ixgbe VF.
pub(super) type IxgbeVf = AdvVf<Ixgbe>;

/// What only an ixgbe VF has.
pub(super) struct Ixgbe {
    options: IxgbeOptions,
    stats: stats::Stats,
    rss: rss::Rss,
    rscctl: [u32; regs::QUEUES],
    vtrscint: [u32; 3],
}

impl Ixgbe {
    pub(super) fn new(options: IxgbeOptions) -> Self {
        let rss = rss::Rss::new(options.part.generation_b());
        Ixgbe { options, stats: stats::Stats::default(), rss, rscctl: [0; regs::QUEUES], vtrscint: [0; 3] }
    }
}

impl Family for Ixgbe {
    type Pf = pf::Pf;
    const BAR_LEN: u32 = regs::BAR_LEN;
    const RULES: &'static Rules = &regs::RULES;

    fn id(&self) -> PciId {
        let device = match self.options.part {
            IxgbePart::I82599 => 0x10ed,
            IxgbePart::X540 => 0x1515,
            IxgbePart::X550 => 0x1565,
            IxgbePart::E610 => 0x57ad,
        };
        PciId { vendor: 0x8086, device }
    }

    fn queues(&self) -> usize {
        regs::QUEUES
    }

    fn granted(&self) -> usize {
        self.options.granted()
    }

    fn pf(&self) -> pf::Pf {
        pf::Pf::new(self.options.clone())
    }

    fn decode(offset: u32, _queues: usize) -> Option<Register> {
        regs::decode(offset)
    }

    fn register_name(offset: u32) -> String {
        regs::name(offset)
    }

    fn read_own(&mut self, offset: u32, look: &Look) -> Option<u32> {
        Some(match offset {
            regs::VFLINKS if look.link => regs::LINKS_UP_10G,
            regs::VFSTATUS | regs::VFLINKS | regs::VFRXMEMWRAP => 0,
            regs::VFFRTIMER => look.now.as_micros() as u32,
            regs::VTRSCINT0..=regs::VTRSCINT2 => self.vtrscint[((offset - regs::VTRSCINT0) / 4) as usize],
            _ => {
                let rscctl = regs::rscctl(offset).map(|queue| self.rscctl[queue]);
                return rscctl.or_else(|| self.stats.read(offset)).or_else(|| self.rss.read(offset));
            }
        })
    }

    fn write_own(&mut self, offset: u32, value: u32) -> Option<Checked> {
        match offset {
            regs::VTRSCINT0..=regs::VTRSCINT2 => self.vtrscint[((offset - regs::VTRSCINT0) / 4) as usize] = value,
            regs::VFSTATUS | regs::VFLINKS | regs::VFFRTIMER | regs::VFRXMEMWRAP => {
                return Some(Err(format!("{} is read only", regs::name(offset))));
            }
            _ => {
                let Some(queue) = regs::rscctl(offset) else {
                    return self.rss.write(offset, value, self.options.granted());
                };
                self.rscctl[queue] = value;
                if value & regs::RSCCTL_RSCEN != 0 {
                    return Some(Err(format!("VFRSCCTL({queue}).RSCEN: the model does not coalesce")));
                }
            }
        }
        Some(Ok(()))
    }

    fn reset(&mut self, power_on: bool) {
        self.rss.reset(power_on);
        (self.rscctl, self.vtrscint) = ([0; regs::QUEUES], [0; 3]);
    }

    fn check_control(&self, tx: bool, queue: usize, value: u32) -> Checked {
        let (pthresh, wthresh) = (value & regs::TXDCTL_THRESH, Self::wthresh(value));
        if tx && pthresh + wthresh > regs::TX_ON_CHIP {
            return Err(format!(
                "TXDCTL({queue}) with PTHRESH {pthresh} and WTHRESH {wthresh}: {} descriptors fit on the chip",
                regs::TX_ON_CHIP
            ));
        }
        Ok(())
    }

    fn wthresh(txdctl: u32) -> u32 {
        txdctl >> 16 & regs::TXDCTL_THRESH
    }

    fn received(&mut self, len: usize, multicast: bool, _loopback: bool) {
        self.stats.received(len, multicast);
    }

    fn sent(&mut self, len: usize, _loopback: bool) {
        self.stats.sent(len);
    }

    fn preset_counters(&mut self, value: u32) {
        self.stats.preset(value);
    }

    fn route(&self, frame: &[u8]) -> (usize, Verdict) {
        let layout = frame::layout(frame);
        let (rss, mut queue) = self.rss.spread(frame, &layout, self.options.granted());
        if self.options.traffic_classes > 1 {
            queue = frame::vlan_tag(frame).map_or(0, |tci| (tci >> 13) as usize * self.options.granted() / 8);
        }
        let mut verdict = classify(frame, &layout, rss, &regs::RULES);
        // An 82599 may call a UDP datagram without a checksum bad (ixgbevf 4.2); this one always does.
        if self.options.part == IxgbePart::I82599
            && matches!((layout.ip, layout.transport), (Ip::V4 { .. }, Transport::Udp))
            && frame[layout.l4 + 6..layout.l4 + 8] == [0, 0]
        {
            verdict = verdict.with_status(regs::RX_L4CS | regs::RX_L4E);
        }
        (queue, verdict)
    }

    fn strips(&self, _pf: &pf::Pf, rxdctl: u32) -> bool {
        rxdctl & regs::RXDCTL_VME != 0
    }

    /// RLPML has no effect on an 82599 (ixgbevf 2.3).
    fn takes_length(&self, rxdctl: u32, len: usize) -> bool {
        self.options.part == IxgbePart::I82599
            || rxdctl & regs::RXDCTL_RLPML_EN == 0
            || len + FCS <= (rxdctl & regs::RXDCTL_RLPML) as usize
    }

    /// What malicious-driver detection takes offence at (ixgbevf 6).
    fn head_needs_flush(&self) -> bool {
        self.options.part.generation_b()
    }

    fn pf_clears_write_back(&self) -> bool {
        true
    }

    fn detects_malice(&self) -> bool {
        self.options.part.generation_b()
    }
}

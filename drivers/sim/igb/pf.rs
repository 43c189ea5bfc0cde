//! The PF behind the VF: what it grants, what it refuses, and which frames its switch lets through to the VF (fact sheet
//! igbvf 3.2, 3.3, 6).
//!
//! It behaves as a stock PF: NACK for unicast promiscuity, VLAN stripping as a side effect of VLAN requests, and no
//! answers to a VF that it does not consider clear to send.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::adv::PfSide;
use super::super::fault::{Fault, Faults};
use super::super::frame::{self, FCS};
use super::regs;
use crate::addr::MacAddr;

/// A VF that is not clear to send gets one word in this time (igbvf 3.3).
const NOT_CTS_PERIOD: Duration = Duration::from_secs(2);
/// Hashes that fit the mailbox (igbvf 3.3).
const MULTICAST_MAX: u32 = 30;
/// Additional unicast filters; Linux's VF counts on 3 (igbvf 3.3).
const UNICAST_MAX: usize = 3;
/// Longest frame with FCS before the VF asked for another (untagged).
const RLPML_DEFAULT: usize = 1518;
/// RLPML has 14 bits (igbvf 3.3).
const RLPML_BITS: u32 = 0x3fff;

/// The PF's view of one VF.
pub(in super::super) struct Pf {
    /// The address that the host assigned, if it did.
    assigned: Option<MacAddr>,
    /// The host set the address administratively: the VF may not change it.
    fixed: bool,
    /// The VF may talk: it completed a reset handshake and the PF did not reset since.
    cts: bool,
    /// VFRE and VFTE of the VF.
    enabled: bool,
    /// The station address in the PF's filter.
    mac: MacAddr,
    unicast: Vec<MacAddr>,
    multicast: BTreeSet<u16>,
    all_multicast: bool,
    vlans: BTreeSet<u16>,
    /// Tags are stripped from received frames.
    pub(super) strip: bool,
    rlpml: usize,
    last_not_cts: Duration,
}

impl Pf {
    pub(super) fn new(assigned: Option<MacAddr>, fixed: bool) -> Self {
        let mut pf = Pf {
            assigned,
            fixed,
            cts: false,
            enabled: false,
            mac: MacAddr::ZERO,
            unicast: Vec::new(),
            multicast: BTreeSet::new(),
            all_multicast: false,
            vlans: BTreeSet::new(),
            strip: false,
            rlpml: RLPML_DEFAULT,
            last_not_cts: Duration::ZERO,
        };
        pf.forget(Duration::ZERO);
        pf
    }

    fn reset_request(&mut self, now: Duration, nack: bool) -> Vec<u32> {
        self.forget(now);
        self.cts = true;
        self.enabled = true;
        let id = regs::MSG_RESET as u32;
        match self.assigned.filter(|_| !nack) {
            Some(MacAddr(m)) => {
                let low = u32::from_le_bytes([m[0], m[1], m[2], m[3]]);
                vec![regs::MSG_ACK | id, low, u16::from_le_bytes([m[4], m[5]]) as u32]
            }
            None => vec![regs::MSG_NACK | id, 0, 0],
        }
    }

    /// The answer to a VF that is not clear to send, at most once in two seconds.
    fn not_clear_to_send(&mut self, now: Duration) -> Option<Vec<u32>> {
        if self.cts || now < self.last_not_cts + NOT_CTS_PERIOD {
            return None;
        }
        self.last_not_cts = now;
        Some(vec![regs::MSG_NACK])
    }

    /// Carries out a request of a VF that is clear to send: granted or not, and which info bits the reply repeats.
    fn carry_out(&mut self, memory: &[u32; 16]) -> (bool, u32) {
        const ALL: u32 = 0x00ff_0000;
        let info = memory[0] >> 16 & 0xff;
        let [a, b, c, d] = memory[1].to_le_bytes();
        let [e, f, ..] = memory[2].to_le_bytes();
        let address = MacAddr([a, b, c, d, e, f]);
        match memory[0] as u16 {
            regs::MSG_SET_MAC => (self.set_address(info, address), ALL),
            regs::MSG_MULTICAST => {
                let hash = |i: usize| (memory[1 + i / 2] >> (16 * (i as u32 % 2)) & 0xfff) as u16;
                self.multicast = (0..info.min(MULTICAST_MAX) as usize).map(hash).collect();
                (true, ALL)
            }
            regs::MSG_VLAN => (self.set_vlan(info != 0, memory[1]), ALL),
            regs::MSG_LPE => {
                self.rlpml = (memory[1] & RLPML_BITS) as usize;
                (true, ALL)
            }
            regs::MSG_PROMISC => {
                self.all_multicast = info & 2 != 0;
                let refused = info & !2;
                (refused == 0, refused << 16)
            }
            _ => (false, ALL),
        }
    }

    fn set_address(&mut self, info: u32, address: MacAddr) -> bool {
        // Newer PFs look at the address before they look at what is asked.
        if self.fixed || !address.is_valid_station() {
            return false;
        }
        match info {
            0 => self.mac = address,
            1 => self.unicast.clear(),
            2 if self.unicast.len() < UNICAST_MAX => self.unicast.push(address),
            _ => return false,
        }
        true
    }

    fn set_vlan(&mut self, add: bool, vid: u32) -> bool {
        let vid = (vid & 0xfff) as u16;
        if !add && vid == 0 {
            return true; // acknowledged, and nothing done
        }
        if add && vid != 0 {
            self.vlans.insert(vid);
        } else {
            self.vlans.remove(&vid);
        }
        // Every request that is carried out sets stripping, also the removal of a VID.
        self.strip = vid != 0;
        true
    }
}

impl PfSide for Pf {
    fn longest(&self) -> usize {
        self.rlpml + 4
    }

    fn request(&mut self, memory: &[u32; 16], now: Duration, faults: &Faults) -> Option<Vec<u32>> {
        let word = memory[0];
        if word & (regs::MSG_ACK | regs::MSG_NACK) != 0 {
            return None; // dropped silently
        }
        let nack = faults.has(Fault::NackRequest(word as u16));
        if word == regs::MSG_RESET as u32 {
            return Some(self.reset_request(now, nack));
        }
        if !self.cts {
            return self.not_clear_to_send(now);
        }
        let (granted, info) = if nack { (false, 0xff_0000) } else { self.carry_out(memory) };
        let verdict = if granted { regs::MSG_ACK } else { regs::MSG_NACK };
        // The reply repeats the request; a promiscuity request keeps only the bits that were not honoured.
        Some(vec![word & (0xff00_ffff | info) | verdict | regs::MSG_CTS])
    }

    fn acknowledged(&mut self, now: Duration) -> Option<Vec<u32>> {
        self.not_clear_to_send(now)
    }

    fn clear_to_send(&self) -> bool {
        self.cts
    }

    fn receives(&self) -> bool {
        self.enabled
    }

    fn transmits(&self) -> bool {
        self.enabled
    }

    /// By itself or with the PF (igbvf 6).
    fn forget(&mut self, now: Duration) {
        let (assigned, fixed) = (self.assigned, self.fixed);
        *self = Pf {
            assigned,
            fixed,
            cts: false,
            enabled: false,
            mac: assigned.unwrap_or(MacAddr::ZERO),
            unicast: Vec::new(),
            multicast: BTreeSet::new(),
            all_multicast: false,
            vlans: BTreeSet::new(),
            strip: false,
            rlpml: RLPML_DEFAULT,
            last_not_cts: now,
        };
    }

    /// igbvf 3.3.
    fn ping(&self) -> u32 {
        regs::MSG_PING | if self.cts { regs::MSG_CTS } else { 0 }
    }

    fn punish(&mut self, now: Duration) -> u32 {
        self.forget(now);
        self.ping()
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn accepts(&self, frame: &[u8]) -> bool {
        let to = frame::destination(frame);
        let address = if to == MacAddr::BROADCAST {
            true
        } else if to.is_multicast() {
            self.all_multicast || self.multicast.contains(&multicast_hash(to))
        } else {
            to == self.mac || self.unicast.contains(&to)
        };
        let tag = frame::vlan_tag(frame);
        let vlan = tag.is_none_or(|tci| tci & 0xfff == 0 || self.vlans.contains(&(tci & 0xfff)));
        let room = if self.vlans.is_empty() { 0 } else { 4 };
        address && vlan && frame.len() + FCS <= self.rlpml + room
    }
}

/// The 12-bit hash of the multicast table (igbvf 3.3).
fn multicast_hash(address: MacAddr) -> u16 {
    let m = address.0;
    ((m[4] as u16 >> 4) | ((m[5] as u16) << 4)) & 0xfff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pf() -> Pf {
        let mut pf = Pf::new(Some(MacAddr([2, 0, 0, 0, 0, 9])), false);
        let reply = ask(&mut pf, &[1]).unwrap();
        assert_eq!(reply, [0x8000_0001, 0x0000_0002, 0x0900]);
        pf
    }

    fn ask_at(pf: &mut Pf, words: &[u32], now: Duration) -> Option<Vec<u32>> {
        let mut memory = [0; 16];
        memory[..words.len()].copy_from_slice(words);
        pf.request(&memory, now, &Faults::default())
    }

    fn ask(pf: &mut Pf, words: &[u32]) -> Option<Vec<u32>> {
        ask_at(pf, words, Duration::from_secs(1))
    }

    #[test]
    fn the_vectors_of_the_fact_sheet() {
        let mut pf = pf();
        assert_eq!(ask(&mut pf, &[5, 1522]).unwrap(), [0xa000_0005]);
        assert_eq!(ask(&mut pf, &[0x0001_0004, 100]).unwrap(), [0xa001_0004]);
        assert_eq!(ask(&mut pf, &[0x0002_0006]).unwrap(), [0xa000_0006]);
        assert_eq!(ask(&mut pf, &[0x0003_0006]).unwrap(), [0x6001_0006]);
        assert_eq!(ask(&mut pf, &[0x0000_0077]).unwrap(), [0x6000_0077]);
        assert_eq!(ask(&mut pf, &[0x8000_0005]), None);
        assert_eq!(multicast_hash(MacAddr([1, 0, 0x5e, 0, 0, 0xfb])), 0xfb0);
    }

    #[test]
    fn not_clear_to_send_is_answered_once_in_two_seconds() {
        let mut pf = Pf::new(None, false);
        let at = Duration::from_millis;
        assert_eq!(ask_at(&mut pf, &[5, 1522], at(1999)), None);
        assert_eq!(ask_at(&mut pf, &[5, 1522], at(2000)).unwrap(), [0x4000_0000]);
        assert_eq!(ask_at(&mut pf, &[5, 1522], at(3999)), None);
        assert_eq!(ask_at(&mut pf, &[5, 1522], at(4000)).unwrap(), [0x4000_0000]);
        assert_eq!(ask_at(&mut pf, &[1], at(4001)).unwrap()[0], 0x4000_0001);
    }

    #[test]
    fn addresses_are_granted_unless_the_host_fixed_one() {
        let mut pf = pf();
        assert_eq!(ask(&mut pf, &[2, 0x0403_0202, 0x0605]).unwrap(), [0xa000_0002]);
        assert_eq!(pf.mac(), MacAddr([2, 2, 3, 4, 5, 6]));
        assert_eq!(ask(&mut pf, &[2, 0, 0]).unwrap(), [0x6000_0002]);
        for _ in 0..UNICAST_MAX {
            assert_eq!(ask(&mut pf, &[0x0002_0002, 0x0403_0202, 0x0605]).unwrap(), [0xa002_0002]);
        }
        assert_eq!(ask(&mut pf, &[0x0002_0002, 0x0403_0202, 0x0605]).unwrap(), [0x6002_0002]);
        assert_eq!(ask(&mut pf, &[0x0001_0002, 0x0403_0202, 0x0605]).unwrap(), [0xa001_0002]);
        assert!(pf.unicast.is_empty());
        let mut fixed = Pf::new(Some(MacAddr([2, 0, 0, 0, 0, 9])), true);
        ask(&mut fixed, &[1]);
        assert_eq!(ask(&mut fixed, &[2, 0x0403_0202, 0x0605]).unwrap(), [0x6000_0002]);
    }

    #[test]
    fn filters_pass_what_was_asked_for_and_nothing_else() {
        let mut pf = pf();
        let mine = frame::udp(pf.mac(), MacAddr([2; 6]), [10, 0, 0, 1], (1, 2), 60);
        let with_destination = |to: [u8; 6]| {
            let mut frame = mine.clone();
            frame[..6].copy_from_slice(&to);
            frame
        };
        let group = with_destination([1, 0, 0x5e, 0, 0, 0xfb]);
        assert!(pf.accepts(&mine));
        assert!(pf.accepts(&with_destination([0xff; 6])));
        assert!(!pf.accepts(&with_destination([2; 6])));
        assert!(!pf.accepts(&group));
        ask(&mut pf, &[0x0002_0003, 0x0fb0_0123]);
        assert!(pf.accepts(&group));
        ask(&mut pf, &[0x0000_0003]);
        assert!(!pf.accepts(&group));
        ask(&mut pf, &[0x0002_0006]);
        assert!(pf.accepts(&group));

        let mut tagged = Vec::new();
        frame::insert_tag(&mine, 0x2064, &mut tagged);
        assert!(!pf.accepts(&tagged));
        ask(&mut pf, &[0x0001_0004, 100]);
        assert!(pf.accepts(&tagged) && pf.strip);
        ask(&mut pf, &[0x0000_0004, 100]);
        assert!(!pf.accepts(&tagged) && pf.strip, "removing a VID does not switch stripping off");
        ask(&mut pf, &[0x0001_0004, 0]);
        assert!(!pf.strip, "adding VID 0 does");

        let long = |len| frame::udp(pf_mac(), MacAddr([2; 6]), [10, 0, 0, 1], (1, 2), len);
        assert!(pf.accepts(&long(1514)) && !pf.accepts(&long(1515)));
        ask(&mut pf, &[5, 9000]);
        assert!(pf.accepts(&long(8996)) && !pf.accepts(&long(8997)));
    }

    fn pf_mac() -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 9])
    }
}

//! The PF behind the VF: which API it speaks, what it grants, what it refuses, and which frames its switch lets through to
//! the VF (fact sheet ixgbevf 3, 6).
//!
//! It behaves as a stock PF: a VF that is not clear to send is told so at once, modes above a VF's trust are lowered without
//! a word, and after every reset the API is 1.0 again.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::adv::PfSide;
use super::super::fault::{Fault, Faults};
use super::super::frame::{self, FCS};
use super::rss::{PF_ENTRIES, PF_KEY, pf_entry};
use super::{IxgbeOptions, IxgbePart, regs};
use crate::addr::MacAddr;

/// Hashes that fit the mailbox (ixgbevf 3.3).
const MULTICAST_MAX: u32 = 30;
/// Additional unicast filters of the PF's table that this VF may have.
const MACVLANS_MAX: usize = 8;
/// Longest frame with FCS before the VF asked for another (untagged).
const FRAME_DEFAULT: usize = 1518;
/// Longest frame of all; a request for more is not even answered (ixgbevf 3.3).
const FRAME_MAX: usize = 9728;
/// GET_PF_LINK_STATE: 10 Gb/s, as the drivers of both sides number it.
const SPEED_10G: u32 = 0x80;
/// FEATURES_NEGOTIATE: the mailbox of ESX.
const FEATURE_ESX: u32 = 1 << 1;

/// What a VF hears besides broadcasts and its own address (ixgbevf 3.3: UPDATE_XCAST_MODE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Xcast {
    None = 0,
    Multi = 1,
    AllMulti = 2,
    Promisc = 3,
}

/// What comes of a request.
enum Answer {
    Granted,
    /// Granted, with these words after word 0.
    With(Vec<u32>),
    Refused,
    /// The PF says nothing at all.
    Silence,
}

/// The PF's view of one VF.
pub(in super::super) struct Pf {
    options: IxgbeOptions,
    /// The VF may talk: it completed a reset handshake and the PF did not reset since.
    cts: bool,
    /// VFRE and VFTE of the VF.
    receives: bool,
    transmits: bool,
    /// Second digit of the API that was negotiated.
    api: u8,
    /// The VF keeps the mailbox buffer until its request is acknowledged.
    esx: bool,
    /// The station address in the PF's filter.
    mac: MacAddr,
    macvlans: Vec<MacAddr>,
    multicast: BTreeSet<u16>,
    /// The multicast table counts for the VF.
    table: bool,
    mode: Xcast,
    vlans: BTreeSet<u16>,
    max_frame: usize,
}

impl Pf {
    pub(super) fn new(options: IxgbeOptions) -> Self {
        let shared = options.part == IxgbePart::I82599 && options.jumbo;
        Pf {
            cts: false,
            receives: false,
            transmits: false,
            api: 0,
            esx: false,
            mac: options.mac.unwrap_or(MacAddr::ZERO),
            macvlans: Vec::new(),
            multicast: BTreeSet::new(),
            table: false,
            mode: Xcast::None,
            vlans: BTreeSet::new(),
            max_frame: if shared { FRAME_MAX } else { FRAME_DEFAULT },
            options,
        }
    }

    /// An 82599 whose PF has jumbo frames: the VF hears nothing before it said what it takes (ixgbevf 3.3).
    fn waits_for_lpe(&self) -> bool {
        self.options.part == IxgbePart::I82599 && self.options.jumbo
    }

    fn reset_request(&mut self, now: Duration, nack: bool) -> Vec<u32> {
        self.forget(now);
        (self.cts, self.transmits) = (true, true);
        self.receives = !self.waits_for_lpe();
        let (id, filter) = (regs::MSG_RESET as u32, self.options.multicast_filter as u32);
        match self.options.mac.filter(|_| !nack) {
            Some(MacAddr(m)) => {
                let low = u32::from_le_bytes([m[0], m[1], m[2], m[3]]);
                vec![regs::MSG_ACK | id, low, u16::from_le_bytes([m[4], m[5]]) as u32, filter]
            }
            None => vec![regs::MSG_NACK | id, 0, 0, filter],
        }
    }

    /// Carries out a request of a VF that is clear to send.
    fn carry_out(&mut self, memory: &[u32; 16], faults: &Faults) -> Answer {
        let (id, info, word1) = (memory[0] as u16, memory[0] >> 16 & 0xff, memory[1]);
        let [a, b, c, d] = word1.to_le_bytes();
        let [e, f, ..] = memory[2].to_le_bytes();
        let address = MacAddr([a, b, c, d, e, f]);
        let shared_rss = self.options.query_rss && !self.options.part.generation_b();
        match id {
            regs::MSG_SET_MAC_ADDR => self.set_address(address),
            regs::MSG_SET_MULTICAST => {
                let hash = |i: usize| (memory[1 + i / 2] >> (16 * (i as u32 % 2)) & 0xfff) as u16;
                self.multicast = (0..info.min(MULTICAST_MAX) as usize).map(hash).collect();
                self.table = true;
                Answer::Granted
            }
            regs::MSG_SET_VLAN => self.set_vlan(info != 0, (word1 & 0xfff) as u16),
            regs::MSG_SET_LPE => self.set_max_frame(word1 as usize),
            regs::MSG_SET_MACVLAN => self.set_macvlan(info, address),
            regs::MSG_API_NEGOTIATE => self.negotiate(word1),
            regs::MSG_GET_QUEUES if self.api >= 1 => Answer::With(self.queues(faults).to_vec()),
            regs::MSG_GET_RETA if self.api >= 2 && shared_rss => {
                let mut words = vec![0; PF_ENTRIES / 16];
                for index in 0..PF_ENTRIES {
                    words[index / 16] |= (pf_entry(index, self.options.granted()) as u32) << (2 * (index % 16));
                }
                Answer::With(words)
            }
            regs::MSG_GET_RSS_KEY if self.api >= 2 && shared_rss => {
                let words = PF_KEY.as_chunks::<4>().0;
                Answer::With(words.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
            }
            regs::MSG_UPDATE_XCAST_MODE if self.api >= 2 => self.set_mode(word1),
            regs::MSG_GET_LINK_STATE if self.api >= 2 => Answer::With(vec![!faults.has(Fault::LinkDisabled) as u32]),
            regs::MSG_GET_PF_LINK_STATE if self.api >= 6 && self.options.part == IxgbePart::E610 => {
                Answer::With(vec![SPEED_10G, !faults.has(Fault::LinkDisabled) as u32])
            }
            regs::MSG_FEATURES_NEGOTIATE if self.api >= 7 => {
                self.esx = word1 & FEATURE_ESX != 0;
                Answer::With(vec![word1 & FEATURE_ESX])
            }
            // IPsec (API 1.4), which this host does not permit, and what nobody knows.
            _ => Answer::Refused,
        }
    }

    fn set_address(&mut self, address: MacAddr) -> Answer {
        let other = self.options.mac != Some(address);
        if !address.is_valid_station() || (self.options.mac_fixed && !self.options.trusted && other) {
            return Answer::Refused;
        }
        self.mac = address;
        Answer::Granted
    }

    fn set_macvlan(&mut self, index: u32, address: MacAddr) -> Answer {
        if index > 0 && self.options.mac_fixed && !self.options.trusted {
            return Answer::Refused;
        }
        if index <= 1 {
            self.macvlans.clear();
        }
        if index > 0 {
            if !address.is_valid_station() || self.macvlans.len() == MACVLANS_MAX {
                return Answer::Refused;
            }
            self.macvlans.push(address);
        }
        Answer::Granted
    }

    fn set_vlan(&mut self, add: bool, vid: u16) -> Answer {
        if self.options.port_vlan.is_some() || self.options.traffic_classes > 1 {
            return Answer::Refused;
        }
        // The removal of VID 0 is acknowledged and ignored; frames with it are always passed.
        if add {
            self.vlans.insert(vid);
        } else {
            self.vlans.remove(&vid);
        }
        Answer::Granted
    }

    fn set_max_frame(&mut self, bytes: usize) -> Answer {
        if bytes > FRAME_MAX {
            return Answer::Silence;
        }
        if self.options.part != IxgbePart::I82599 {
            self.max_frame = self.max_frame.max(bytes); // only ever raised
            return Answer::Granted;
        }
        // One limit for the PF and all VFs: a VF that does not know of a jumbo PF, or wants more than the PF has, is cut off.
        let allowed = if self.options.jumbo { self.api >= 1 } else { bytes <= FRAME_DEFAULT };
        self.receives = allowed;
        if allowed { Answer::Granted } else { Answer::Refused }
    }

    /// Versions on the wire are ordinals: 0 is 1.0, 1 is 2.0, and 1.1 to 1.7 follow (ixgbevf 3.2).
    fn negotiate(&mut self, ordinal: u32) -> Answer {
        let api = match ordinal {
            0 => 0,
            2..=8 => ordinal as u8 - 1,
            _ => return Answer::Refused,
        };
        if api > self.options.api {
            return Answer::Refused;
        }
        (self.api, self.esx) = (api, api == 5);
        Answer::Granted
    }

    /// Transmit queues, receive queues, traffic classes (or 1: a port VLAN), default queue.
    fn queues(&self, faults: &Faults) -> [u32; 4] {
        let granted = self.options.granted() as u32;
        let classes = match self.options.traffic_classes {
            0 | 1 => self.options.port_vlan.is_some() as u32,
            classes => classes as u32,
        };
        faults.queue_reply().unwrap_or([granted, granted, classes, 0])
    }

    fn set_mode(&mut self, wanted: u32) -> Answer {
        let options = &self.options;
        if wanted == Xcast::Promisc as u32 && self.api < 3 {
            return Answer::Refused;
        }
        let mode = match wanted {
            0 => Xcast::None,
            1 => Xcast::Multi,
            2 | 3 if !options.trusted => Xcast::Multi, // lowered, and acknowledged
            2 => Xcast::AllMulti,
            3 if options.part != IxgbePart::I82599 && options.pf_promiscuous => Xcast::Promisc,
            _ => return Answer::Refused,
        };
        self.mode = mode;
        self.table = mode >= Xcast::Multi;
        Answer::With(vec![mode as u32])
    }

    /// The 12 bits of an address that the multicast table is indexed by (ixgbevf 3.3).
    fn multicast_hash(&self, MacAddr(m): MacAddr) -> u16 {
        let (low, high) = (m[4] as u16, m[5] as u16);
        let hash = match self.options.multicast_filter {
            0 => low >> 4 | high << 4,
            1 => low >> 3 | high << 5,
            2 => low >> 2 | high << 6,
            _ => low | high << 8,
        };
        hash & 0xfff
    }
}

impl PfSide for Pf {
    fn longest(&self) -> usize {
        self.max_frame + 4
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
        // The whole buffer is written back, with what it held.
        let mut reply = memory.to_vec();
        if !self.cts {
            reply[0] = word | regs::MSG_NACK;
            return Some(reply);
        }
        let verdict = match if nack { Answer::Refused } else { self.carry_out(memory, faults) } {
            Answer::Granted => regs::MSG_ACK,
            Answer::With(words) => {
                reply[1..=words.len()].copy_from_slice(&words);
                regs::MSG_ACK
            }
            Answer::Refused => regs::MSG_NACK,
            Answer::Silence => return None,
        };
        reply[0] = word | verdict | regs::MSG_CTS;
        Some(reply)
    }

    /// A VF that is not clear to send is told so (ixgbevf 6).
    fn acknowledged(&mut self, _now: Duration) -> Option<Vec<u32>> {
        (!self.cts).then(|| vec![regs::MSG_NACK])
    }

    fn reads_owned_buffer(&self) -> bool {
        self.esx
    }

    /// As Intel's driver does, whatever the VF has put there since (ixgbevf 6).
    fn clears_memory(&self) -> bool {
        self.options.part.generation_b()
    }

    fn clear_to_send(&self) -> bool {
        self.cts
    }

    fn receives(&self) -> bool {
        self.receives
    }

    fn transmits(&self) -> bool {
        self.transmits
    }

    fn forget(&mut self, _now: Duration) {
        *self = Pf::new(self.options.clone());
    }

    fn ping(&self) -> u32 {
        regs::MSG_PING | if self.cts { regs::MSG_CTS } else { 0 }
    }

    /// The ping claims that the VF is clear to send although it no longer is (ixgbevf 6).
    fn punish(&mut self, now: Duration) -> u32 {
        self.forget(now);
        regs::MSG_PING | regs::MSG_CTS
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn accepts(&self, frame: &[u8]) -> bool {
        let to = frame::destination(frame);
        let address = if to == MacAddr::BROADCAST || self.mode == Xcast::Promisc {
            true
        } else if to.is_multicast() {
            self.mode == Xcast::AllMulti || (self.table && self.multicast.contains(&self.multicast_hash(to)))
        } else {
            to == self.mac || self.macvlans.contains(&to)
        };
        let vid = frame::vlan_tag(frame).map(|tci| tci & 0xfff);
        let vlan = match (self.options.port_vlan, vid) {
            (Some(port_vlan), vid) => vid == Some(port_vlan),
            (None, None | Some(0)) => true,
            (None, Some(vid)) => self.mode == Xcast::Promisc || self.vlans.contains(&vid),
        };
        // A tag does not count.
        let len = frame.len() - if vid.is_some() { 4 } else { 0 };
        address && vlan && len + FCS <= self.max_frame
    }

    fn port_vlan(&self) -> Option<u16> {
        self.options.port_vlan
    }
}

//! Which frames the PF's switch passes to the VF, and what happens to VLAN tags on the way (fact sheet iavf 4.4).
//!
//! Owns addresses, VLANs, promiscuity and the tag offloads of one VF; all of them are lost in a reset. Until a VLAN is
//! added frames of every VLAN pass; from then on those of the added ones, and untagged ones.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::super::frame::{self, ETHERTYPE_VLAN, FCS};
use super::AvfOptions;
use super::pf::Answer;
use super::tx::Rules;
use super::virtchnl::{self, ERR_ADMINQ, ERR_PARAM, Payload};
use crate::addr::MacAddr;

/// Longest frame with FCS of the port (iavf 5.6).
pub(super) const FRAME_MAX: usize = 9728;
/// Addresses of a VF that is not trusted (iavf 4.4).
const ADDRESSES_MAX: usize = 18;
/// VLANs of a VF that is not trusted: i40e, ice (iavf 4.4).
const VLANS_MAX_I40E: usize = 16;
const VLANS_MAX_ICE: usize = 8;
/// Smallest MSS (iavf 6.5).
const MSS_MIN_I40E: usize = 256;
const MSS_MIN_ICE: usize = 64;
/// ADD_ETH_ADDR: the address is the VF's own.
const PRIMARY: u8 = 1;
const ETHERTYPE_88A8: u16 = 0x88a8;
const ETHERTYPE_9100: u16 = 0x9100;

/// Filters and tag offloads of one VF.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    /// The address that the PF reports; zero if it has none for the VF.
    pub(super) default: MacAddr,
    primary: Option<MacAddr>,
    addresses: Vec<MacAddr>,
    /// Bit 0 unicast, bit 1 multicast.
    promiscuous: u16,
    /// Ethertype and id.
    vlans: BTreeSet<(u16, u16)>,
    /// Tags that go to L2TAG1, and the ethertype of outer tags that go to the second L2TAG2.
    pub(super) strip_inner: bool,
    strip_outer: Option<u16>,
    /// Ethertypes of what L2TAG1 and L2TAG2 insert.
    pub(super) insert_inner: Option<u16>,
    pub(super) insert_outer: Option<u16>,
}

impl Filters {
    pub(super) fn new(default: MacAddr) -> Self {
        Filters {
            default,
            primary: None,
            addresses: Vec::from_iter((default != MacAddr::ZERO).then_some(default)),
            promiscuous: 0,
            vlans: BTreeSet::new(),
            strip_inner: false,
            strip_outer: None,
            insert_inner: None,
            insert_outer: None,
        }
    }

    /// The VF's station address as far as the PF knows.
    pub(super) fn mac(&self) -> MacAddr {
        let any = || self.addresses.iter().find(|a| !a.is_multicast()).copied();
        self.primary.or(Some(self.default).filter(|&a| a != MacAddr::ZERO)).or_else(any).unwrap_or(MacAddr::ZERO)
    }

    /// True when the switch passes this frame to the VF. `bytes` has at least an Ethernet header.
    pub(super) fn accepts(&self, bytes: &[u8]) -> bool {
        let to = frame::destination(bytes);
        let address = to == MacAddr::BROADCAST
            || self.addresses.contains(&to)
            || self.promiscuous & if to.is_multicast() { 2 } else { 1 } != 0;
        let vlan = match tag(bytes) {
            Some((tpid, tci)) if tci & 0xfff != 0 => self.vlans.is_empty() || self.vlans.contains(&(tpid, tci & 0xfff)),
            _ => true,
        };
        address && vlan && bytes.len() + FCS <= FRAME_MAX
    }

    /// Takes the tags off that are to be stripped: those for L2TAG1 and L2TAG2, and the frame without them in `out` (if
    /// there were any).
    pub(super) fn strip(&self, bytes: &[u8], out: &mut Vec<u8>) -> (Option<u16>, Option<u16>) {
        let outer = tag(bytes).filter(|(tpid, _)| self.strip_outer == Some(*tpid)).map(|(_, tci)| tci);
        let mut cut = if outer.is_some() { 4 } else { 0 };
        let inner = match bytes.get(12 + cut..16 + cut) {
            Some(&[0x81, 0x00, a, b]) if self.strip_inner => Some(u16::from_be_bytes([a, b])),
            _ => None,
        };
        cut += if inner.is_some() { 4 } else { 0 };
        if cut > 0 {
            out.clear();
            out.extend_from_slice(&bytes[..12]);
            out.extend_from_slice(&bytes[12 + cut..]);
        }
        (inner, outer)
    }

    /// What holds for frames that the VF sends.
    pub(super) fn rules(&self, options: &AvfOptions) -> Rules {
        let mss_min = if options.part.is_ice() { MSS_MIN_ICE } else { MSS_MIN_I40E };
        Rules { mss_min, tag1: self.insert_inner, tag2: self.insert_outer }
    }

    /// ADD_ETH_ADDR and DEL_ETH_ADDR.
    pub(super) fn change_addresses(&mut self, add: bool, p: Payload<'_>, options: &AvfOptions) -> Answer {
        let refused = Answer::Refuse(if options.part.is_ice() { ERR_ADMINQ } else { ERR_PARAM });
        let list = (0..p.u16(2) as usize).map(|i| (MacAddr(p.mac(4 + 8 * i)), p.u8(10 + 8 * i)));
        let invalid = |a: MacAddr| a == MacAddr::ZERO || a == MacAddr::BROADCAST;
        if !options.part.is_ice() && list.clone().any(|(a, _)| invalid(a)) {
            return Answer::Wrong(ERR_PARAM, "an address list with a zero or broadcast address".into());
        }
        let list: Vec<_> = list.filter(|(a, _)| *a != MacAddr::ZERO).collect();
        if !add {
            self.addresses.retain(|a| !list.iter().any(|(b, _)| a == b));
            self.primary = self.primary.filter(|p| self.addresses.contains(p));
            return Answer::done();
        }
        let foreign = |a: MacAddr| !a.is_multicast() && a != self.default;
        if options.mac_fixed && !options.trusted && list.iter().any(|(a, _)| foreign(*a)) {
            return refused;
        }
        let new: Vec<_> = list.iter().map(|(a, _)| *a).filter(|a| !self.addresses.contains(a)).collect();
        if !options.trusted && self.addresses.len() + new.len() > ADDRESSES_MAX {
            return refused;
        }
        self.addresses.extend(new);
        if let Some((address, _)) = list.iter().find(|(a, kind)| *kind == PRIMARY && !a.is_multicast()) {
            self.primary = Some(*address);
        }
        Answer::done()
    }

    /// ADD_VLAN and DEL_VLAN.
    pub(super) fn change_vlans(&mut self, add: bool, p: Payload<'_>, options: &AvfOptions) -> Answer {
        let ids: Vec<u16> = (0..p.u16(2) as usize).map(|i| p.u16(4 + 2 * i)).collect();
        if let Some(id) = ids.iter().find(|id| **id > 4095) {
            return Answer::Wrong(ERR_PARAM, format!("VLAN id {id}"));
        }
        if add && !options.part.is_ice() {
            self.strip_inner = true; // a side effect of every request to an i40e PF
        }
        self.change(add, ids.into_iter().map(|id| (ETHERTYPE_VLAN, id)).collect(), options)
    }

    /// ADD_VLAN_V2 and DEL_VLAN_V2: the outer tag in double-VLAN mode, else the inner one.
    pub(super) fn change_vlans_v2(&mut self, add: bool, p: Payload<'_>, options: &AvfOptions) -> Answer {
        let (here, other) = if options.double_vlan { (8, 0) } else { (0, 8) };
        let mut list = Vec::new();
        for at in (0..p.u16(2) as usize).map(|i| 8 + 32 * i) {
            let (tci, mask, tpid) = (p.u16(at + here), p.u16(at + here + 2), p.u16(at + here + 4));
            let wanted = if options.double_vlan {
                matches!(tpid, ETHERTYPE_VLAN | ETHERTYPE_88A8 | ETHERTYPE_9100)
            } else {
                tpid == ETHERTYPE_VLAN
            };
            if !wanted || tci > 4095 || mask != 0 || p.u16(at + other + 4) != 0 {
                let text = format!("VLAN filter with TCI {tci:#x}, mask {mask:#x}, ethertype {tpid:#x} at byte {at}");
                return Answer::Wrong(ERR_PARAM, text);
            }
            list.push((tpid, tci));
        }
        self.change(add, list, options)
    }

    fn change(&mut self, add: bool, list: Vec<(u16, u16)>, options: &AvfOptions) -> Answer {
        let ice = options.part.is_ice();
        let most = if ice { VLANS_MAX_ICE } else { VLANS_MAX_I40E };
        for vlan in list.into_iter().filter(|(_, id)| *id != 0) {
            if !add {
                self.vlans.remove(&vlan);
            } else if options.trusted || self.vlans.contains(&vlan) || self.vlans.len() < most {
                self.vlans.insert(vlan);
            } else if !ice {
                return Answer::Refuse(ERR_PARAM);
            }
        }
        Answer::done()
    }

    /// CONFIG_PROMISCUOUS_MODE; without trust it is granted and nothing happens.
    pub(super) fn set_promiscuous(&mut self, flags: u16, options: &AvfOptions) -> Answer {
        if !options.part.is_ice() && flags > 3 {
            return Answer::Wrong(ERR_PARAM, format!("promiscuous flags {flags:#x}"));
        }
        if options.trusted {
            self.promiscuous = flags & 3;
        }
        Answer::done()
    }

    /// The stripping and insertion toggles of VLAN V2.
    pub(super) fn toggle(&mut self, opcode: u32, p: Payload<'_>, options: &AvfOptions) -> Answer {
        let (outer, inner) = (p.u32(0), p.u32(4));
        let on = matches!(opcode, virtchnl::ENABLE_VLAN_STRIPPING_V2 | virtchnl::ENABLE_VLAN_INSERTION_V2);
        let tpid = match outer {
            0 => None,
            virtchnl::VLAN_8100 => Some(ETHERTYPE_VLAN),
            virtchnl::VLAN_88A8 => Some(ETHERTYPE_88A8),
            virtchnl::VLAN_9100 => Some(ETHERTYPE_9100),
            _ => return Answer::Wrong(ERR_PARAM, format!("VLAN toggle {opcode} for outer ethertypes {outer:#x}")),
        };
        if inner & !virtchnl::VLAN_8100 != 0 || (inner | outer == 0) || (outer != 0 && !options.double_vlan) {
            return Answer::Wrong(ERR_PARAM, format!("VLAN toggle {opcode} for ethertypes {outer:#x}, {inner:#x}"));
        }
        let strip = matches!(opcode, virtchnl::ENABLE_VLAN_STRIPPING_V2 | virtchnl::DISABLE_VLAN_STRIPPING_V2);
        if inner != 0 {
            if strip { self.strip_inner = on } else { self.insert_inner = on.then_some(ETHERTYPE_VLAN) }
        }
        if tpid.is_some() {
            if strip { self.strip_outer = tpid.filter(|_| on) } else { self.insert_outer = tpid.filter(|_| on) }
        }
        Answer::done()
    }
}

/// The reply to GET_OFFLOAD_VLAN_V2_CAPS of an ice PF.
pub(super) fn v2_caps(options: &AvfOptions) -> Vec<u8> {
    use virtchnl::*;
    let types = VLAN_8100 | VLAN_88A8 | VLAN_9100;
    let inner = VLAN_TOGGLE | VLAN_8100 | VLAN_L2TAG1;
    let outer = VLAN_TOGGLE | types | VLAN_XOR;
    let most = if options.trusted { 4096 } else { VLANS_MAX_ICE as u32 };
    let words = if options.double_vlan {
        let (strip, insert) = (outer | VLAN_L2TAG2_2ND, outer | VLAN_L2TAG2);
        [types | VLAN_AND, 0, types, most, strip, inner, insert, inner, VLAN_8100, 1]
    } else {
        [0, VLAN_8100, VLAN_8100, most, 0, inner, 0, inner, VLAN_8100, 1]
    };
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Ethertype and TCI of a frame's outermost tag.
fn tag(bytes: &[u8]) -> Option<(u16, u16)> {
    let be = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let tagged = bytes.len() >= 18 && matches!(be(12), ETHERTYPE_VLAN | ETHERTYPE_88A8 | ETHERTYPE_9100);
    tagged.then(|| (be(12), be(14)))
}

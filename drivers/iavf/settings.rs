//! What the program wants of frames, told to the PF: addresses, VLANs, RSS, promiscuity, and all of them after a reset.
//!
//! Owns the requests behind `Iavf`'s settings; `port.rs` calls it from the trait `Device`. What always holds: what the PF was
//! told is remembered, so lists are told as changes, and a request that is refused leaves the PF with what it had before.
#![forbid(unsafe_code)]

use super::negotiate::{Grant, Vlan};
use super::port::Iavf;
use super::virtchnl::*;
use crate::addr::MacAddr;
use crate::error::Result;
use crate::mmio::Bus;
use crate::port::device::Settings;
use crate::port::rss::Rss;

/// Highest VLAN id that a station may use (IEEE 802.1Q reserves 4095).
const VID_MAX: u16 = 4094;

impl<B: Bus> Iavf<B> {
    pub(super) fn tell_all(&mut self, settings: &Settings) -> Result<()> {
        let grant = self.granted()?;
        if settings.mtu > self.caps.mtu_max {
            let text = format!("an MTU of {} is too large; this VF takes up to {}", settings.mtu, self.caps.mtu_max);
            return Err(self.bad_value(text));
        }
        self.mtu = settings.mtu;
        match settings.mac {
            Some(mac) => self.tell_mac(mac)?,
            // Nobody asked for it: a refusal leaves the PF's address in force.
            None => {
                if self.filter(true, &[self.mac], AddressType::Primary)? {
                    self.told = Some(self.mac);
                }
            }
        }
        self.tell_multicast(&settings.multicast)?;
        self.tell_unicast(&settings.unicast)?;
        if settings.vlans.is_empty() {
            self.strip(grant, false)?;
        }
        if let (Vlan::V2(_), Some(tag)) = (grant.vlan, grant.insert_tag())
            && tag.bits & VLAN_TOGGLE != 0
        {
            let payload = vlan_toggle_v2(grant.resources.vsi, tag.outer);
            let refusal = "the PF refused to insert VLAN tags";
            self.channel.demand(&mut self.bus, Opcode::EnableVlanInsertionV2, &payload, refusal)?;
        }
        for &vid in &settings.vlans {
            self.tell_vlan(vid, true)?;
        }
        if let Some(rss) = &settings.rss {
            self.tell_rss(rss)?;
        }
        if settings.promiscuous || settings.all_multicast {
            self.tell_promiscuous(settings.promiscuous, settings.all_multicast)?;
        }
        Ok(())
    }

    pub(super) fn tell_mac(&mut self, mac: MacAddr) -> Result<()> {
        if !mac.is_valid_station() {
            return Err(self.bad_value(format_args!("{mac} is no station address")));
        }
        if self.told == Some(mac) {
            return Ok(());
        }
        let assigned = self.granted()?.resources.mac;
        if !self.filter(true, &[mac], AddressType::Primary)? && assigned != Some(mac) {
            return Err(self.refused(format!(
                "the PF refused the MAC address {mac}: the host fixed another one; \
                 `ip link set dev PF vf N mac {mac}` on the host"
            )));
        }
        // A PF that assigned an address has it as a filter, told or not.
        if let Some(old) = self.told.replace(mac).or(assigned).filter(|&old| old != mac) {
            self.filter(false, &[old], AddressType::Primary)?;
        }
        self.mac = mac;
        Ok(())
    }

    pub(super) fn tell_vlan(&mut self, vid: u16, on: bool) -> Result<()> {
        if vid > VID_MAX {
            return Err(self.bad_value(format_args!("VLAN ids are 0 to {VID_MAX}, not {vid}")));
        }
        let grant = self.granted()?;
        let Some(tag) = grant.filter_tag() else {
            return Err(self.refused(
                "the PF lets this VF filter no VLANs: the host set a port VLAN; `ip link set dev PF vf N vlan 0` on the \
                 host clears it",
            ));
        };
        let vsi = grant.resources.vsi;
        let (opcode, payload) = match (grant.vlan, on) {
            (Vlan::V2(_), true) => (Opcode::AddVlanV2, vlan_v2(vsi, vid, tag.outer)),
            (Vlan::V2(_), false) => (Opcode::DelVlanV2, vlan_v2(vsi, vid, tag.outer)),
            (_, true) => (Opcode::AddVlan, vlan(vsi, vid)),
            (_, false) => (Opcode::DelVlan, vlan(vsi, vid)),
        };
        let refusal = format!(
            "the PF refused VLAN {vid}: a VF that is not trusted has few VLAN filters; `ip link set dev PF vf N trust on` on \
             the host helps"
        );
        // Stripping first: what is stripped and filtered is lost in no case.
        if on && self.vlans.is_empty() {
            self.strip(grant, true)?;
        }
        let done = self.channel.demand(&mut self.bus, opcode, &payload, &refusal).map(drop);
        match (&done, on) {
            (Ok(()), true) => drop(self.vlans.insert(vid)),
            (Ok(()), false) => drop(self.vlans.remove(&vid)),
            (Err(_), _) => {}
        }
        if self.vlans.is_empty() && (on || done.is_ok()) {
            self.strip(grant, false)?;
        }
        done
    }

    pub(super) fn tell_multicast(&mut self, list: &[MacAddr]) -> Result<()> {
        let mut known = std::mem::take(&mut self.multicast);
        let done = self.replace(&mut known, list, "the group address");
        self.multicast = known;
        done
    }

    pub(super) fn tell_unicast(&mut self, list: &[MacAddr]) -> Result<()> {
        if let Some(mac) = list.iter().find(|mac| !mac.is_valid_station()) {
            return Err(self.bad_value(format_args!("{mac} is no station address")));
        }
        let mut known = std::mem::take(&mut self.unicast);
        // The station's own is a filter of its own, which must not go with the list.
        let list: Vec<MacAddr> = list.iter().copied().filter(|mac| *mac != self.mac).collect();
        let done = self.replace(&mut known, &list, "the address");
        self.unicast = known;
        done
    }

    pub(super) fn tell_rss(&mut self, rss: &Rss) -> Result<()> {
        let vsi = self.granted()?.resources.vsi;
        rss.check(self.bus.name(), self.caps.rss, self.caps.rx_queues)?;
        let table: Vec<u8> = rss.table.iter().map(|&queue| queue as u8).collect();
        for (opcode, bytes, what) in
            [(Opcode::ConfigRssLut, &table, "the RSS table"), (Opcode::ConfigRssKey, &rss.key, "the RSS key")]
        {
            let refusal = format!("the PF refused {what}");
            self.channel.demand(&mut self.bus, opcode, &rss_bytes(vsi, bytes), &refusal)?;
        }
        // What the PF can hash of what we want; one that does not say keeps its own choice.
        let caps = self.channel.request(&mut self.bus, Opcode::GetRssHenaCaps, &[])?;
        if let Some(bits) = parse_u64(&caps.payload).map(|caps| caps & HENA_WANTED).filter(|&bits| bits != 0)
            && caps.status == 0
        {
            self.channel.demand(
                &mut self.bus,
                Opcode::SetRssHena,
                &rss_hena(bits),
                "the PF refused the packet types to hash",
            )?;
        }
        self.rss = Some(rss.clone());
        Ok(())
    }

    /// Adds or deletes addresses; false when the PF refuses, and then it has none of them.
    fn filter(&mut self, add: bool, list: &[MacAddr], kind: AddressType) -> Result<bool> {
        let vsi = self.granted()?.resources.vsi;
        let opcode = if add { Opcode::AddEthAddr } else { Opcode::DelEthAddr };
        for part in list.chunks(ADDRESSES_PER_MESSAGE) {
            let reply = self.channel.request(&mut self.bus, opcode, &addresses(vsi, part, kind))?;
            if reply.status != 0 {
                if add && list.len() > 1 {
                    // The PF may have stopped half way. What is refused alone may be there all the same: a default address.
                    self.filter(false, list, kind)?;
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Replaces one list of addresses by another; what both have stays untouched.
    fn replace(&mut self, old: &mut Vec<MacAddr>, new: &[MacAddr], what: &str) -> Result<()> {
        let gone: Vec<MacAddr> = old.iter().copied().filter(|mac| !new.contains(mac)).collect();
        // A PF that does not know an address has nothing to forget.
        self.filter(false, &gone, AddressType::Extra)?;
        old.retain(|mac| new.contains(mac));
        let mut fresh: Vec<MacAddr> = new.iter().copied().filter(|mac| !old.contains(mac)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        if !self.filter(true, &fresh, AddressType::Extra)? {
            let list = match &fresh[..] {
                [only] => only.to_string(),
                [first, rest @ ..] => format!("{first} and {} more", rest.len()),
                [] => String::new(),
            };
            return Err(self.refused(format!(
                "the PF refused to add {what} {list}: a VF that is not trusted has 18 filters, and none besides its own \
                 where the host fixed its address; `ip link set dev PF vf N trust on` on the host helps"
            )));
        }
        old.extend(fresh);
        Ok(())
    }

    /// Switches stripping on while the program has VLANs, so that their tags are in the metadata, and off otherwise.
    fn strip(&mut self, grant: Grant, on: bool) -> Result<()> {
        let tag = match grant.strip_tag() {
            Some(tag) if tag.bits & VLAN_TOGGLE != 0 => tag,
            _ => return Ok(()),
        };
        let (opcode, payload) = match (grant.vlan, on) {
            (Vlan::No, _) => return Ok(()),
            (Vlan::V1, true) => (Opcode::EnableVlanStripping, Vec::new()),
            (Vlan::V1, false) => (Opcode::DisableVlanStripping, Vec::new()),
            (Vlan::V2(_), on) => {
                let opcode = if on { Opcode::EnableVlanStrippingV2 } else { Opcode::DisableVlanStrippingV2 };
                (opcode, vlan_toggle_v2(grant.resources.vsi, tag.outer))
            }
        };
        let reply = self.channel.request(&mut self.bus, opcode, &payload)?;
        // Whoever wants no stripping gets none from a PF that does not do it.
        if on && reply.status != 0 {
            let reason = format!("the PF refused to strip VLAN tags ({})", status_text(reply.status));
            return Err(self.refused(reason));
        }
        Ok(())
    }

    pub(super) fn tell_promiscuous(&mut self, unicast: bool, multicast: bool) -> Result<()> {
        let payload = promiscuous(self.granted()?.resources.vsi, unicast, multicast);
        let refusal =
            "the PF does not let this VF receive every frame; `ip link set dev PF vf N trust on` on the host helps";
        self.channel.demand(&mut self.bus, Opcode::ConfigPromiscuousMode, &payload, refusal).map(drop)
    }
}

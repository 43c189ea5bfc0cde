//! What the program asks of the PF: address, frame size, filters, modes, and how flows are spread.
//!
//! Owns the translation of the framework's settings into messages and registers, and the limits that API version, part and
//! trust set; called through the trait `Device` in `port.rs`. What always holds: a refusal names what was refused and,
//! where there is one, the command on the host that permits it.
#![forbid(unsafe_code)]

use super::intel::mailbox::granted;
use super::messages::*;
use super::part::Part;
use super::port::Ixgbevf;
use super::regs::*;
use crate::addr::MacAddr;
use crate::error::Result;
use crate::mmio::Bus;
use crate::port::device::Settings;
use crate::port::rss::{Rss, RssCaps};

/// Largest frame in bytes, FCS included. A PF does not even answer a VF that asks for more (fact sheet ixgbevf 3.3, 4.8).
const MAX_FRAME: u32 = 9728;
/// Bytes of a frame besides its MTU: Ethernet header and FCS.
const FRAME_OVERHEAD: u32 = 18;
/// Two VLAN tags.
const TAGS: u32 = 8;
/// Largest MTU: a frame may have two tags.
pub(super) const MTU_MAX: u16 = (MAX_FRAME - FRAME_OVERHEAD - TAGS) as u16;

/// The frame size to ask for. An 82599 PF at MTU 1500 disables a VF that asks for one byte more than an untagged frame
/// has; the others only raise the port's limit (fact sheet ixgbevf 3.3, SET_LPE).
fn max_frame(part: Part, mtu: u16) -> u32 {
    let untagged = u32::from(mtu) + FRAME_OVERHEAD;
    if part == Part::I82599 { untagged } else { untagged + TAGS }
}

/// Entries of a byte each in a register.
const BYTES: usize = 4;

/// The key and table of a VF that has its own, and of one that shares its PF's (fact sheet ixgbevf 2.6, 3.3).
pub(super) const OWN_RSS: RssCaps =
    RssCaps { key_len: (VFRSSRK_COUNT * BYTES) as u16, table_len: (VFRETA_COUNT * BYTES) as u16, settable: true };
pub(super) const PF_RSS: RssCaps =
    RssCaps { key_len: (VFRSSRK_COUNT * BYTES) as u16, table_len: RETA_ENTRIES, settable: false };

/// Byte i of a list of registers of four bytes each, the first in the lowest bits.
fn registers<const N: usize>(bytes: impl IntoIterator<Item = u8>) -> [u32; N] {
    let mut words = [0; N];
    for (i, byte) in bytes.into_iter().enumerate() {
        if let Some(word) = words.get_mut(i / BYTES) {
            *word |= u32::from(byte) << (8 * (i % BYTES));
        }
    }
    words
}

impl<B: Bus> Ixgbevf<B> {
    /// Tells the PF everything again, in the order in which it lets frames in (fact sheet ixgbevf 3.5 step 11).
    pub(super) fn tell_all(&mut self, settings: &Settings) -> Result<()> {
        self.vf.restore_mac(settings)?;
        // Even at the usual size: an 82599 PF with jumbo frames keeps reception off until it is told.
        self.vf.restore_mtu(settings, max_frame(self.part, settings.mtu))?;
        self.multicast_overflow = self.vf.set_multicast(&settings.multicast, self.filter_type)?;
        self.tell_unicast(&settings.unicast)?;
        for &vid in &settings.vlans {
            self.tell_vlan(vid, true)?;
        }
        self.promiscuous = (settings.promiscuous, settings.all_multicast);
        self.tell_xcast()?;
        match &settings.rss {
            Some(rss) => self.write_rss(rss),
            None => Ok(()),
        }
    }

    pub(super) fn tell_unicast(&mut self, list: &[MacAddr]) -> Result<()> {
        // A refusal to clear an empty list means nothing; what counts is whether the PF takes the addresses.
        self.vf.ask(clear_unicast(self.vf.mac))?;
        list.iter().enumerate().try_for_each(|(i, &mac)| self.vf.add_unicast(mac, add_unicast(i, mac)))
    }

    pub(super) fn tell_multicast(&mut self, list: &[MacAddr]) -> Result<()> {
        let overflow = self.vf.set_multicast(list, self.filter_type)?;
        // What does not fit the message is received by receiving all.
        if overflow != self.multicast_overflow {
            self.multicast_overflow = overflow;
            self.tell_xcast()?;
        }
        Ok(())
    }

    /// Adds or removes a VLAN. Tags are taken out of frames while there is any: those of all VLANs are alike to the device.
    pub(super) fn tell_vlan(&mut self, vid: u16, on: bool) -> Result<()> {
        self.vf.set_vlan(vid, on)?;
        let stripped = self.strips_tags();
        match (vid, on) {
            (0, _) => {} // no VLAN, only priorities
            (_, true) => drop(self.vlans.insert(vid)),
            (_, false) => drop(self.vlans.remove(&vid)),
        }
        if self.strips_tags() != stripped {
            for n in self.running_rx() {
                self.vf.write(VFRXDCTL(n), self.rxdctl());
            }
            self.vf.flush()?;
        }
        Ok(())
    }

    fn strips_tags(&self) -> bool {
        !self.vlans.is_empty()
    }

    /// What VFRXDCTL of a running queue reads.
    pub(super) fn rxdctl(&self) -> u32 {
        XDCTL_ENABLE | if self.strips_tags() { RXDCTL_VME } else { 0 }
    }

    pub(super) fn tell_promiscuous(&mut self, unicast: bool, multicast: bool) -> Result<()> {
        let before = std::mem::replace(&mut self.promiscuous, (unicast, multicast));
        let told = self.tell_xcast();
        if told.is_err() {
            self.promiscuous = before;
        }
        told
    }

    /// Tells the PF which frames to let in beyond those that filters name.
    fn tell_xcast(&mut self) -> Result<()> {
        let (unicast, multicast) = self.promiscuous;
        let wanted = match (unicast, multicast | self.multicast_overflow) {
            (true, _) => Xcast::Promiscuous,
            (false, true) => Xcast::AllMulti,
            (false, false) => Xcast::Multi,
        };
        // What the PF does without being told.
        let unasked = wanted == Xcast::Multi;
        let needed = if wanted == Xcast::Promiscuous { Api::V1_3 } else { Api::V1_2 };
        let mode = if self.api >= needed {
            let [word0, mode] = self.vf.mailbox.request(&mut self.vf.bus, &update_xcast(wanted))?;
            // An untrusted VF is granted less with a good grace (fact sheet ixgbevf 3.3).
            granted(word0).then_some(mode).filter(|&mode| mode >= wanted as u32)
        } else {
            None
        };
        if unasked || mode.is_some() {
            return Ok(());
        }
        let (what, also) = match wanted {
            Xcast::Promiscuous => ("all unicast frames", ", the PF must be promiscuous itself, and an 82599 never may"),
            _ if multicast => ("all multicast frames", ""),
            _ => ("all multicast frames, which more than 30 group addresses need", ""),
        };
        Err(self.vf.refused(format!(
            "the PF does not let this VF receive {what}: it must be trusted, `ip link set dev PF vf N trust on` on the \
             host{also}"
        )))
    }

    /// Programs the key and the table of a VF that has its own, and switches RSS on.
    pub(super) fn write_rss(&mut self, rss: &Rss) -> Result<()> {
        let lengths = (OWN_RSS.key_len.into(), OWN_RSS.table_len.into());
        let Some(table) = rss.table.iter().map(|&q| u8::try_from(q).ok()).collect::<Option<Vec<u8>>>() else {
            return Err(self.vf.nonsense("an RSS table names a queue beyond 255"));
        };
        if !self.part.is_generation_b() || (rss.key.len(), table.len()) != lengths {
            return Err(self.vf.nonsense(format!("this RSS key or table does not fit the {}", self.part.name())));
        }
        for (i, word) in registers::<VFRSSRK_COUNT>(rss.key.iter().copied()).into_iter().enumerate() {
            self.vf.write(VFRSSRK(i), word);
        }
        for (i, word) in registers::<VFRETA_COUNT>(table).into_iter().enumerate() {
            self.vf.write(VFRETA(i), word);
        }
        self.vf.write(VFMRQC, VFMRQC_RSSEN | VFMRQC_FIELDS);
        self.vf.flush()
    }

    /// The key and table in force.
    pub(super) fn read_rss(&mut self) -> Result<Rss> {
        if self.part.is_generation_b() {
            let key: [u32; VFRSSRK_COUNT] = std::array::from_fn(|i| self.vf.bus.read32(VFRSSRK(i)));
            let table: [u32; VFRETA_COUNT] = std::array::from_fn(|i| self.vf.bus.read32(VFRETA(i)));
            // All ones may be a key.
            self.vf.flush()?;
            let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
            return Ok(Rss { key: bytes(&key), table: bytes(&table).into_iter().map(u16::from).collect() });
        }
        if self.api < Api::V1_2 {
            return Err(self.vf.refused("the PF's driver is too old to tell its RSS key and table"));
        }
        let table: [u32; RETA_WORDS] = self.vf.mailbox.request(&mut self.vf.bus, &get_reta())?;
        let key: [u32; RSS_KEY_WORDS] = self.vf.mailbox.request(&mut self.vf.bus, &get_rss_key())?;
        if !granted(table[0]) || !granted(key[0]) {
            return Err(self.vf.refused(
                "the PF does not let this VF read its RSS key and table; `ip link set dev PF vf N query_rss on` on the host",
            ));
        }
        Ok(Rss { key: key[1..].iter().flat_map(|word| word.to_le_bytes()).collect(), table: reta(table) })
    }
}

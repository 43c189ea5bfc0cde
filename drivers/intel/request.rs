//! The words of a request to the PF, and the requests that igb's and ixgbe's PFs take in the same words (fact sheets igbvf
//! 3.2 and 3.3, ixgbevf 3.1 and 3.3).
//!
//! Owns the layout of word 0 and of addresses and hashes in the words behind it. Families make requests here, with words
//! of their own where they have some, and give them to the mailbox. What always holds: a request fits the buffer.
#![forbid(unsafe_code)]

use crate::addr::MacAddr;

/// 32-bit words of the mailbox buffer (fact sheets igbvf 2.6, ixgbevf 2.1).
pub(crate) const WORDS: usize = 16;
/// Most multicast hashes of one message: two to a word (fact sheets igbvf 3.3, ixgbevf 3.3).
pub(crate) const MULTICAST_MAX: usize = 2 * (WORDS - 1);

// Word 0 of a message (fact sheets igbvf 3.2, ixgbevf 3.1).
/// What the message is.
pub(crate) const ID_MASK: u32 = 0xFFFF;
/// Lowest bit of the eight that qualify the id.
pub(crate) const INFO_SHIFT: u32 = 16;
/// The PF considers this VF clear to send.
pub(crate) const CTS: u32 = 1 << 29;
/// The PF does not do what was asked.
pub(crate) const NACK: u32 = 1 << 30;
/// The PF did what was asked.
pub(crate) const ACK: u32 = 1 << 31;

// Message ids of both families (fact sheets igbvf 3.3, ixgbevf 3.3).
pub(crate) const RESET: u32 = 0x01;
pub(crate) const SET_MAC: u32 = 0x02;
const MULTICAST: u32 = 0x03;
const VLAN: u32 = 0x04;
const MAX_FRAME: u32 = 0x05;
/// From the PF, unasked: the "ping".
pub(crate) const CONTROL: u32 = 0x0100;

/// A request to the PF.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    words: [u32; WORDS],
    len: usize,
    name: &'static str,
}

impl Request {
    /// A request of this id and info, `name`d so in messages about it, without any words behind the first.
    pub(crate) fn new(id: u32, info: u32, name: &'static str) -> Request {
        let mut words = [0; WORDS];
        words[0] = id | info << INFO_SHIFT;
        Request { words, len: 1, name }
    }

    /// The same with another word behind it. A full request stays as it is.
    pub(crate) fn with(mut self, word: u32) -> Request {
        if let Some(place) = self.words.get_mut(self.len) {
            *place = word;
            self.len += 1;
        }
        self
    }

    /// The same with an address in the two words behind it.
    pub(crate) fn with_mac(self, MacAddr([a, b, c, d, e, f]): MacAddr) -> Request {
        self.with(u32::from_le_bytes([a, b, c, d])).with(u32::from_le_bytes([e, f, 0, 0]))
    }

    /// Use this station address.
    pub(crate) fn set_mac(mac: MacAddr) -> Request {
        Request::new(SET_MAC, 0, "set MAC address").with_mac(mac)
    }

    /// Accept the group addresses with these hashes, at most [`MULTICAST_MAX`], and no others.
    pub(crate) fn multicast(hashes: &[u16]) -> Request {
        let hashes = &hashes[..hashes.len().min(MULTICAST_MAX)];
        let request = Request::new(MULTICAST, hashes.len() as u32, "set multicast filter");
        let word = |pair: &[u16]| pair.iter().rev().fold(0, |word, &hash| word << 16 | u32::from(hash));
        hashes.chunks(2).fold(request, |request, pair| request.with(word(pair)))
    }

    /// Accept (or no longer accept) this VLAN id.
    pub(crate) fn vlan(vid: u16, on: bool) -> Request {
        Request::new(VLAN, u32::from(on), "set VLAN filter").with(u32::from(vid))
    }

    /// Accept frames of up to so many bytes, header and FCS included.
    pub(crate) fn max_frame(bytes: u32) -> Request {
        Request::new(MAX_FRAME, 0, "set maximum frame size").with(bytes)
    }

    /// The words to send.
    pub(crate) fn words(&self) -> &[u32] {
        &self.words[..self.len]
    }

    /// What the request is, for messages about it.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// The 12-bit hash that the PF filters group addresses by (fact sheets igbvf 3.3, which has type 0 only, ixgbevf 3.3).
pub(crate) fn multicast_hash(mac: MacAddr, filter_type: u32) -> u16 {
    let (low, high) = (u16::from(mac.0[4]), u16::from(mac.0[5]));
    let (right, left) = match filter_type & 3 {
        0 => (4, 4),
        1 => (3, 5),
        2 => (2, 6),
        _ => (0, 8),
    };
    (low >> right | high << left) & 0xFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_match_the_sheets() {
        let mac = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(Request::set_mac(mac).words(), [0x0000_0002, 0x3322_1102, 0x5544]);
        assert_eq!(Request::vlan(100, true).words(), [0x0001_0004, 100]);
        assert_eq!(Request::vlan(100, false).words(), [0x0000_0004, 100]);
        assert_eq!(Request::max_frame(1522).words(), [0x0000_0005, 1522]);
        assert_eq!(Request::multicast(&[]).words(), [0x0000_0003]);
        assert_eq!(Request::multicast(&[0xFB0, 0x123, 0xABC]).words(), [0x0003_0003, 0x0123_0FB0, 0x0ABC]);
        let full = Request::multicast(&[0xFFF; 40]);
        assert_eq!((full.words().len(), full.words()[0], full.words()[15]), (16, 0x001E_0003, 0x0FFF_0FFF));
        assert_eq!(full.with(7).words().len(), 16, "no word too many");
    }

    #[test]
    fn group_addresses_hash_as_in_the_sheets() {
        for (mac, hashes) in
            [("01:00:5e:00:00:fb", [0xFB0, 0xF60, 0xEC0, 0xB00]), ("33:33:00:00:12:ff", [0xFF1, 0xFE2, 0xFC4, 0xF12])]
        {
            for (filter_type, hash) in hashes.into_iter().enumerate() {
                assert_eq!(multicast_hash(mac.parse().unwrap(), filter_type as u32), hash, "{mac}, type {filter_type}");
            }
        }
    }
}

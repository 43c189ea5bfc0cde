//! What ixgbe's PFs understand beyond what igb's do, by API version, and how patient their mailbox is (fact sheet ixgbevf
//! 3).
//!
//! Owns the words of requests and the parsing of answers; the device gives them to the mailbox, whose mechanics both
//! families share. What always holds: a value from an answer is checked before it is used.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::intel::mailbox::Protocol;
use super::intel::request::Request;
use super::regs::{QUEUES, VFMAILBOX, VFMBMEM};
use crate::addr::MacAddr;

/// The mailbox: 2000 tries to own it, and nobody waits for the PF's acknowledgement of a request (fact sheet ixgbevf 3.4,
/// legacy).
pub(super) const MAILBOX: Protocol = Protocol {
    control: VFMAILBOX,
    buffer: VFMBMEM,
    ownership_tries: 2000,
    ownership_pause: Duration::from_micros(500),
    awaits_acknowledgement: false,
};

/// A version of the API between VF and PF, by age. Later versions have nothing that this driver uses: 1.4 is IPsec, 1.5 and
/// 1.7 bring another handshake of the mailbox, 1.6 the link's state, which VFLINKS has too (fact sheet ixgbevf 3.2, 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Api {
    V1_0,
    /// Queue counts.
    V1_1,
    /// Which multicast frames, RSS key and table, link enabled.
    V1_2,
    /// Every unicast frame.
    V1_3,
}

/// The versions to try, newest first. A PF that knows no negotiation refuses them all and speaks 1.0.
pub(super) const NEGOTIATED: [Api; 4] = [Api::V1_3, Api::V1_2, Api::V1_1, Api::V1_0];

impl Api {
    /// The version's number on the wire (fact sheet ixgbevf 3.2).
    fn wire(self) -> u32 {
        match self {
            Api::V1_0 => 0,
            Api::V1_1 => 2,
            Api::V1_2 => 3,
            Api::V1_3 => 4,
        }
    }
}

// Message ids beyond those of both families (fact sheet ixgbevf 3.3).
const SET_MACVLAN: u32 = 0x06;
const API_NEGOTIATE: u32 = 0x08;
const GET_QUEUES: u32 = 0x09;
const GET_RETA: u32 = 0x0A;
const GET_RSS_KEY: u32 = 0x0B;
const UPDATE_XCAST_MODE: u32 = 0x0C;
const GET_LINK_STATE: u32 = 0x10;

/// Highest index of an additional address, a field of eight bits.
const MACVLAN_INDEX_MAX: usize = 0xFF;

/// Speak this version from now on.
pub(super) fn negotiate(api: Api) -> Request {
    Request::new(API_NEGOTIATE, 0, "negotiate the API version").with(api.wire())
}

/// How many queues are there?
pub(super) fn get_queues() -> Request {
    Request::new(GET_QUEUES, 0, "get queues")
}

/// Has the administrator disabled the link?
pub(super) fn get_link_state() -> Request {
    Request::new(GET_LINK_STATE, 0, "get link state")
}

/// Forget all additional unicast addresses. The address is ours: a PF may check it before it looks further.
pub(super) fn clear_unicast(own: MacAddr) -> Request {
    Request::new(SET_MACVLAN, 0, "clear unicast filters").with_mac(own)
}

/// Accept this additional unicast address, the `place`th of a list: the first replaces all earlier ones.
pub(super) fn add_unicast(place: usize, mac: MacAddr) -> Request {
    let index = (place + 1).min(MACVLAN_INDEX_MAX) as u32;
    Request::new(SET_MACVLAN, index, "add unicast filter").with_mac(mac)
}

/// Which frames to receive beyond those that the filters name, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Xcast {
    /// Broadcast, and multicast by the hash table. 0 would switch broadcast off as well.
    Multi = 1,
    /// Every multicast frame.
    AllMulti = 2,
    /// Every frame. From API 1.3 on.
    Promiscuous = 3,
}

/// Receive these frames.
pub(super) fn update_xcast(mode: Xcast) -> Request {
    Request::new(UPDATE_XCAST_MODE, 0, "update xcast mode").with(mode as u32)
}

/// What is the PF's RSS table?
pub(super) fn get_reta() -> Request {
    Request::new(GET_RETA, 0, "get RSS table")
}

/// What is the PF's RSS key?
pub(super) fn get_rss_key() -> Request {
    Request::new(GET_RSS_KEY, 0, "get RSS key")
}

/// Entries of the PF's table, and bits of each in the words of the answer.
pub(super) const RETA_ENTRIES: u16 = 128;
const RETA_ENTRY_BITS: u32 = 2;
const RETA_ENTRIES_PER_WORD: u32 = u32::BITS / RETA_ENTRY_BITS;
/// Words of the answers, word 0 among them.
pub(super) const RETA_WORDS: usize = 1 + (RETA_ENTRIES as u32 / RETA_ENTRIES_PER_WORD) as usize;
pub(super) const RSS_KEY_WORDS: usize = 1 + super::regs::VFRSSRK_COUNT;

/// The queue numbers in an answer to `get_reta`.
pub(super) fn reta(answer: [u32; RETA_WORDS]) -> Vec<u16> {
    let [_, words @ ..] = answer;
    let entry = |word: u32, i: u32| (word >> (RETA_ENTRY_BITS * i) & ((1 << RETA_ENTRY_BITS) - 1)) as u16;
    words.iter().flat_map(|&word| (0..RETA_ENTRIES_PER_WORD).map(move |i| entry(word, i))).collect()
}

/// What the PF grants, from the words 1 to 4 of its answer to `get_queues`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) rx_queues: u16,
    pub(super) tx_queues: u16,
    /// Traffic classes, where there are several: the hardware puts frames of class i into receive queue i, and RSS is off.
    pub(super) classes: Option<u16>,
    /// The transmit queue of the class that frames without a priority belong to.
    pub(super) default_tx: u16,
}

impl Granted {
    /// What a PF that cannot be asked gives for sure (fact sheet ixgbevf 1).
    pub(super) const ONE: Granted = Granted { rx_queues: 1, tx_queues: 1, classes: None, default_tx: 0 };

    /// From an answer. Counts that cannot be are taken for 1: one queue is always there, and one too many would lose
    /// frames. (Other drivers take them for 8.)
    pub(super) fn parse([_, tx, rx, classes, default_tx]: [u32; 5]) -> Granted {
        let count = |n: u32| u16::try_from(n).ok().filter(|n| (1..=QUEUES).contains(n)).unwrap_or(1);
        let (rx_queues, tx_queues) = (count(rx), count(tx));
        // 1 is a port VLAN, which changes nothing here.
        let classes = u16::try_from(classes).ok().filter(|n| (2..=rx_queues).contains(n));
        let default_tx = u16::try_from(default_tx).ok().filter(|&n| n < tx_queues).unwrap_or(0);
        Granted { rx_queues, tx_queues, classes, default_tx }
    }
}

/// Every parser on the same words, for fuzzing; what they let through must be what the driver may use.
#[cfg(any(fuzzing, test))]
pub fn parse_anything(bytes: &[u8]) {
    let word = |i: usize| {
        let mut word = [0; 4];
        word.iter_mut().zip(bytes.iter().skip(4 * i)).for_each(|(to, from)| *to = *from);
        u32::from_le_bytes(word)
    };
    let Granted { rx_queues, tx_queues, classes, default_tx } = Granted::parse(std::array::from_fn(word));
    assert!((1..=QUEUES).contains(&rx_queues) && (1..=QUEUES).contains(&tx_queues) && default_tx < tx_queues);
    assert!(classes.is_none_or(|classes| classes <= rx_queues));
    let table = reta(std::array::from_fn(word));
    assert!(table.len() == usize::from(RETA_ENTRIES) && table.iter().all(|&queue| queue < 1 << RETA_ENTRY_BITS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_match_the_sheet() {
        let mac = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(NEGOTIATED.map(|api| negotiate(api).words().to_vec()), [[8, 4], [8, 3], [8, 2], [8, 0]]);
        assert_eq!(get_queues().words(), [0x09]);
        assert_eq!(get_link_state().words(), [0x10]);
        assert_eq!(clear_unicast(mac).words(), [0x0000_0006, 0x3322_1102, 0x5544]);
        assert_eq!(add_unicast(0, mac).words(), [0x0001_0006, 0x3322_1102, 0x5544]);
        assert_eq!(add_unicast(1, mac).words()[0], 0x0002_0006);
        assert_eq!(add_unicast(1000, mac).words()[0], 0x00FF_0006, "the index stays in its field");
        assert_eq!(update_xcast(Xcast::Multi).words(), [0x0C, 1]);
        assert_eq!(update_xcast(Xcast::AllMulti).words(), [0x0C, 2]);
        assert_eq!(update_xcast(Xcast::Promiscuous).words(), [0x0C, 3]);
        assert_eq!((get_reta().words(), get_rss_key().words()), (&[0x0A][..], &[0x0B][..]));
        assert_eq!((RETA_WORDS, RSS_KEY_WORDS), (9, 11));
    }

    #[test]
    fn the_table_has_two_bits_for_each_entry_from_the_lowest_on() {
        let table = reta([0xA000_000A, 0b11_10_01_00, 0, 0, 0, 0, 0, 0, 0x4000_0000]);
        assert_eq!((table.len(), &table[..5]), (128, &[0, 1, 2, 3, 0][..]));
        assert_eq!((table[126], table[127]), (0, 1));
    }

    #[test]
    fn only_counts_that_can_be_are_believed() {
        let parse = |tx, rx, classes, default| Granted::parse([0xA000_0009, tx, rx, classes, default]);
        assert_eq!(parse(2, 4, 0, 0), Granted { rx_queues: 4, tx_queues: 2, classes: None, default_tx: 0 });
        assert_eq!(parse(8, 8, 8, 3), Granted { rx_queues: 8, tx_queues: 8, classes: Some(8), default_tx: 3 });
        assert_eq!(parse(4, 4, 1, 0).classes, None, "a port VLAN");
        assert_eq!(parse(4, 4, 5, 0).classes, None, "more classes than queues");
        assert_eq!(parse(4, 4, 4, 4).default_tx, 0);
        for (tx, rx) in [(0, 0), (9, 9), (0x1_0001, 0x1_0001), (u32::MAX, u32::MAX)] {
            assert_eq!(parse(tx, rx, u32::MAX, u32::MAX), Granted::ONE);
        }
    }
}

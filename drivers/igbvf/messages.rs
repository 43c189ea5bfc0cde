//! What igb's PFs understand beyond what ixgbe's do, and how patient their mailbox is (fact sheet igbvf 3).
//!
//! Owns the words; `port.rs` gives them to the mailbox, whose mechanics both families share.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::intel::mailbox::{Protocol, granted};
use super::intel::request::{INFO_SHIFT, Request, SET_MAC};
use super::regs::{V2PMAILBOX, VMBMEM};
use crate::addr::MacAddr;

/// The mailbox: ten tries to own it (fact sheet igbvf 3.1 step 1), and the PF acknowledges before it answers (steps 5, 6).
pub(super) const MAILBOX: Protocol = Protocol {
    control: V2PMAILBOX,
    buffer: VMBMEM,
    ownership_tries: 10,
    ownership_pause: Duration::from_millis(1),
    awaits_acknowledgement: true,
};

/// Id of the promiscuous request, and its info: every unicast frame, every multicast frame (fact sheet igbvf 3.3).
const PROMISCUOUS: u32 = 0x06;
const PROMISCUOUS_UNICAST: u32 = 1 << 0;
const PROMISCUOUS_MULTICAST: u32 = 1 << 1;

/// Info of a set-MAC request: forget the additional addresses, add one (fact sheet igbvf 3.3).
const MAC_CLEAR: u32 = 1;
const MAC_ADD: u32 = 2;

/// Forget all additional unicast addresses. The address is ours: newer PFs check it before they look further.
pub(super) fn clear_unicast(own: MacAddr) -> Request {
    Request::new(SET_MAC, MAC_CLEAR, "clear unicast filters").with_mac(own)
}

/// Accept this unicast address too.
pub(super) fn add_unicast(mac: MacAddr) -> Request {
    Request::new(SET_MAC, MAC_ADD, "add unicast filter").with_mac(mac)
}

/// Accept every unicast frame, every multicast frame.
pub(super) fn promiscuous(unicast: bool, multicast: bool) -> Request {
    let info = if unicast { PROMISCUOUS_UNICAST } else { 0 } | if multicast { PROMISCUOUS_MULTICAST } else { 0 };
    Request::new(PROMISCUOUS, info, "set promiscuous mode")
}

/// By word 0 of the answer to a promiscuous request: did the PF honour the multicast half? It clears the bits that it
/// honours, and refuses for the sake of the others (fact sheet igbvf 3.3).
pub(super) fn multicast_honoured(word0: u32) -> bool {
    granted(word0) || word0 >> INFO_SHIFT & PROMISCUOUS_MULTICAST == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_match_the_sheet() {
        let mac = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(clear_unicast(mac).words(), [0x0001_0002, 0x3322_1102, 0x5544]);
        assert_eq!(add_unicast(mac).words(), [0x0002_0002, 0x3322_1102, 0x5544]);
        assert_eq!(promiscuous(false, true).words(), [0x0002_0006]);
        assert_eq!(promiscuous(true, true).words(), [0x0003_0006]);
        assert_eq!(promiscuous(false, false).words(), [0x0000_0006]);
    }
}

//! virtchnl as a PF sees it: opcodes, status codes, capability bits, and the exact length of every message (fact sheet
//! iavf 4.1 to 4.4).
//!
//! Pure: what a request means to the VF is decided in `pf.rs` and the files beside it.
#![forbid(unsafe_code)]

// Opcodes (iavf 4.2) that the model serves.
pub(super) const VERSION: u32 = 1;
pub(super) const RESET_VF: u32 = 2;
pub(super) const GET_VF_RESOURCES: u32 = 3;
pub(super) const CONFIG_VSI_QUEUES: u32 = 6;
pub(super) const CONFIG_IRQ_MAP: u32 = 7;
pub(super) const ENABLE_QUEUES: u32 = 8;
pub(super) const DISABLE_QUEUES: u32 = 9;
pub(super) const ADD_ETH_ADDR: u32 = 10;
pub(super) const DEL_ETH_ADDR: u32 = 11;
pub(super) const ADD_VLAN: u32 = 12;
pub(super) const DEL_VLAN: u32 = 13;
pub(super) const CONFIG_PROMISCUOUS_MODE: u32 = 14;
pub(super) const GET_STATS: u32 = 15;
pub(super) const EVENT: u32 = 17;
pub(super) const CONFIG_RSS_KEY: u32 = 23;
pub(super) const CONFIG_RSS_LUT: u32 = 24;
pub(super) const GET_RSS_HENA_CAPS: u32 = 25;
pub(super) const SET_RSS_HENA: u32 = 26;
pub(super) const ENABLE_VLAN_STRIPPING: u32 = 27;
pub(super) const DISABLE_VLAN_STRIPPING: u32 = 28;
pub(super) const REQUEST_QUEUES: u32 = 29;
pub(super) const GET_SUPPORTED_RXDIDS: u32 = 44;
pub(super) const GET_MAX_RSS_QREGION: u32 = 50;
pub(super) const GET_OFFLOAD_VLAN_V2_CAPS: u32 = 51;
pub(super) const ADD_VLAN_V2: u32 = 52;
pub(super) const DEL_VLAN_V2: u32 = 53;
pub(super) const ENABLE_VLAN_STRIPPING_V2: u32 = 54;
pub(super) const DISABLE_VLAN_STRIPPING_V2: u32 = 55;
pub(super) const ENABLE_VLAN_INSERTION_V2: u32 = 56;
pub(super) const DISABLE_VLAN_INSERTION_V2: u32 = 57;
pub(super) const ENABLE_QUEUES_V2: u32 = 107;
pub(super) const DISABLE_QUEUES_V2: u32 = 108;
pub(super) const MAP_QUEUE_VECTOR: u32 = 111;

// Status codes (iavf 4.1, 4.2).
pub(super) const ERR_PARAM: i32 = -5;
pub(super) const ERR_ADMINQ: i32 = -53;
/// i40e, for what it knows and does not serve.
pub(super) const ERR_NOT_IMPLEMENTED: i32 = -60;
/// The upstream i40e driver, in place of the two of [`in_tree`].
const ERR_INVALID: i32 = -22;
const ERR_UNSUPPORTED: i32 = -95;
/// ice, for what the VF was not granted.
pub(super) const ERR_NOT_SUPPORTED: i32 = -64;

// Capability bits (iavf 4.3) that the model grants.
pub(super) const CAP_L2: u32 = 1 << 0;
pub(super) const CAP_RSS_REG: u32 = 1 << 4;
pub(super) const CAP_WB_ON_ITR: u32 = 1 << 5;
pub(super) const CAP_REQ_QUEUES: u32 = 1 << 6;
pub(super) const CAP_ADV_LINK_SPEED: u32 = 1 << 7;
pub(super) const CAP_LARGE_QUEUES: u32 = 1 << 9;
pub(super) const CAP_CRC: u32 = 1 << 10;
pub(super) const CAP_VLAN_V2: u32 = 1 << 15;
pub(super) const CAP_VLAN: u32 = 1 << 16;
pub(super) const CAP_RX_POLLING: u32 = 1 << 17;
pub(super) const CAP_RSS_PCTYPE_V2: u32 = 1 << 18;
pub(super) const CAP_RSS_PF: u32 = 1 << 19;
/// Only looked at: the model grants it to nobody.
pub(super) const CAP_USO: u32 = 1 << 25;
pub(super) const CAP_FLEX_DESC: u32 = 1 << 26;

// VLAN V2 support bits (iavf 4.4).
pub(super) const VLAN_8100: u32 = 0x1;
pub(super) const VLAN_88A8: u32 = 0x2;
pub(super) const VLAN_9100: u32 = 0x4;
pub(super) const VLAN_L2TAG1: u32 = 0x100;
pub(super) const VLAN_L2TAG2: u32 = 0x200;
pub(super) const VLAN_L2TAG2_2ND: u32 = 0x400;
pub(super) const VLAN_AND: u32 = 0x2000_0000;
pub(super) const VLAN_XOR: u32 = 0x4000_0000;
pub(super) const VLAN_TOGGLE: u32 = 0x8000_0000;

// Events (iavf 4.4).
pub(super) const EVENT_LINK_CHANGE: u32 = 1;
pub(super) const EVENT_RESET_IMPENDING: u32 = 2;
/// Severity of a reset that is certain.
pub(super) const SEVERITY_CERTAIN: i32 = 255;

/// A payload to read little-endian fields from; past its end everything is 0.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a>(pub(super) &'a [u8]);

impl Payload<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        self.bytes::<1>(at)[0]
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    pub(super) fn mac(&self, at: usize) -> [u8; 6] {
        self.bytes(at)
    }
}

/// Whether a payload has the one length that its opcode and its counts allow (iavf 4.1); `None`: the PF's validator
/// does not know the opcode. `minor` is the agreed version's.
pub(super) fn length_fits(opcode: u32, payload: &[u8], minor: u32) -> Option<bool> {
    let (len, p) = (payload.len(), Payload(payload));
    let count = |at: usize| p.u16(at) as usize;
    // Lists of n elements, of which there must be one.
    let list = |n: usize, size: usize| n > 0 && len == size;
    Some(match opcode {
        VERSION => len == 8,
        RESET_VF
        | GET_RSS_HENA_CAPS
        | ENABLE_VLAN_STRIPPING
        | DISABLE_VLAN_STRIPPING
        | 31
        | GET_SUPPORTED_RXDIDS
        | GET_MAX_RSS_QREGION
        | GET_OFFLOAD_VLAN_V2_CAPS
        | 66 => len == 0,
        GET_VF_RESOURCES => len == if minor == 0 { 0 } else { 4 },
        4 => len == 24,
        5 => len == 40,
        CONFIG_VSI_QUEUES => list(count(2), 72 + 64 * count(2)),
        CONFIG_IRQ_MAP => list(count(0), 14 + 12 * count(0)),
        ENABLE_QUEUES | DISABLE_QUEUES | GET_STATS => len == 12,
        ADD_ETH_ADDR | DEL_ETH_ADDR => list(count(2), 12 + 8 * count(2)),
        ADD_VLAN | DEL_VLAN => list(count(2), 6 + 2 * count(2)),
        CONFIG_PROMISCUOUS_MODE => len == 4,
        18 | SET_RSS_HENA => len == 8,
        CONFIG_RSS_KEY | CONFIG_RSS_LUT => len == 6 + count(2).saturating_sub(1),
        REQUEST_QUEUES => len == 2,
        45 | 46 => len == 2444,
        47 => len == 2616,
        48 | 113 => len == 12,
        ADD_VLAN_V2 | DEL_VLAN_V2 => list(count(2), 8 + 32 * count(2)),
        54..=59 => len == 16,
        60 => len == 48,
        61..=64 => len == 16,
        67 => list(count(2), 8 + 4 * count(2)),
        ENABLE_QUEUES_V2 | DISABLE_QUEUES_V2 => list(count(4), 8 + 8 * count(4)),
        // Both readings of the header (iavf 4.1).
        MAP_QUEUE_VECTOR => list(count(2), 8 + 16 * count(2)) || list(count(2), 24 + 16 * count(2)),
        112 => list(count(2), 4 + 12 * count(2)),
        _ => return None,
    })
}

/// True for what an i40e PF answers with [`ERR_NOT_IMPLEMENTED`] (iavf 4.2).
pub(super) fn known_to_i40e(opcode: u32) -> bool {
    matches!(opcode, 4 | 5 | 18 | 20..=22 | 45..=48 | 50 | 58 | 59 | 66 | 67 | 107 | 108 | 111..=115 | 131..=135)
}

/// True when an ice PF serves an opcode to a VF with these capabilities; `None`: before GET_VF_RESOURCES (iavf 4.2).
pub(super) fn allowed_by_ice(opcode: u32, granted: Option<u32>) -> bool {
    let has = |cap: u32| granted.is_some_and(|granted| granted & cap != 0);
    match opcode {
        1..=3 => true,
        4..=9 | 15 | 17 => granted.is_some(),
        10 | 11 | 14 => has(CAP_L2),
        12 | 13 | 27 | 28 => has(CAP_VLAN),
        23..=26 => has(CAP_RSS_PF),
        29 => has(CAP_REQ_QUEUES),
        44 => has(CAP_FLEX_DESC),
        51..=57 => has(CAP_VLAN_V2),
        50 | 107 | 108 | 111 => has(CAP_LARGE_QUEUES),
        _ => false,
    }
}

/// The status code of the upstream i40e driver where Intel's own sends this one (iavf 4.1, 4.2).
pub(super) fn in_tree(status: i32) -> i32 {
    match status {
        ERR_PARAM => ERR_INVALID,
        ERR_NOT_IMPLEMENTED => ERR_UNSUPPORTED,
        other => other,
    }
}

/// An EVENT payload.
pub(super) fn event(code: u32, speed: u32, up: bool, severity: i32) -> Vec<u8> {
    let mut payload = vec![0; 16];
    payload[0..4].copy_from_slice(&code.to_le_bytes());
    payload[4..8].copy_from_slice(&speed.to_le_bytes());
    payload[8] = up as u8;
    payload[12..16].copy_from_slice(&severity.to_le_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(opcode: u32, counts: &[(usize, u16)], len: usize) -> Option<bool> {
        let mut payload = vec![0; len];
        for &(at, count) in counts {
            payload[at..at + 2].copy_from_slice(&count.to_le_bytes());
        }
        length_fits(opcode, &payload, 1)
    }

    #[test]
    fn lengths_as_in_the_fact_sheet() {
        for (opcode, at, count, len) in [
            (6, 2, 1, 136),
            (7, 0, 1, 26),
            (10, 2, 1, 20),
            (12, 2, 1, 8),
            (52, 2, 1, 40),
            (23, 2, 52, 57),
            (24, 2, 64, 69),
            (107, 4, 2, 24),
            (111, 2, 3, 56),
            (111, 2, 3, 72),
        ] {
            assert_eq!(fits(opcode, &[(at, count)], len), Some(true), "opcode {opcode}");
            for wrong in [len - 1, len + 1] {
                assert_eq!(fits(opcode, &[(at, count)], wrong), Some(false), "opcode {opcode}, {wrong} bytes");
            }
        }
        assert_eq!(fits(8, &[], 12), Some(true));
        assert_eq!(fits(47, &[], 2616), Some(true));
        assert_eq!(fits(10, &[], 12), Some(false), "a list of none");
        assert_eq!(fits(23, &[(2, 0)], 6), Some(true));
        assert_eq!(fits(3, &[], 4), Some(true));
        assert_eq!(length_fits(3, &[], 0), Some(true));
        assert_eq!((fits(99, &[], 0), fits(1000, &[], 0)), (None, None));
    }
}

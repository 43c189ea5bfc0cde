//! Which queue a frame goes to: hash fields, key and table (fact sheet iavf 2.5, 4.4).
#![forbid(unsafe_code)]

use super::super::frame::{self, Ip, Layout};
use super::super::rng::Rng;
use super::rx::{Payload, payload};

/// Bytes of the key, and entries of the table (iavf 4.4).
pub(super) const KEY: usize = 52;
pub(super) const TABLE: usize = 64;

/// HENA bits (iavf 4.4) of the 700 series: the fields that it can hash by.
const FIELDS: u64 = 1 << 31 | 0xf << 33 | 1 << 41 | 0xf << 43 | 1 << 63;
/// Those that X722 and the 800 series have besides.
const MORE_FIELDS: u64 = 0x3 << 29 | 1 << 32 | 0x3 << 39 | 1 << 42;

/// The VF's part in receive-side scaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rss {
    pub(super) key: [u8; KEY],
    pub(super) table: [u8; TABLE],
    pub(super) fields: u64,
    pub(super) capable: u64,
}

impl Rss {
    /// What the hardware can do: `expanded` fields, and the L2 payload.
    pub(super) fn capable(expanded: bool, l2: bool) -> u64 {
        let all = if expanded { FIELDS | MORE_FIELDS } else { FIELDS };
        if l2 { all } else { all & !(1 << 63) }
    }

    /// After a reset: a key that nobody knows; an 800-series PF also spreads over the VF's queues.
    pub(super) fn new(capable: u64, spread: Option<usize>, rng: &mut Rng) -> Self {
        let mut key = [0; KEY];
        key.fill_with(|| rng.next() as u8);
        let queues = spread.unwrap_or(1);
        let table = std::array::from_fn(|i| (i % queues) as u8);
        Rss { key, table, fields: if spread.is_some() { capable } else { 0 }, capable }
    }

    /// The queue of a frame, and its hash if its kind is hashed.
    pub(super) fn queue(&self, bytes: &[u8], layout: &Layout) -> (usize, Option<u32>) {
        let kind = payload(bytes, layout);
        let v4 = matches!(layout.ip, Ip::V4 { .. });
        // Positions of the IPv4 bits; those of IPv6 are 10 higher.
        let bits: u64 = match kind {
            _ if layout.ip == Ip::None => 0,
            Payload::Udp => 0b111 << 29,
            Payload::Tcp => 0b11 << 32,
            Payload::Sctp => 1 << 34,
            Payload::Other | Payload::Icmp => 1 << 35,
            Payload::Fragment => 1 << 36,
        };
        if self.fields & (if v4 { bits } else { bits << 10 }) == 0 {
            return (0, None);
        }
        let addresses = if v4 { layout.l3 + 12..layout.l3 + 20 } else { layout.l3 + 8..layout.l3 + 40 };
        let ports: &[u8] = match kind {
            Payload::Udp | Payload::Tcp | Payload::Sctp => &bytes[layout.l4..layout.l4 + 4],
            _ => &[],
        };
        let hash = frame::toeplitz(&self.key, bytes[addresses].iter().chain(ports));
        (self.table[hash as usize % TABLE] as usize, Some(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_decide_what_is_hashed() {
        assert_eq!(Rss::capable(false, true), 0x8000_7a1e_8000_0000);
        let mut rss = Rss::new(Rss::capable(true, false), Some(4), &mut Rng::new(1));
        let udp = frame::udp(crate::addr::MacAddr([2; 6]), crate::addr::MacAddr([4; 6]), [10, 0, 0, 1], (5, 6), 80);
        let layout = frame::layout(&udp);
        let (queue, hash) = rss.queue(&udp, &layout);
        assert_eq!(queue, hash.unwrap() as usize % 64 % 4);
        rss.fields = !(0b111 << 29);
        assert_eq!(rss.queue(&udp, &layout), (0, None));
        rss.fields = 1 << 31;
        rss.table.fill(3);
        assert_eq!(rss.queue(&udp, &layout), (3, hash));
    }
}

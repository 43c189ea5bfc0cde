//! Receive-side scaling: the hash of a packet's addresses and ports picks an entry of a table, and the entry names the
//! receive queue.
//!
//! Owns the public types [`Rss`] and [`RssCaps`], and the key and table that a port has unless the program sets others.
//! Families program them through `Device::set_rss`; the framework keeps them in the port's settings, so a flow stays on
//! its queue through resets. What always holds: an [`Rss`] that reaches a family has the lengths of its [`RssCaps`]
//! and names only queues that the port has.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// The key of Microsoft's RSS verification suite, which spreads well and has published hash values.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];
/// A key that repeats every 16 bits gives a flow and its answers the same hash, because source and destination are
/// swapped by multiples of 16 bits (Woo and Park, "Scalable TCP Session Monitoring with Symmetric RSS", 2012).
const SYMMETRIC_KEY: [u8; 2] = [0x6d, 0x5a];

/// How a VF can spread flows over its receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RssCaps {
    /// Bytes of the key.
    pub key_len: u16,
    /// Entries of the table.
    pub table_len: u16,
    /// False where the PF's key and table are in force: they can be read, if the host allows it, and not set.
    pub settable: bool,
}

/// How received flows are spread: the Toeplitz hash of addresses and ports under `key`, modulo the length of `table`, is
/// the place of the queue's number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The hash key, first byte first.
    pub key: Vec<u8>,
    /// Queue numbers.
    pub table: Vec<u16>,
}

impl Rss {
    /// All queues in turn, under a key that everybody has, or one that treats both directions of a flow alike.
    pub(crate) fn even(caps: RssCaps, queues: u16, symmetric: bool) -> Rss {
        let key: &[u8] = if symmetric { &SYMMETRIC_KEY } else { &KEY };
        Rss {
            key: key.iter().copied().cycle().take(caps.key_len.into()).collect(),
            table: (0..caps.table_len).map(|entry| entry % queues.max(1)).collect(),
        }
    }

    /// Refuses what the VF cannot take, before it reaches a register or a message.
    pub(crate) fn check(&self, name: &str, caps: Option<RssCaps>, queues: u16) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(format!("{name}: {text}")));
        let Some(caps) = caps else { return refuse(NO_RSS.into()) };
        if !caps.settable {
            return refuse("the PF's RSS key and table are in force; this VF can read them and not set them".into());
        }
        let lengths = (self.key.len(), self.table.len());
        if lengths != (caps.key_len.into(), caps.table_len.into()) {
            return refuse(format!(
                "an RSS key of {} bytes and a table of {} entries: this VF has {} and {}",
                lengths.0, lengths.1, caps.key_len, caps.table_len
            ));
        }
        match self.table.iter().find(|&&queue| queue >= queues) {
            Some(queue) => refuse(format!("the RSS table names queue {queue}, and the port has {queues}")),
            None => Ok(()),
        }
    }

    /// The queue that a packet with this hash comes to. `None` where the table has no entries.
    pub fn queue_of(&self, hash: u32) -> Option<u16> {
        self.table.get((hash as usize).checked_rem(self.table.len())?).copied()
    }
}

/// Why there is no RSS to read or set.
pub(crate) const NO_RSS: &str = "this VF has no RSS of its own: its PF decides which queue a frame comes to";

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: RssCaps = RssCaps { key_len: 52, table_len: 64, settable: true };

    #[test]
    fn every_queue_gets_its_share() {
        let rss = Rss::even(CAPS, 3, false);
        assert_eq!((rss.key.len(), rss.table.len()), (52, 64));
        assert_eq!((&rss.key[..40], &rss.key[40..]), (&KEY[..], &KEY[..12]));
        for queue in 0..3 {
            assert!((21..=22).contains(&rss.table.iter().filter(|&&q| q == queue).count()));
        }
        assert_eq!((rss.queue_of(0), rss.queue_of(64), rss.queue_of(u32::MAX)), (Some(0), Some(0), Some(0)));
        assert_eq!(rss.queue_of(5), Some(2));
        assert_eq!(Rss { key: vec![], table: vec![] }.queue_of(5), None);
        assert!(Rss::even(CAPS, 4, true).key.chunks(2).all(|pair| pair == [0x6d, 0x5a]));
    }

    #[test]
    fn what_a_vf_cannot_take_is_refused_by_its_reason() {
        let good = Rss::even(CAPS, 4, false);
        let check = |rss: &Rss, caps: Option<RssCaps>| rss.check("vf", caps, 4).map_err(|error| error.to_string());
        check(&good, Some(CAPS)).unwrap();
        assert_eq!(check(&good, None), Err(format!("vf: {NO_RSS}")));
        assert!(check(&good, Some(RssCaps { settable: false, ..CAPS })).unwrap_err().contains("not set"));
        assert!(check(&Rss { key: vec![1; 40], ..good.clone() }, Some(CAPS)).unwrap_err().contains("40 bytes"));
        assert!(check(&Rss { table: vec![0; 63], ..good.clone() }, Some(CAPS)).unwrap_err().contains("63 entries"));
        assert!(check(&Rss { table: vec![4; 64], ..good }, Some(CAPS)).unwrap_err().contains("names queue 4"));
    }
}

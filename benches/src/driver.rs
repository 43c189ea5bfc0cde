//! The loops that are measured, over the queues of any port: the driver's side of a round, and nothing else.
//!
//! Used on models (`Rig`), on the fake VF beside DPDK (`peer-vfring`) and by two threads at once (`scaling`), so that all of
//! them measure the same code. What always holds: no loop here calls the device's side.
#![forbid(unsafe_code)]

use vfring::{AnyRx, AnyTx, Burst, Forward, Frame, PacketBuf, PoolCache, Verdict};

/// Bytes of every packet sent.
pub const FRAME: usize = 60;
/// Most frames that a call of `Forward` takes.
const JOINED: usize = 64;

/// What a thread that drives one port's queue pair has.
pub struct Driver {
    rx: AnyRx,
    tx: AnyTx,
    cache: PoolCache,
    burst: Burst,
    joined: Forward,
    /// Packets that wait to be sent, for `send`.
    stock: Vec<Burst>,
}

impl Driver {
    /// Arms both rings.
    pub fn new(rx: AnyRx, tx: AnyTx, cache: PoolCache) -> Driver {
        let mut driver = Driver { rx, tx, cache, burst: Burst::new(), joined: Forward::new(), stock: Vec::new() };
        // The first burst of each queue does.
        driver.forward(0, |_| ());
        driver
    }

    /// Untimed, before a round: bursts of `burst` packets from now on, and `packets` packets to send.
    pub fn ready(&mut self, packets: usize, burst: usize) {
        if self.burst.limit() != burst {
            self.burst = Burst::with_limit(burst).expect("within the limits of a burst");
            self.joined = Forward::with_limit(burst.min(JOINED)).expect("as above");
            self.stock.clear();
        }
        let bursts = packets.div_ceil(burst);
        while self.stock.len() < bursts {
            self.stock.push(Burst::with_limit(burst).expect("as above"));
        }
        let mut left = packets;
        for stock in &mut self.stock[..bursts] {
            left -= self.cache.alloc(left.min(burst), stock);
            for packet in stock.iter_mut() {
                packet.append(FRAME);
            }
        }
        assert_eq!(left, 0, "the pool has a round's packets");
    }

    /// One receive burst, whose packets `look` sees before they are freed.
    #[inline(always)]
    pub fn poll(&mut self, mut look: impl FnMut(&PacketBuf)) -> usize {
        let got = self.rx.burst(&mut self.cache, &mut self.burst);
        for packet in &self.burst {
            look(packet);
        }
        self.cache.free(&mut self.burst);
        got
    }

    /// Receives packets, and gives their buffers back in bulk.
    #[inline(always)]
    pub fn receive(&mut self, packets: usize) -> usize {
        let mut done = 0;
        while done < packets {
            done += self.rx.burst(&mut self.cache, &mut self.burst);
            self.cache.free(&mut self.burst);
        }
        done
    }

    /// Sends what `ready` made; reclaim included.
    #[inline(always)]
    pub fn send(&mut self) -> usize {
        let mut done = 0;
        for burst in &mut self.stock {
            while !burst.is_empty() {
                done += self.tx.burst(&mut self.cache, burst);
            }
        }
        done
    }

    /// Receives packets, does something to each, and sends them.
    #[inline(always)]
    pub fn forward(&mut self, packets: usize, mut act: impl FnMut(&mut PacketBuf)) -> usize {
        let mut done = 0;
        loop {
            self.rx.burst(&mut self.cache, &mut self.burst);
            for packet in &mut self.burst {
                act(packet);
            }
            done += self.tx.burst(&mut self.cache, &mut self.burst);
            if done >= packets {
                return done;
            }
        }
    }

    /// As `forward`, both rings in one call.
    #[inline(always)]
    pub fn join(&mut self, packets: usize, mut act: impl FnMut(&mut Frame<'_>)) -> usize {
        let mut done = 0;
        while done < packets {
            let each = |frame: &mut Frame<'_>| {
                act(frame);
                Verdict::Send
            };
            done += self.joined.burst(&mut self.rx, &mut self.tx, &mut self.cache, each).sent;
        }
        done
    }

    /// Polls a ring with nothing in it.
    #[inline(always)]
    pub fn poll_empty(&mut self, polls: usize) -> usize {
        for _ in 0..polls {
            self.rx.burst(&mut self.cache, &mut self.burst);
        }
        polls
    }
}

/// Swaps a packet's MAC addresses by the same loads and stores as DPDK's side of the comparison: 8 bytes from 0 and from 6, and
/// 4 and 2 bytes for each address.
#[inline(always)]
pub fn swap_macs(packet: &mut [u8]) {
    if let Some(head) = packet.first_chunk_mut::<14>() {
        let [a, b, c, d, e, f, g, h, ..] = *head;
        let [_, _, _, _, _, _, i, j, k, l, m, n, o, p] = *head;
        let destination = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let source = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        head[..4].copy_from_slice(&(source as u32).to_le_bytes());
        head[4..6].copy_from_slice(&((source >> 32) as u16).to_le_bytes());
        head[6..10].copy_from_slice(&(destination as u32).to_le_bytes());
        head[10..12].copy_from_slice(&((destination >> 32) as u16).to_le_bytes());
    }
}

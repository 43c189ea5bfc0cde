//! The orders in which drivers in the field bring a VF up (fact sheet iavf 4.5, 7.2): none is a mistake.
#![forbid(unsafe_code)]

use super::*;

/// Frames pass both ways on queue 0, and the port can be closed.
fn works(mut rig: Rig) {
    rig.done(24, bytes().u16s(&[rig.vsi, 64]).u8s(&[0; 65]));
    assert!(rig.inject(&frame(60)));
    assert_eq!(rig.rx_words(0)[1] & 1, 1);
    rig.tx_next = [0; 4];
    rig.send_plain(&frame(60));
    assert_eq!(rig.sent().len(), 1);
    rig.end_clean();
}

fn arm(rig: &mut Rig) {
    (0..N).for_each(|slot| rig.set_rx(0, slot));
    rig.write(0x2000, N - 1);
}

#[test]
fn dpdk() {
    for part in PARTS {
        let mut rig = Rig::open(options(part));
        rig.negotiate(CAPS);
        if part == AvfPart::E810 {
            rig.done(44, bytes());
            rig.done(51, bytes());
        }
        rig.write(0x5000, 1 << 30);
        rig.write(0x5c00, 3 | 3 << 3);
        assert_eq!(rig.read(0x8800), 2);
        rig.done(26, bytes().u64s(&[0]));
        rig.stats();
        arm(&mut rig);
        let config = rig.queue_config(1, 1);
        rig.done(6, config);
        // Without WB_ON_ITR it takes vector 0; receive queues only.
        let vector = if rig.granted & 1 << 5 != 0 { 1 } else { 0 };
        rig.write(if vector == 0 { 0x5c00 } else { 0x3800 }, 1 << 30 | 2 << 5);
        let map = bytes().u16s(&[1, rig.vsi, vector, 1, 0, 0, 0]).u8s(&[0; 12]);
        rig.done(7, map);
        let own = bytes().u16s(&[rig.vsi, 1]).u8s(&MAC.0).u8s(&[1, 0]).u8s(&[0; 8]);
        rig.done(10, own);
        // One message for each queue, the tail written again before.
        rig.write(0, 0);
        rig.done(8, bytes().u16s(&[rig.vsi, 0]).u32s(&[0, 1]));
        rig.write(0x2000, N - 1);
        rig.done(8, bytes().u16s(&[rig.vsi, 0]).u32s(&[1, 0]));
        works(rig);
    }
}

#[test]
fn linux() {
    for part in PARTS {
        let mut rig = Rig::open(options(part));
        rig.negotiate(CAPS);
        rig.write(0x5c00, 1 | 3 << 3);
        rig.write(0x5000, 1 << 30);
        // Vectors first, the last one without queues.
        let map = bytes().u16s(&[2, rig.vsi, 1, 1, 1, 0, 1, rig.vsi, 0, 0, 0, 0, 0]).u8s(&[0; 12]);
        rig.done(7, map);
        arm(&mut rig);
        let config = rig.queue_config(1, 1);
        rig.done(6, config);
        rig.done(8, bytes().u16s(&[rig.vsi, 0]).u32s(&[1, 1]));
        rig.write(0x3800, 1 | 3 << 3);
        works(rig);
    }
}

#[test]
fn vpp() {
    for part in PARTS {
        let mut rig = Rig::open(options(part));
        rig.post(2, &[]); // before any VERSION
        rig.pause(Duration::from_millis(20));
        assert_eq!(rig.read(0x8800), 2);
        rig.write(0x6800, 0);
        rig.write(0x8000, 0);
        (rig.atq_next, rig.arq_next) = (0, 0);
        (0..ARQ).for_each(|slot| rig.give_arq(slot));
        let base = rig.iova;
        for (tail, head, bal, bah, len, ring, n) in [
            (0x8400, 0x6400, 0x7c00, 0x7800, 0x6800, ATQ_RING, ATQ),
            (0x7000, 0x7400, 0x6c00, 0x6000, 0x8000, ARQ_RING, ARQ),
        ] {
            rig.write(tail, 0);
            rig.write(head, 0);
            rig.write(bal, (base + ring) as u32);
            rig.write(bah, ((base + ring) >> 32) as u32);
            rig.write(len, n as u32 | 1 << 31);
        }
        rig.write(0x7000, ARQ as u32 - 1);
        rig.negotiate(CAPS);
        arm(&mut rig);
        // Every granted pair, those that are not used with rings of nothing.
        let mut config = rig.queue_config(4, 1);
        for at in [1, 2, 3].map(|q| 8 + 64 * q) {
            config.0[at + 4..at + 24].fill(0);
            config.0[at + 28..at + 64].fill(0);
            config.0[at + 40] = 64;
        }
        rig.done(6, config);
        let map = bytes().u16s(&[1, rig.vsi, 1, 0xf, 0xf, 0, 0]).u8s(&[0; 12]);
        rig.done(7, map);
        rig.write(0x3800, 1 << 30 | 1 << 3 | 2 << 5);
        rig.done(8, bytes().u16s(&[rig.vsi, 0]).u32s(&[0xf, 0xf]));
        works(rig);
    }
}

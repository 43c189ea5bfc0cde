//! The config space of a served model: what a client reads, and which of its writes mean something.
//!
//! Owns 4 KiB of registers with a mask of writable bits beside them. A header, MSI-X and PCI Express capabilities; no
//! extended ones. Offsets and bits are those of the PCI Local Bus Specification 3.0 (6.1, 6.2.5, 6.8.2) and of the PCI
//! Express Base Specification 3.0 (7.8). Bus Master and the reset are the model's business: [`Written`] tells of them.
#![forbid(unsafe_code)]

use crate::mmio::PciId;

/// Bytes of config space.
pub(super) const LEN: usize = 4096;

const COMMAND: usize = 0x04;
/// I/O, Memory, Bus Master, Parity, SERR#, Interrupt Disable.
const COMMAND_BITS: u16 = 0x0547;
const COMMAND_MASTER: u16 = 1 << 2;
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CLASS: usize = 0x09;
/// Network, Ethernet, no programming interface.
const ETHERNET: [u8; 3] = [0, 0, 2];
const BAR0: usize = 0x10;
const BAR3: usize = 0x1c;
/// A memory BAR of 64 bits, prefetchable: what VFs have (fact sheets igbvf 1, iavf 1).
const BAR_TYPE: u32 = 0xc;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;

/// Where the capabilities are: as in QEMU's igbvf (fact sheet igbvf 1).
const MSIX: usize = 0x70;
const MSIX_ID: u8 = 0x11;
/// Function Mask and Enable of Message Control.
const MSIX_CONTROL_BITS: u16 = 0xc000;
/// Table at offset 0 of BAR3, pending bits at 0x2000 (fact sheets igbvf 1, ixgbevf 1).
const MSIX_TABLE: u32 = 3;
const MSIX_PENDING: u32 = 0x2000 | 3;

const EXPRESS: usize = 0xa0;
const EXPRESS_ID: u8 = 0x10;
/// Version 2, an endpoint.
const EXPRESS_ENDPOINT: u16 = 2;
/// Role-based error reporting, function-level reset.
const DEVICE_CAPABILITIES: u32 = 1 << 15 | 1 << 28;
const DEVICE_CONTROL: usize = EXPRESS + 0x08;
const DEVICE_CONTROL_RESET: u16 = 1 << 15;
/// A link of one lane at 2.5 GT/s.
const LINK: u16 = 1 | 1 << 4;

/// What a write asked of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Written {
    /// The Bus Master bit was written, with this.
    pub(super) bus_master: Option<bool>,
    /// Function-level reset.
    pub(super) reset: bool,
}

/// Config space.
pub(super) struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
}

impl ConfigSpace {
    /// The space of a function with these BARs and MSI-X vectors.
    pub(super) fn new(id: PciId, bar0_len: u32, bar3_len: u32, vectors: usize) -> ConfigSpace {
        let mut space = ConfigSpace { bytes: vec![0; LEN], writable: vec![0; LEN] };
        space.put(0, &id.vendor.to_le_bytes(), &[0; 2]);
        space.put(2, &id.device.to_le_bytes(), &[0; 2]);
        space.put(COMMAND, &[0; 2], &COMMAND_BITS.to_le_bytes());
        space.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes(), &[0; 2]);
        space.put(CLASS - 1, &[1], &[0]);
        space.put(CLASS, &ETHERNET, &[0; 3]);
        for (at, len) in [(BAR0, bar0_len), (BAR3, bar3_len)] {
            space.put(at, &BAR_TYPE.to_le_bytes(), &(!(len - 1)).to_le_bytes());
            space.put(at + 4, &[0; 4], &[0xff; 4]);
        }
        space.put(SUBSYSTEM, &id.vendor.to_le_bytes(), &[0; 2]);
        space.put(CAPABILITIES, &[MSIX as u8], &[0]);
        space.put(MSIX, &[MSIX_ID, EXPRESS as u8], &[0; 2]);
        space.put(MSIX + 2, &(vectors as u16 - 1).to_le_bytes(), &MSIX_CONTROL_BITS.to_le_bytes());
        space.put(MSIX + 4, &MSIX_TABLE.to_le_bytes(), &[0; 4]);
        space.put(MSIX + 8, &MSIX_PENDING.to_le_bytes(), &[0; 4]);
        space.put(EXPRESS, &[EXPRESS_ID, 0], &[0; 2]);
        space.put(EXPRESS + 2, &EXPRESS_ENDPOINT.to_le_bytes(), &[0; 2]);
        space.put(EXPRESS + 4, &DEVICE_CAPABILITIES.to_le_bytes(), &[0; 4]);
        space.put(DEVICE_CONTROL, &[0; 2], &(!DEVICE_CONTROL_RESET).to_le_bytes());
        space.put(EXPRESS + 0x0c, &u32::from(LINK).to_le_bytes(), &[0; 4]);
        space.put(EXPRESS + 0x12, &LINK.to_le_bytes(), &[0; 2]);
        space
    }

    fn put(&mut self, at: usize, value: &[u8], writable: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self.writable[at..at + writable.len()].copy_from_slice(writable);
    }

    /// Reads; all ones beyond the end. `bus_master` is what the model says of that bit.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], bus_master: bool) {
        for (i, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).unwrap_or(LEN).saturating_add(i);
            *byte = self.bytes.get(at).copied().unwrap_or(u8::MAX);
            if at == COMMAND {
                *byte = *byte & !(COMMAND_MASTER as u8) | if bus_master { COMMAND_MASTER as u8 } else { 0 };
            }
        }
    }

    /// Writes what can be written.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Written {
        let mut written = Written::default();
        for (i, &byte) in data.iter().enumerate() {
            let at = usize::try_from(offset).unwrap_or(LEN).saturating_add(i);
            let (Some(value), Some(&mask)) = (self.bytes.get_mut(at), self.writable.get(at)) else { break };
            *value = *value & !mask | byte & mask;
            if at == COMMAND {
                written.bus_master = Some(byte & COMMAND_MASTER as u8 != 0);
            }
            written.reset |= at == DEVICE_CONTROL + 1 && byte & (DEVICE_CONTROL_RESET >> 8) as u8 != 0;
        }
        written
    }

    /// A function-level reset: command, MSI-X and device control at their defaults. The BARs keep their addresses,
    /// which nobody here goes by.
    pub(super) fn reset(&mut self) {
        for register in [COMMAND, DEVICE_CONTROL] {
            self.bytes[register..register + 2].fill(0);
        }
        self.bytes[MSIX + 3] &= !(MSIX_CONTROL_BITS >> 8) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(PciId { vendor: 0x8086, device: 0x10ca }, 0x4000, 0x4000, 3)
    }

    fn read(space: &ConfigSpace, offset: u64) -> u32 {
        let mut data = [0; 4];
        space.read(offset, &mut data, true);
        u32::from_le_bytes(data)
    }

    #[test]
    fn the_header_names_an_ethernet_function() {
        let space = space();
        assert_eq!(read(&space, 0), 0x10ca_8086);
        assert_eq!(read(&space, 8), 0x0200_0001);
        assert_eq!(read(&space, LEN as u64 - 2), 0xffff_0000);
        assert_eq!(read(&space, u64::MAX - 1), u32::MAX);
    }

    #[test]
    fn bars_tell_their_size_when_all_ones_are_written() {
        let mut space = space();
        for bar in [BAR0, BAR3] {
            space.write(bar as u64, &[0xff; 8]);
            assert_eq!((read(&space, bar as u64), read(&space, bar as u64 + 4)), (0xffff_c00c, u32::MAX));
        }
        for absent in [0x18, 0x24] {
            space.write(absent, &[0xff; 4]);
            assert_eq!(read(&space, absent), 0);
        }
    }

    #[test]
    fn capabilities_form_a_list_that_ends() {
        let space = space();
        assert_eq!(read(&space, 4) >> 16 & 0x10, 0x10);
        let (mut at, mut ids) = (read(&space, CAPABILITIES as u64) as u8, Vec::new());
        while at != 0 {
            let word = read(&space, u64::from(at));
            ids.push(word as u8);
            at = (word >> 8) as u8;
        }
        assert_eq!(ids, [MSIX_ID, EXPRESS_ID]);
        assert_eq!(read(&space, MSIX as u64) >> 16 & 0x7ff, 2, "the number of vectors less one");
        assert_eq!(read(&space, 0x100), 0, "no extended capabilities");
    }

    #[test]
    fn bus_master_and_the_reset_are_reported_and_the_rest_is_kept() {
        let mut space = space();
        assert_eq!(space.write(4, &[0x06, 0x04]), Written { bus_master: Some(true), reset: false });
        assert_eq!(read(&space, 4) & 0xffff, 0x0406);
        assert_eq!(space.write(4, &[2]).bus_master, Some(false));
        assert_eq!(space.write(DEVICE_CONTROL as u64, &[0x10, 0x80]), Written { bus_master: None, reset: true });
        assert_eq!(read(&space, DEVICE_CONTROL as u64) & 0xffff, 0x0010, "the bit clears itself");
        space.write(MSIX as u64 + 2, &[0xff, 0xff]);
        assert_eq!(read(&space, MSIX as u64) >> 16, 0xc002);
        space.write(0, &[0; 4]);
        assert_eq!(read(&space, 0), 0x10ca_8086);
        space.reset();
        assert_eq!((read(&space, 4) & 0xffff, read(&space, MSIX as u64) >> 16), (0x0004, 2));
    }
}

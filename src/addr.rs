//! Addresses: PCI functions, Ethernet stations and the device's view of memory.
//!
//! Owns parsing and printing of [`PciAddress`], [`MacAddr`] and [`Iova`]. The three are newtypes because all of
//! them are integers that must never be mixed up. Parsing never panics; what does not parse says what would.
#![forbid(unsafe_code)]

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use crate::error::{Error, Result};

/// The address of a PCI function: `domain:bus:device.function`.
///
/// Linux prints at least four hexadecimal digits of the domain; domains of the VMD and Hyper-V drivers are wider
/// than 16 bits, so it is held in 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// PCI domain (segment).
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl PciAddress {
    /// Bus, device and function as the 16 bits that go over the bus.
    #[cfg(feature = "plugin")]
    pub(crate) fn routing_id(self) -> u32 {
        u32::from(self.bus) << 8 | u32::from(self.device) << 3 | u32::from(self.function)
    }
}

impl FromStr for PciAddress {
    type Err = Error;

    /// Parses `0000:3b:02.1`, or `3b:02.1` with domain 0.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::Parse(format!(
                "'{text}' is not a PCI address; expected DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal, like 0000:3b:02.1"
            ))
        };
        let hex = |s: &str, max_digits: usize| -> Option<u32> {
            let plain = !s.is_empty() && s.len() <= max_digits && s.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(s, 16).ok()).flatten()
        };
        let (rest, function) = text.rsplit_once('.').ok_or_else(bad)?;
        let mut parts = rest.rsplit(':');
        let device = parts.next().and_then(|s| hex(s, 2)).ok_or_else(bad)?;
        let bus = parts.next().and_then(|s| hex(s, 2)).ok_or_else(bad)?;
        let domain = match parts.next() {
            Some(s) => hex(s, 8).ok_or_else(bad)?,
            None => 0,
        };
        let function = hex(function, 1).ok_or_else(bad)?;
        if parts.next().is_some() || device > 31 || function > 7 {
            return Err(bad());
        }
        Ok(PciAddress { domain, bus: bus as u8, device: device as u8, function: function as u8 })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

/// An Ethernet station address, in the order in which its bytes go over the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// A locally administered address from the process's source of randomness.
    pub(crate) fn random() -> MacAddr {
        // Every RandomState has keys of its own, so the hash of nothing is a random number.
        let [mut a, b, c, d, e, f, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
        a = a & 0xFC | 0x02;
        MacAddr([a, b, c, d, e, f])
    }

    /// The broadcast address ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// The all-zero address, which stands for "none".
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// True for group addresses (multicast and broadcast): bit 0 of the first byte.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// True for an address that a station may own: neither zero nor a group address.
    pub fn is_valid_station(self) -> bool {
        self != MacAddr::ZERO && !self.is_multicast()
    }
}

impl FromStr for MacAddr {
    type Err = Error;

    /// Parses `52:54:00:12:34:56`; `-` is accepted in place of `:`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Parse(format!("'{text}' is not a MAC address; expected six bytes like 52:54:00:12:34:56"));
        let mut mac = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().ok_or_else(bad)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(MacAddr(mac))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address as the device sees it, translated by the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

impl fmt::Display for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_round_trip() {
        for text in ["0000:3b:02.1", "10000:e1:00.0", "deadbeef:ff:1f.7"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
        assert_eq!("3b:02.1".parse::<PciAddress>().unwrap().to_string(), "0000:3b:02.1");
    }

    #[test]
    fn malformed_pci_addresses_are_refused() {
        for text in [
            "",
            "3b:02",
            "0:3b:02.8",
            "0000:3b:20.0",
            "x:3b:02.1",
            "1:2:3:4.5",
            "+1:02:03.0",
            "0000:3b:02.",
            "123456789:3b:02.1",
        ] {
            let error = text.parse::<PciAddress>().unwrap_err().to_string();
            assert!(error.contains("0000:3b:02.1"), "{error}");
        }
    }

    #[test]
    fn mac_addresses_round_trip_and_bad_ones_are_refused() {
        assert_eq!("52:54:00:12:34:5F".parse::<MacAddr>().unwrap().to_string(), "52:54:00:12:34:5f");
        for text in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "5254:00:12:34:56", "52:54:00:12:34:g6", "52:54:00:12:34:+6"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
        assert!(MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr::ZERO.is_valid_station());
    }
}

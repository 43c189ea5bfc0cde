//! One opened igb or ixgbe virtual function, as far as both families are the same: registers, the mailbox, the address in
//! force, the settings that both PFs take in the same words, and which rings run.
//!
//! Owns the bus. A family's device holds a [`Function`] and adds its registers and its messages; the port framework never
//! sees it. What always holds: a register that reads all ones ends in [`Error::Gone`], and a queue, vector or ring is
//! checked against the part's limits before it becomes an offset or reaches a register.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::interrupts::Interrupts;
use super::mailbox::{Mailbox, Protocol, granted};
use super::request::{MULTICAST_MAX, Request, multicast_hash};
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::{ALL_ONES, Bus, Reg};
use crate::port::device::{Caps, RingPlan, Settings};

/// Intel's PCI vendor id.
pub(crate) const INTEL: u16 = 0x8086;
/// Bytes of a descriptor (fact sheets igbvf 4, ixgbevf 4).
pub(crate) const DESCRIPTOR: u32 = 16;
/// Length of BAR0 in bytes (fact sheets igbvf 1, ixgbevf 1).
const BAR_LEN: u32 = 16 << 10;
/// CTRL or VFCTRL, and its bit that resets the function and clears itself (fact sheets igbvf 2.1, ixgbevf 2.1).
pub(crate) const CTRL: Reg = Reg(0x0000);
pub(crate) const CTRL_RST: u32 = 1 << 26;
/// STATUS or VFSTATUS: the register to flush writes with (the same).
pub(crate) const STATUS: Reg = Reg(0x0008);
/// Alignment of a ring's base in bytes (fact sheets igbvf 4, ixgbevf 4).
const RING_ALIGN: u64 = 128;
/// Highest VLAN id that a station may use (IEEE 802.1Q reserves 4095).
const VID_MAX: u16 = 4094;
/// How long PF reset indications may stay after the function's reset: 200 polls of 5 us (fact sheets igbvf 3.4 step 2,
/// ixgbevf 3.5 step 5).
const RESET_DEADLINE: Duration = Duration::from_millis(1);
const RESET_POLL: Duration = Duration::from_micros(5);

/// Where a family has what this module needs.
pub(crate) struct Layout {
    /// Its mailbox.
    pub(crate) protocol: Protocol,
    /// Its registers of causes.
    pub(crate) interrupts: Interrupts,
    /// Length registers of a queue's receive and transmit rings.
    pub(crate) rdlen: fn(u16) -> Reg,
    pub(crate) tdlen: fn(u16) -> Reg,
    /// Descriptor control of a queue's receive and transmit rings, and the bit of both that says that it runs.
    pub(crate) rxdctl: fn(u16) -> Reg,
    pub(crate) txdctl: fn(u16) -> Reg,
    pub(crate) enable: u32,
    /// Queues per direction that have registers, whether the PF grants them or not.
    pub(crate) queues: u16,
}

/// One opened function.
pub(crate) struct Function<B: Bus> {
    pub(crate) bus: B,
    pub(crate) mailbox: Mailbox,
    pub(crate) caps: Caps,
    /// The address in force.
    pub(crate) mac: MacAddr,
    /// What the PF assigned at the last handshake.
    pub(crate) pf_mac: Option<MacAddr>,
    /// Since the last reset that stopped every queue, none was started.
    pub(crate) silent: bool,
    pub(super) layout: Layout,
    /// What the length registers of each running queue must read; 0 for a queue that is off.
    pub(crate) rx_len: Vec<u32>,
    tx_len: Vec<u32>,
}

impl<B: Bus> Function<B> {
    /// Takes over a function after a look at its BAR. Touches no register.
    pub(crate) fn new(bus: B, layout: Layout, caps: Caps) -> Result<Self> {
        if bus.bar_len() < BAR_LEN {
            let reason = format!("BAR0 has {} bytes instead of {BAR_LEN}; is the PF's driver up?", bus.bar_len());
            return Err(Error::device(bus.name(), reason));
        }
        let queues = usize::from(layout.queues);
        Ok(Function {
            bus,
            mailbox: Mailbox::new(layout.protocol),
            caps,
            mac: MacAddr::ZERO,
            pf_mac: None,
            silent: false,
            layout,
            rx_len: vec![0; queues],
            tx_len: vec![0; queues],
        })
    }

    /// Reads a register that never holds all ones on a living device.
    pub(crate) fn read(&mut self, register: Reg) -> Result<u32> {
        match self.bus.read32(register) {
            ALL_ONES => Err(Error::gone(self.bus.name())),
            value => Ok(value),
        }
    }

    pub(crate) fn write(&mut self, register: Reg, value: u32) {
        self.bus.write32(register, value);
    }

    /// Makes earlier writes effective, and notices a device that is gone (fact sheets igbvf 5.5, ixgbevf 5.5).
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.read(STATUS).map(drop)
    }

    /// Every queue that has registers.
    pub(crate) fn queues(&self) -> std::ops::Range<u16> {
        0..self.layout.queues
    }

    /// An error of this device.
    pub(crate) fn refused(&self, reason: impl Into<String>) -> Error {
        Error::device(self.bus.name(), reason)
    }

    /// An error of whoever asked for something that cannot be.
    pub(crate) fn nonsense(&self, text: impl std::fmt::Display) -> Error {
        Error::Config(format!("{}: {text}", self.bus.name()))
    }

    /// Refuses a queue or vector that the part does not have, before it becomes an offset or a shift.
    pub(crate) fn check_number(&self, what: &str, number: u16, count: u16) -> Result<()> {
        if number < count {
            return Ok(());
        }
        Err(self.nonsense(format!("no {what} {number}: the {} has {count}", self.caps.part)))
    }

    /// Refuses a ring that the part cannot do, before its address reaches a register.
    pub(crate) fn check_ring(&self, ring: &RingPlan, queues: u16, granule: u16) -> Result<()> {
        let Caps { ring_min, ring_max, ring_multiple, .. } = self.caps;
        let fits = ring.queue < queues
            && (ring_min..=ring_max).contains(&ring.entries)
            && ring.entries.is_multiple_of(ring_multiple)
            && ring.base.0.is_multiple_of(RING_ALIGN)
            && ring.buffer_len.is_multiple_of(granule);
        if fits {
            return Ok(());
        }
        Err(self.nonsense(format!(
            "{ring:?} does not fit the {}: {queues} queues, {ring_min} to {ring_max} descriptors in multiples of \
             {ring_multiple}, base aligned to {RING_ALIGN}, buffers in multiples of {granule} bytes",
            self.caps.part
        )))
    }

    // Resets.

    /// Forgets everything that a reset takes away; to be called at the start of one.
    pub(crate) fn forget(&mut self) {
        self.rx_len.fill(0);
        self.tx_len.fill(0);
        self.mailbox.close();
    }

    /// The function reset that comes first, where it is wanted, and what has to be right again before anything else.
    pub(crate) fn begin_reset(&mut self, function_reset: bool) -> Result<()> {
        if function_reset {
            // Without a reset method the family's own has to do.
            self.silent |= self.bus.reset_function()?;
        }
        // FLR and a reset of the PF through sysfs both clear it, and the BARs read 0 until Memory Space is back.
        self.bus.set_bus_master(true)?;
        self.flush()
    }

    /// True once ENABLE of every queue reads 0, within the deadline.
    pub(crate) fn queues_stopped(&mut self, deadline: Duration, poll: Duration) -> Result<bool> {
        let deadline = self.bus.now() + deadline;
        let Layout { rxdctl, txdctl, enable, .. } = self.layout;
        loop {
            let mut bits = 0;
            for n in self.queues() {
                bits |= self.read(rxdctl(n))? | self.read(txdctl(n))?;
            }
            if bits & enable == 0 {
                return Ok(true);
            }
            if self.bus.now() >= deadline {
                return Ok(false);
            }
            self.bus.pause(poll);
        }
    }

    /// Waits until the PF is out of its own reset.
    pub(crate) fn wait_for_pf(&mut self) -> Result<()> {
        let deadline = self.bus.now() + RESET_DEADLINE;
        while self.mailbox.pf_resets(&mut self.bus)? {
            if self.bus.now() >= deadline {
                return Err(Error::timeout(
                    self.bus.name(),
                    "the PF is in reset (RSTI); trying again helps unless its driver is unloaded or its interface down",
                ));
            }
            self.bus.pause(RESET_POLL);
        }
        Ok(())
    }

    /// Shakes hands with the PF and settles which address is in force. Returns the fourth word of the answer.
    pub(crate) fn handshake(&mut self) -> Result<u32> {
        let greeting = self.mailbox.handshake(&mut self.bus)?;
        self.pf_mac = greeting.mac;
        self.mac = match self.pf_mac {
            Some(mac) => mac,
            // A PF forgets an address that its administrator did not set. Ours stays the same for the port's whole life.
            None if self.mac.is_valid_station() => self.mac,
            None => MacAddr::random(),
        };
        Ok(greeting.word3)
    }

    // Rings.

    /// Notes that a queue's ring runs, and the bytes that its length register must read from now on.
    pub(crate) fn ring_runs(&mut self, ring: &RingPlan, receive: bool) {
        let lengths = if receive { &mut self.rx_len } else { &mut self.tx_len };
        if let Some(len) = lengths.get_mut(usize::from(ring.queue)) {
            *len = u32::from(ring.entries) * DESCRIPTOR;
        }
    }

    fn runs(&self) -> bool {
        self.rx_len.iter().chain(&self.tx_len).any(|&len| len != 0)
    }

    /// True while every running queue has the length it was given: a reset of the port or the function clears them.
    pub(crate) fn rings_intact(&mut self) -> Result<bool> {
        let Layout { rdlen, tdlen, .. } = self.layout;
        let mut intact = true;
        for n in self.queues() {
            let i = usize::from(n);
            let (rx, tx) = (self.rx_len[i], self.tx_len[i]);
            if rx != 0 {
                intact &= self.read(rdlen(n))? == rx;
            }
            if tx != 0 {
                intact &= self.read(tdlen(n))? == tx;
            }
        }
        Ok(intact)
    }

    /// What `read` finds in the registers, where running queues vouch for them before and after: those of a function that
    /// was reset or has lost its BARs read 0, which would count as a wrap.
    pub(crate) fn vouched<T>(&mut self, read: impl FnOnce(&mut B) -> T) -> Option<T> {
        if !self.runs() || !matches!(self.rings_intact(), Ok(true)) {
            return None;
        }
        let found = read(&mut self.bus);
        matches!(self.rings_intact(), Ok(true)).then_some(found)
    }

    // Settings.

    /// True when the PF did what was asked, false when it does not permit it.
    pub(crate) fn ask(&mut self, request: Request) -> Result<bool> {
        let [word0] = self.mailbox.request(&mut self.bus, &request)?;
        Ok(granted(word0))
    }

    /// Tells the PF the station address of `settings`, or, where nobody asked for one, the one in force.
    pub(crate) fn restore_mac(&mut self, settings: &Settings) -> Result<()> {
        match settings.mac {
            Some(mac) => self.set_mac(mac),
            // A refusal leaves the PF's address, or ours where the PF has none, in force.
            None => self.ask(Request::set_mac(self.mac)).map(drop),
        }
    }

    /// Tells the PF the largest frame that the MTU of `settings` makes, in bytes.
    pub(crate) fn restore_mtu(&mut self, settings: &Settings, max_frame: u32) -> Result<()> {
        let (mtu, mtu_max, part) = (settings.mtu, self.caps.mtu_max, self.caps.part);
        if mtu > mtu_max {
            return Err(self.nonsense(format!("an MTU of {mtu} is too large; the {part} takes up to {mtu_max}")));
        }
        if !self.ask(Request::max_frame(max_frame))? {
            return Err(self.refused(format!("the PF refused frames for an MTU of {mtu}; ask for a smaller one")));
        }
        Ok(())
    }

    /// Refuses what cannot be the address of a station.
    pub(crate) fn check_mac(&self, mac: MacAddr) -> Result<()> {
        if mac.is_valid_station() { Ok(()) } else { Err(self.nonsense(format!("{mac} is no station address"))) }
    }

    /// Asks for this station address.
    pub(crate) fn set_mac(&mut self, mac: MacAddr) -> Result<()> {
        self.check_mac(mac)?;
        if !self.ask(Request::set_mac(mac))? && self.pf_mac != Some(mac) {
            return Err(self.refused(format!(
                "the PF refused the MAC address {mac}: the host fixed another one; \
                 `ip link set dev PF vf N mac {mac}` on the host"
            )));
        }
        self.mac = mac;
        Ok(())
    }

    /// Adds or removes a VLAN id.
    pub(crate) fn set_vlan(&mut self, vid: u16, on: bool) -> Result<()> {
        if vid > VID_MAX {
            return Err(self.nonsense(format!("VLAN ids are 0 to {VID_MAX}, not {vid}")));
        }
        if !self.ask(Request::vlan(vid, on))? {
            return Err(self.refused(format!(
                "the PF refused VLAN {vid}: the host set a port VLAN on this VF, or the port's filters are in use; \
                 `ip link set dev PF vf N vlan 0` on the host clears the former"
            )));
        }
        Ok(())
    }

    /// Replaces the list of group addresses, as far as the PF takes them. True when it could not take all.
    pub(crate) fn set_multicast(&mut self, list: &[MacAddr], filter_type: u32) -> Result<bool> {
        let mut hashes: Vec<u16> = list.iter().map(|&mac| multicast_hash(mac, filter_type)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        if !self.ask(Request::multicast(&hashes))? {
            return Err(self.refused("the PF refused the list of multicast addresses"));
        }
        Ok(hashes.len() > MULTICAST_MAX)
    }

    /// Asks for an additional unicast address with the family's request.
    pub(crate) fn add_unicast(&mut self, mac: MacAddr, request: Request) -> Result<()> {
        self.check_mac(mac)?;
        if !self.ask(request)? {
            return Err(self.refused(format!(
                "the PF refused the additional address {mac}: it has few filters left, or the host fixed this VF's \
                 address; `ip link set dev PF vf N trust on` on the host helps with the latter"
            )));
        }
        Ok(())
    }
}

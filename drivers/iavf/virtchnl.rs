//! virtchnl: the messages between VF and PF, as bytes.
//!
//! Owns opcodes, capability bits, the layout of every request that the driver sends and of every reply that it reads
//! (fact sheet iavf 4.1 to 4.4). `channel.rs` carries the bytes; `negotiate.rs` and `port.rs` decide what to ask. What
//! always holds: a request has exactly the length that PFs compute from its counts, or they refuse it; parsers are total
//! functions of bytes: a reply may be short, long or a lie, and what comes out is checked here or by the caller.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::addr::MacAddr;

/// What a message asks or tells (fact sheet iavf 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Opcode {
    Version = 1,
    ResetVf = 2,
    GetVfResources = 3,
    ConfigVsiQueues = 6,
    ConfigIrqMap = 7,
    EnableQueues = 8,
    AddEthAddr = 10,
    DelEthAddr = 11,
    AddVlan = 12,
    DelVlan = 13,
    ConfigPromiscuousMode = 14,
    GetStats = 15,
    Event = 17,
    ConfigRssKey = 23,
    ConfigRssLut = 24,
    GetRssHenaCaps = 25,
    SetRssHena = 26,
    EnableVlanStripping = 27,
    DisableVlanStripping = 28,
    RequestQueues = 29,
    GetSupportedRxdids = 44,
    GetOffloadVlanV2Caps = 51,
    AddVlanV2 = 52,
    DelVlanV2 = 53,
    EnableVlanStrippingV2 = 54,
    DisableVlanStrippingV2 = 55,
    EnableVlanInsertionV2 = 56,
    EnableQueuesV2 = 107,
}

bitflags::bitflags! {
    /// What a VF may do: asked for in GET_VF_RESOURCES, granted in its reply (fact sheet iavf 4.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Cap: u32 {
        const L2 = 1 << 0;
        const WB_ON_ITR = 1 << 5;
        const REQ_QUEUES = 1 << 6;
        const ADV_LINK_SPEED = 1 << 7;
        const LARGE_NUM_QPAIRS = 1 << 9;
        const VLAN_V2 = 1 << 15;
        const VLAN = 1 << 16;
        const RSS_PF = 1 << 19;
        const RX_FLEX_DESC = 1 << 26;
        const _ = !0;
    }
}

/// The version that the driver speaks (fact sheet iavf 4.4).
pub(super) const VERSION: (u32, u32) = (1, 1);
/// Type of a VSI that is an SR-IOV VF.
const VSI_SRIOV: i32 = 6;

/// RXDID of the legacy format.
pub(super) const RXDID_LEGACY: u8 = 1;
/// RXDID of the flex format with hash and flow id, comms OVS (fact sheet iavf 5.4).
pub(super) const RXDID_COMMS_OVS: u8 = 22;

/// Hash enable bits: IPv4 and IPv6, fragments and the rest; TCP, UDP and SCTP over both (fact sheet iavf 4.4, HENA).
pub(super) const HENA_WANTED: u64 = 0xFF << 29 | 0xFF << 39;

// Support bits of GET_OFFLOAD_VLAN_V2_CAPS (fact sheet iavf 4.4).
/// TPID 8100.
pub(super) const VLAN_8100: u32 = 0x1;
/// The tag is in L2TAG1.
pub(super) const VLAN_L2TAG1: u32 = 0x100;
/// The tag is in L2TAG2 (of a transmit context).
pub(super) const VLAN_L2TAG2: u32 = 0x200;
/// The tag is in the second L2TAG2 (of a receive descriptor).
pub(super) const VLAN_L2TAG2_2: u32 = 0x400;
/// The VF may switch it on and off.
pub(super) const VLAN_TOGGLE: u32 = 0x8000_0000;
/// The ethertype of TPID 8100.
const TPID_8100: u16 = 0x8100;

/// Most queue pairs of one CONFIG_VSI_QUEUES: what fits 4096 bytes (fact sheet iavf 4.1).
pub(super) const PAIRS_PER_MESSAGE: usize = 62;
/// Most addresses of one ADD_ETH_ADDR.
pub(super) const ADDRESSES_PER_MESSAGE: usize = (4096 - 12) / 8;

/// Role of an address in ADD_ETH_ADDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressType {
    Primary = 1,
    Extra = 2,
}

/// One queue pair to configure; a ring of length 0 is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pair {
    pub queue: u16,
    pub tx_len: u16,
    pub tx_base: u64,
    pub rx_len: u16,
    pub rx_base: u64,
    /// Bytes of a receive buffer.
    pub buffer: u16,
    /// Longest frame to receive, FCS and tags included, in bytes.
    pub max_frame: u16,
    pub rxdid: u8,
}

/// One vector of an IRQ map and the queues on it, as bitmaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VectorMap {
    pub vector: u16,
    pub rx_queues: u16,
    pub tx_queues: u16,
}

/// The payload of a message under construction; fields are little endian.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn each<T: Copy>(self, items: &[T], put: impl Fn(Self, T) -> Self) -> Self {
        items.iter().fold(self, |message, &item| put(message, item))
    }
}

/// VERSION.
pub(super) fn version() -> Vec<u8> {
    Message::default().u32(VERSION.0).u32(VERSION.1).0
}

/// GET_VF_RESOURCES under version 1.1; under 1.0 the message is empty.
pub(super) fn get_vf_resources(caps: Cap) -> Vec<u8> {
    Message::default().u32(caps.bits()).0
}

/// CONFIG_VSI_QUEUES: 72 + 64 n bytes, one unused pair at the end.
pub(super) fn config_vsi_queues(vsi: u16, pairs: &[Pair]) -> Vec<u8> {
    let head = Message::default().u16(vsi).u16(pairs.len() as u16).u32(0);
    let put = |message: Message, pair: Pair| {
        let tx = message.u16(vsi).u16(pair.queue).u16(pair.tx_len).u16(0).u64(pair.tx_base).u64(0);
        let rx = tx.u16(vsi).u16(pair.queue).u32(pair.rx_len.into()).u16(0).u16(0);
        let rx = rx.u32(pair.buffer.into()).u32(pair.max_frame.into());
        // CRC strip disable, RXDID, flags, pad; ring; split position, pad.
        rx.u8(0).u8(pair.rxdid).u8(0).u8(0).u64(pair.rx_base).u32(0).u32(0)
    };
    head.each(pairs, put).zeros(64).0
}

/// CONFIG_IRQ_MAP: 14 + 12 n bytes, one unused vector at the end. Throttle 0 for all.
pub(super) fn config_irq_map(vsi: u16, vectors: &[VectorMap]) -> Vec<u8> {
    let head = Message::default().u16(vectors.len() as u16);
    let put = |m: Message, v: VectorMap| m.u16(vsi).u16(v.vector).u16(v.rx_queues).u16(v.tx_queues).u16(0).u16(0);
    head.each(vectors, put).zeros(12).0
}

/// ENABLE_QUEUES, and with empty bitmaps GET_STATS: 12 bytes.
pub(super) fn select_queues(vsi: u16, rx: u32, tx: u32) -> Vec<u8> {
    Message::default().u16(vsi).u16(0).u32(rx).u32(tx).0
}

/// ENABLE_QUEUES_V2: 8 + 8 n bytes, a chunk for each run of queues.
pub(super) fn select_queues_v2(vsi: u16, rx: u32, tx: u32) -> Vec<u8> {
    let of = |kind: u32, bitmap: u32| runs(bitmap).map(move |run| (kind, run));
    let chunks: Vec<(u32, Range<u16>)> = of(0, tx).chain(of(1, rx)).collect();
    let head = Message::default().u16(vsi).u16(0).u16(chunks.len() as u16).u16(0);
    chunks.iter().fold(head, |m, (kind, run)| m.u32(*kind).u16(run.start).u16(run.end - run.start)).0
}

/// The runs of set bits.
fn runs(bitmap: u32) -> impl Iterator<Item = Range<u16>> {
    let mut at = 0u32;
    std::iter::from_fn(move || {
        let start = at + bitmap.checked_shr(at)?.trailing_zeros();
        let rest = bitmap.checked_shr(start).filter(|&rest| rest != 0)?;
        at = start + rest.trailing_ones();
        Some(start as u16..at as u16)
    })
}

/// ADD_ETH_ADDR and DEL_ETH_ADDR: 12 + 8 n bytes, one unused address at the end.
pub(super) fn addresses(vsi: u16, list: &[MacAddr], kind: AddressType) -> Vec<u8> {
    let head = Message::default().u16(vsi).u16(list.len() as u16);
    head.each(list, |m, mac| m.bytes(&mac.0).u8(kind as u8).u8(0)).zeros(8).0
}

/// ADD_VLAN and DEL_VLAN of one id: 8 bytes, one unused id at the end.
pub(super) fn vlan(vsi: u16, vid: u16) -> Vec<u8> {
    Message::default().u16(vsi).u16(1).u16(vid).zeros(2).0
}

/// ADD_VLAN_V2 and DEL_VLAN_V2 of one id as the outer or the inner tag of TPID 8100: 40 bytes.
pub(super) fn vlan_v2(vsi: u16, vid: u16, outer: bool) -> Vec<u8> {
    let head = Message::default().u16(vsi).u16(1).u32(0).zeros(if outer { 8 } else { 0 });
    head.u16(vid).u16(0).u16(TPID_8100).u16(0).zeros(if outer { 16 } else { 24 }).0
}

/// Switches stripping or insertion of the outer or the inner tag of TPID 8100: 16 bytes.
pub(super) fn vlan_toggle_v2(vsi: u16, outer: bool) -> Vec<u8> {
    let (o, i) = if outer { (VLAN_8100, 0) } else { (0, VLAN_8100) };
    Message::default().u32(o).u32(i).u16(vsi).zeros(6).0
}

/// CONFIG_PROMISCUOUS_MODE: 4 bytes.
pub(super) fn promiscuous(vsi: u16, unicast: bool, multicast: bool) -> Vec<u8> {
    Message::default().u16(vsi).u16(u16::from(unicast) | u16::from(multicast) << 1).0
}

/// CONFIG_RSS_KEY and CONFIG_RSS_LUT: 5 + n bytes, one unused at the end.
pub(super) fn rss_bytes(vsi: u16, bytes: &[u8]) -> Vec<u8> {
    Message::default().u16(vsi).u16(bytes.len() as u16).bytes(bytes).zeros(1).0
}

/// SET_RSS_HENA: 8 bytes.
pub(super) fn rss_hena(bits: u64) -> Vec<u8> {
    Message::default().u64(bits).0
}

/// REQUEST_QUEUES: 2 bytes.
pub(super) fn request_queues(pairs: u16) -> Vec<u8> {
    Message::default().u16(pairs).0
}

// Replies. A field that is not there is `None`.

fn get<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    get(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    get(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    get(bytes, at).map(u64::from_le_bytes)
}

/// The version that the PF agrees to.
pub(super) fn parse_version(reply: &[u8]) -> Option<(u32, u32)> {
    Some((u32_at(reply, 0)?, u32_at(reply, 4)?))
}

/// What GET_VF_RESOURCES granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resources {
    /// Queue pairs of the VSI.
    pub pairs: u16,
    /// MSI-X vectors, the first included.
    pub vectors: u16,
    /// Longest frame of the port in bytes; 0: not said.
    pub max_frame: u16,
    pub caps: Cap,
    /// Bytes of the RSS key, entries of its table.
    pub rss_key: u32,
    pub rss_table: u32,
    /// The number to name the VSI by.
    pub vsi: u16,
    /// The address that the PF assigned, if any.
    pub mac: Option<MacAddr>,
}

/// Reads the first SR-IOV VSI of a reply of 20 + 16 n bytes or more; the error says what is wrong with it.
pub(super) fn parse_resources(reply: &[u8]) -> Result<Resources, &'static str> {
    let short = "a reply to GET_VF_RESOURCES that is too short";
    let count = u16_at(reply, 0).ok_or(short)?;
    let entries = reply.get(20..20 + 16 * usize::from(count)).ok_or(short)?;
    let is_vf = |vsi: &&[u8]| u32_at(vsi, 4) == Some(VSI_SRIOV as u32);
    let vsi = entries.chunks_exact(16).find(is_vf).ok_or("no VSI of an SR-IOV VF")?;
    let field = |at| u32_at(reply, at).ok_or(short);
    let mac = MacAddr(get(vsi, 10).ok_or(short)?);
    let resources = Resources {
        // Whichever of the two is less.
        pairs: u16_at(reply, 2).ok_or(short)?.min(u16_at(vsi, 2).ok_or(short)?),
        vectors: u16_at(reply, 4).ok_or(short)?,
        max_frame: u16_at(reply, 6).ok_or(short)?,
        caps: Cap::from_bits_retain(field(8)?),
        rss_key: field(12)?,
        rss_table: field(16)?,
        vsi: u16_at(vsi, 0).ok_or(short)?,
        mac: Some(mac).filter(|mac| mac.is_valid_station()),
    };
    match resources {
        Resources { pairs: 0, .. } => Err("no queues"),
        Resources { vectors: 0, .. } => Err("no interrupt vectors"),
        _ => Ok(resources),
    }
}

/// The bitmap of receive descriptor formats.
pub(super) fn parse_u64(reply: &[u8]) -> Option<u64> {
    u64_at(reply, 0)
}

/// Outer and inner support bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Support {
    pub outer: u32,
    pub inner: u32,
}

/// Which of a frame's tags an offload is about, and what the PF can do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub outer: bool,
    pub bits: u32,
}

impl Support {
    /// The outer tag where the PF can handle TPID 8100 there, or else the inner one.
    pub(super) fn tag(self) -> Option<Tag> {
        let tags = [Tag { outer: true, bits: self.outer }, Tag { outer: false, bits: self.inner }];
        tags.into_iter().find(|tag| tag.bits & VLAN_8100 != 0)
    }
}

/// The reply to GET_OFFLOAD_VLAN_V2_CAPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VlanCaps {
    pub filtering: Support,
    pub stripping: Support,
    pub insertion: Support,
}

pub(super) fn parse_vlan_caps(reply: &[u8]) -> Option<VlanCaps> {
    u32_at(reply, 36)?; // 40 bytes
    let support = |at| Some(Support { outer: u32_at(reply, at)?, inner: u32_at(reply, at + 4)? });
    Some(VlanCaps { filtering: support(0)?, stripping: support(16)?, insertion: support(24)? })
}

/// The counters of GET_STATS; PFs send 12 or 13.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub rx_bytes: u64,
    pub rx_unicast: u64,
    pub rx_multicast: u64,
    pub rx_broadcast: u64,
    /// Received frames of these that found no buffer.
    pub rx_discards: u64,
    pub tx_bytes: u64,
    pub tx_unicast: u64,
    pub tx_multicast: u64,
    pub tx_broadcast: u64,
}

pub(super) fn parse_stats(reply: &[u8]) -> Option<Stats> {
    u64_at(reply, 88)?; // 96 bytes or more
    let field = |n: usize| u64_at(reply, 8 * n);
    Some(Stats {
        rx_bytes: field(0)?,
        rx_unicast: field(1)?,
        rx_multicast: field(2)?,
        rx_broadcast: field(3)?,
        rx_discards: field(4)?,
        tx_bytes: field(6)?,
        tx_unicast: field(7)?,
        tx_multicast: field(8)?,
        tx_broadcast: field(9)?,
    })
}

/// What the PF says unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The link changed; speed in Mb/s.
    Link { up: bool, speed_mbps: u32 },
    /// The PF is about to reset this VF, or its driver goes.
    ResetImpending,
    /// Something else.
    Other,
}

/// Reads an event. `advanced`: the PF granted ADV_LINK_SPEED, so speeds are in Mb/s and not bits.
pub(super) fn parse_event(payload: &[u8], advanced: bool) -> Event {
    let (Some(code), Some(speed), Some(&up), Some(_)) =
        (u32_at(payload, 0), u32_at(payload, 4), payload.get(8), u32_at(payload, 12))
    else {
        return Event::Other;
    };
    match code {
        1 => Event::Link { up: up != 0, speed_mbps: if advanced { speed } else { speed_of_bit(speed) } },
        2 | 3 => Event::ResetImpending,
        _ => Event::Other,
    }
}

/// The speed that a bit stands for, in Mb/s; 0 for none or several.
fn speed_of_bit(bit: u32) -> u32 {
    match bit {
        0x01 => 2500,
        0x02 => 100,
        0x04 => 1000,
        0x08 => 10_000,
        0x10 => 40_000,
        0x20 => 20_000,
        0x40 => 25_000,
        0x80 => 5000,
        _ => 0,
    }
}

/// A status as text. PFs send values outside the list, too.
pub(super) fn status_text(status: i32) -> String {
    let text = match status {
        -5 => "bad parameter",
        -18 => "no memory",
        -38 => "opcode mismatch",
        -39 => "CQP error",
        -40 => "invalid VF id",
        -53 => "admin queue error",
        -64 => "not supported",
        _ => return format!("status {status}"),
    };
    format!("status {status}, {text}")
}

/// Every parser on the same bytes, for fuzzing.
#[cfg(any(fuzzing, test))]
pub fn parse_anything(payload: &[u8]) {
    let _ = (parse_version(payload), parse_resources(payload), parse_u64(payload));
    let _ = (parse_vlan_caps(payload).map(|caps| caps.stripping.tag()), parse_stats(payload));
    let _ = [false, true].map(|advanced| parse_event(payload, advanced));
    let _ = status_text(u32_at(payload, 0).unwrap_or(0) as i32);
}

//! Memory that a device may touch, and the packets in it.
mod info;
mod region;

pub use info::{Checksum, L4, PacketType, RxInfo, TxInfo};
pub use region::HugeRegion;

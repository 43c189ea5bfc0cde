//! The kernel's back end: a VF bound to vfio-pci, through VFIO groups and a type1v2 container.
//!
//! [`VfioBus`] is all that the rest of the crate sees. Below it: `ioctl` has every call into VFIO and nothing else,
//! `info` takes the kernel's answers apart, `container` owns groups, containers and mappings, `iova` chooses addresses,
//! `device` owns an open function with its BAR, and `explain` has the texts of what can go wrong.
//!
//! `user` is the other back end: a device that another process serves over vfio-user.
//!
//! The life of a device of the kernel, in this order and undone in the reverse:
//!
//! 1. sysfs is asked whether it can work at all: a VF, on vfio-pci, in an IOMMU group.
//! 2. The group is opened (once per process) and found viable.
//! 3. It joins a container of the process, or becomes the first of a new one.
//! 4. The device is opened, BAR0 mapped, error and request notifications connected.
//! 5. Memory is mapped by region, counted per container.

mod bus;
mod container;
mod device;
mod explain;
mod info;
mod ioctl;
mod iova;
#[cfg(feature = "vfio-user")]
mod user;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub(crate) use bus::VfioBus;
#[cfg(feature = "vfio-user")]
pub(crate) use user::VfioUserBus;
#[cfg(all(feature = "vfio-user", any(fuzzing, test)))]
pub use user::parse_anything;

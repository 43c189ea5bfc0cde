//! What an administrator does in the guest: make VFs, give them addresses, bind them, reserve hugepages, disturb them.
//!
//! Devices are named by their PCI address as sysfs writes it ("0000:01:10.0"), PF netdevs by name ("eth0").

use super::error::{Error, Result};
use super::guest::Guest;
use super::net::Mac;
use std::time::Duration;

/// For what the kernel does within milliseconds.
const SOON: Duration = Duration::from_secs(30);

/// The PF of QEMU's igb negotiates for 1 to 2 s after it was brought up.
const LINK_TIMEOUT: Duration = Duration::from_secs(60);

const DEVICES: &str = "/sys/bus/pci/devices";

/// The command, run by user "guest" (1000) with no capability. `memlock_kib` is its RLIMIT_MEMLOCK.
pub fn unprivileged(command: &str, memlock_kib: Option<u64>) -> String {
    let limit = memlock_kib.map(|kib| format!("ulimit -l {kib}; ")).unwrap_or_default();
    format!("{limit}exec /bin/setpriv --reuid 1000 --regid 1000 --clear-groups {command}")
}

/// The command, run by root without CAP_IPC_LOCK, so that RLIMIT_MEMLOCK binds it: what a container gives.
pub fn memlock_limited(command: &str, memlock_kib: u64) -> String {
    format!("ulimit -l {memlock_kib}; exec /bin/setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock {command}")
}

impl Guest {
    /// Makes `count` VFs of a PF and returns their addresses, in order.
    pub fn create_vfs(&self, pf: &str, count: u32) -> Result<Vec<String>> {
        self.sh(&format!("echo {count} >{DEVICES}/{pf}/sriov_numvfs"))?;
        let vfs = self.sh(&format!(
            "for n in $(seq 0 {}); do basename $(readlink {DEVICES}/{pf}/virtfn$n) || exit 1; done",
            count.saturating_sub(1)
        ))?;
        Ok(vfs.lines().map(str::to_owned).collect())
    }

    /// Gives a VF its administrative MAC address, which its PF then insists on.
    pub fn set_vf_mac(&self, pf_netdev: &str, vf: u32, mac: Mac) -> Result<()> {
        self.sh(&format!("/bin/ip link set {pf_netdev} vf {vf} mac {mac}")).map(drop)
    }

    /// The name of a device's network interface, waiting for it to appear.
    pub fn netdev(&self, address: &str) -> Result<String> {
        self.wait_until(&format!("ls {DEVICES}/{address}/net/*"), SOON)?;
        self.sh(&format!("ls {DEVICES}/{address}/net"))
    }

    /// The driver a device is bound to.
    pub fn driver(&self, address: &str) -> Result<Option<String>> {
        let name = self.sh(&format!("basename \"$(readlink {DEVICES}/{address}/driver)\""))?;
        Ok((!name.is_empty()).then_some(name))
    }

    /// The number of a device's IOMMU group.
    pub fn iommu_group(&self, address: &str) -> Result<u32> {
        let text = self.sh(&format!("basename \"$(readlink {DEVICES}/{address}/iommu_group)\""))?;
        text.parse().map_err(|_| Error::new(format!("{address} has no IOMMU group in the guest")))
    }

    /// The devices of an IOMMU group.
    pub fn group_members(&self, group: u32) -> Result<Vec<String>> {
        let text = self.sh(&format!("ls /sys/kernel/iommu_groups/{group}/devices"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Unbinds a device from its driver, if it has one, and binds it to another one by driver override.
    pub fn bind(&self, address: &str, driver: &str) -> Result<()> {
        self.unbind(address)?;
        self.sh(&format!(
            "echo {driver} >{DEVICES}/{address}/driver_override && echo {address} >/sys/bus/pci/drivers_probe"
        ))?;
        match self.driver(address)? {
            Some(bound) if bound == driver => Ok(()),
            other => Err(Error::new(format!(
                "{address} should be bound to {driver} and is bound to {other:?}\n{}",
                self.dmesg()?
            ))),
        }
    }

    /// Unbinds a device from its driver, if it has one.
    pub fn unbind(&self, address: &str) -> Result<()> {
        self.sh(&format!("cd {DEVICES}/{address}; [ ! -e driver ] || echo {address} >driver/unbind")).map(drop)
    }

    /// Binds a device to vfio-pci and waits for its group's node; the number of the group.
    pub fn bind_vfio(&self, address: &str) -> Result<u32> {
        self.bind(address, "vfio-pci")?;
        let group = self.iommu_group(address)?;
        self.wait_until(&format!("[ -c /dev/vfio/{group} ]"), SOON)?;
        Ok(group)
    }

    /// Reserves hugepages of 2 MiB, all of `count` or an error.
    pub fn hugepages(&self, count: u32) -> Result<()> {
        let got = self.sh(&format!("echo {count} >/proc/sys/vm/nr_hugepages; cat /proc/sys/vm/nr_hugepages"))?;
        if got != count.to_string() {
            return Err(Error::new(format!("the guest reserved {got} of {count} hugepages: give it more memory")));
        }
        Ok(())
    }

    /// Hugepages of 2 MiB that nobody uses.
    pub fn free_hugepages(&self) -> Result<u32> {
        let text = self.sh("cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")?;
        text.parse().map_err(|_| Error::new(format!("not a number of hugepages: {text:?}")))
    }

    /// Takes an interface down. For a PF, that is a reset for its VFs.
    pub fn link_down(&self, netdev: &str) -> Result<()> {
        self.sh(&format!("/bin/ip link set {netdev} down")).map(drop)
    }

    /// Brings an interface up and waits for its carrier.
    pub fn link_up(&self, netdev: &str) -> Result<()> {
        self.sh(&format!("/bin/ip link set {netdev} up"))?;
        self.wait_carrier(netdev)
    }

    /// Waits until an interface that is up has a carrier.
    pub fn wait_carrier(&self, netdev: &str) -> Result<()> {
        self.wait_until(&format!("[ \"$(cat /sys/class/net/{netdev}/carrier 2>/dev/null)\" = 1 ]"), LINK_TIMEOUT)
    }

    /// A PF reset as its netdev sees it: down, and up again with a carrier.
    pub fn bounce_pf(&self, netdev: &str) -> Result<()> {
        self.link_down(netdev)?;
        self.link_up(netdev)
    }

    /// A function reset through sysfs. Of a PF, it takes bus mastering from its VFs, whose registers then read 0 until
    /// the PF's netdev has gone down and up.
    pub fn sysfs_reset(&self, address: &str) -> Result<()> {
        self.sh(&format!("echo 1 >{DEVICES}/{address}/reset")).map(drop)
    }

    /// The largest payload of an interface.
    pub fn set_mtu(&self, netdev: &str, mtu: u32) -> Result<()> {
        self.sh(&format!("/bin/ip link set {netdev} mtu {mtu}")).map(drop)
    }
}

//! The back end on the fake kernel: order of calls, sharing, undoing, and what a driver sees through [`Bus`].

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::bus::VfioBus;
use super::container::Registry;
use super::fake::FakeKernel;
use super::ioctl;
use crate::addr::{Iova, PciAddress};
use crate::error::{Error, Result};
use crate::mem::{HugeRegion, Pages};
use crate::mmio::{ALL_ONES, Bus, Reg};
use crate::pci::fake::FakeSysfs;

const PF: &str = "0000:01:00.0";
const VF0: &str = "0000:01:10.0";
const VF1: &str = "0000:01:10.2";
const MSIX: u32 = 2;
const ERR: u32 = 3;
const REQ: u32 = 4;
const COMMAND: u64 = 4;

/// Two VFs of one PF, each in a group of its own: 5 and 6.
struct Rig {
    kernel: FakeKernel,
    sysfs: FakeSysfs,
    registry: Registry<FakeKernel>,
}

impl Rig {
    fn new() -> Rig {
        let sysfs = FakeSysfs::new();
        sysfs.pf(PF, "8086:10c9", 8, 2).driver(PF, "igb").group(PF, 14);
        let kernel = FakeKernel::new();
        for (index, (vf, group)) in [(VF0, 5), (VF1, 6)].into_iter().enumerate() {
            sysfs.vf(vf, "8086:10ca", PF, index as u32).driver(vf, "vfio-pci").group(vf, group);
            kernel.add(vf, group);
        }
        Rig { registry: Registry::new(kernel.clone()), kernel, sysfs }
    }

    fn open(&self, address: &str) -> Result<VfioBus<FakeKernel>> {
        VfioBus::open_in(&self.registry, &self.sysfs.root(), address.parse::<PciAddress>().unwrap())
    }

    /// The text of the refusal, which is one line about the device.
    fn refusal(&self, address: &str) -> String {
        let Err(error) = self.open(address) else { panic!("{address} opened") };
        let text = error.to_string();
        assert!(text.starts_with(address) && !text.contains('\n'), "{text}");
        text
    }
}

fn region(bytes: usize) -> Arc<HugeRegion> {
    Arc::new(HugeRegion::allocate(bytes, Pages::Ordinary, None).unwrap())
}

fn calls(log: &[String], prefix: &str) -> usize {
    log.iter().filter(|call| call.starts_with(prefix)).count()
}

#[test]
fn a_device_opens_and_closes_in_order() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    assert_eq!(
        rig.kernel.take_log(),
        [
            "open group 5",
            "group_status 5",
            "open container",
            "api_version 0",
            "has_extension 0 3",
            "set_container 5 0",
            "set_iommu 0 3",
            "iommu_info 0",
            "device 5 0000:01:10.0",
            "device_info",
            "region_info 0",
            "region_info 7",
            "irq_info 2",
            "irq_info 3",
            "set_irqs 3 x1",
            "irq_info 4",
            "set_irqs 4 x1",
        ]
    );
    assert_eq!((bus.name(), bus.bar_len(), bus.vectors(), bus.is_model()), (VF0, 0x4000, 3, false));
    assert_eq!((bus.id().to_string(), bus.numa_node()), ("8086:10ca".into(), None));
    let memory = region(8192);
    let iova = bus.map_dma(&memory).unwrap();
    bus.set_bus_master(true).unwrap();
    drop(bus);
    assert_eq!(
        rig.kernel.take_log(),
        [
            format!("map_dma 0 {iova}"),
            // By then no device of the container masters the bus.
            format!("unmap_dma 0 {iova} masters=0"),
            "close device 0000:01:10.0".into(),
            "close group 5".into(),
            "close container 0".into(),
        ]
    );
    rig.kernel.assert_clean();
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn whatever_call_fails_an_open_leaves_nothing_behind() {
    let mut failures = 0;
    for at in 0.. {
        let rig = Rig::new();
        rig.kernel.state().fail_call = Some((at, libc::EIO));
        match rig.open(VF0) {
            Ok(bus) => drop(bus),
            Err(error) => {
                failures += 1;
                let text = error.to_string();
                assert!(text.starts_with(VF0) && !text.contains('\n'), "call {at}: {text}");
            }
        }
        rig.kernel.assert_clean();
        // It can be tried again: nothing remembers the failure.
        rig.kernel.state().fail_call = None;
        let reached = at < calls(&rig.kernel.take_log(), "");
        drop(rig.open(VF0).unwrap());
        rig.kernel.assert_clean();
        if !reached {
            break;
        }
    }
    // All calls but the questions whether error and request notification exist.
    assert_eq!(failures, 17 - 2);
}

#[test]
fn the_ports_of_a_process_share_a_container_and_its_mappings() {
    let rig = Rig::new();
    let (mut first, mut second) = (rig.open(VF0).unwrap(), rig.open(VF1).unwrap());
    let log = rig.kernel.take_log();
    assert_eq!((calls(&log, "open container"), calls(&log, "set_iommu"), calls(&log, "set_container 6 0")), (1, 1, 1));
    let memory = region(4096);
    let iova = first.map_dma(&memory).unwrap();
    assert_eq!(first.map_dma(&memory).unwrap(), iova);
    assert_eq!(second.map_dma(&memory).unwrap(), iova);
    first.unmap_dma(&memory).unwrap();
    first.unmap_dma(&memory).unwrap();
    let log = rig.kernel.take_log();
    assert_eq!((calls(&log, "map_dma"), calls(&log, "unmap_dma")), (1, 0));
    // What a bus did not map it cannot unmap, whoever else did.
    assert!(first.unmap_dma(&memory).unwrap_err().to_string().contains(VF0));
    second.unmap_dma(&memory).unwrap();
    assert_eq!(calls(&rig.kernel.take_log(), "unmap_dma"), 1);
    assert_eq!(Arc::strong_count(&memory), 1);
    // The container outlives the device that made it.
    drop(first);
    assert_eq!(second.map_dma(&memory).unwrap(), iova);
    drop(second);
    rig.kernel.assert_clean();
}

#[test]
fn dropping_a_bus_takes_back_its_own_mappings_only() {
    let rig = Rig::new();
    let (mut first, mut second) = (rig.open(VF0).unwrap(), rig.open(VF1).unwrap());
    let (shared, own) = (region(4096), region(4096));
    for _ in 0..2 {
        first.map_dma(&shared).unwrap();
    }
    first.map_dma(&own).unwrap();
    second.map_dma(&shared).unwrap();
    drop(first);
    assert_eq!(rig.kernel.state().containers[&0].mappings.len(), 1);
    assert_eq!((Arc::strong_count(&own), Arc::strong_count(&shared)), (1, 3));
    drop(second);
    rig.kernel.assert_clean();
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[test]
fn a_group_that_cannot_join_gets_a_container_of_its_own() {
    let rig = Rig::new();
    rig.kernel.state().groups.get_mut(&6).unwrap().iommu = 1;
    let (mut first, mut second) = (rig.open(VF0).unwrap(), rig.open(VF1).unwrap());
    let log = rig.kernel.take_log();
    assert_eq!((calls(&log, "open container"), calls(&log, "set_iommu")), (2, 2));
    let memory = region(4096);
    first.map_dma(&memory).unwrap();
    second.map_dma(&memory).unwrap();
    assert_eq!(calls(&rig.kernel.take_log(), "map_dma"), 2);
    drop(first);
    assert_eq!(rig.kernel.state().containers[&1].mappings.len(), 1);
    drop(second);
    rig.kernel.assert_clean();
}

#[test]
fn a_group_is_opened_once_for_all_its_devices() {
    let rig = Rig::new();
    rig.kernel.add(VF1, 5);
    rig.sysfs.group(VF1, 5);
    let (first, second) = (rig.open(VF0).unwrap(), rig.open(VF1).unwrap());
    assert_eq!(calls(&rig.kernel.take_log(), "open group"), 1);
    drop(first);
    assert!(rig.kernel.state().groups[&5].open);
    drop(second);
    rig.kernel.assert_clean();
}

#[test]
fn a_function_is_open_once_and_again_when_its_last_doorbell_is_gone() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    let doorbell = bus.doorbell(Reg(0x2818)).unwrap();
    assert!(rig.refusal(VF0).contains("open in this process already"));
    drop(bus);
    // The queue that holds it may still write: it must hit the old device, mapped and open, and nothing else.
    assert!(rig.refusal(VF0).contains("queue"));
    doorbell.ring(77);
    assert_eq!(rig.kernel.state().devices[VF0].register(0x2818), 77);
    drop(doorbell);
    rig.kernel.assert_clean();
    drop(rig.open(VF0).unwrap());
}

#[test]
fn memory_lies_at_its_own_address_where_the_iommu_is_wide_enough() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    let memory = region(3 * 4096);
    assert_eq!(bus.map_dma(&memory).unwrap(), Iova(memory.addr() as u64));
    assert_eq!(rig.kernel.state().containers[&0].mappings, [(memory.addr() as u64, 3 * 4096, memory.addr())]);
}

#[test]
fn a_39_bit_iommu_gets_low_addresses() {
    let rig = Rig::new();
    rig.kernel.state().ranges = vec![(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)];
    let mut bus = rig.open(VF0).unwrap();
    let (a, b) = (region(2 * 4096), region(4096));
    assert!(a.addr() >> 39 != 0, "this machine maps low");
    assert_eq!(bus.map_dma(&a).unwrap(), Iova(0x1000));
    assert_eq!(bus.map_dma(&b).unwrap(), Iova(0x3000));
    bus.unmap_dma(&a).unwrap();
    assert_eq!(bus.map_dma(&a).unwrap(), Iova(0x1000));
    assert_eq!(rig.kernel.state().containers[&0].mappings.len(), 2);
}

#[test]
fn a_group_that_joins_may_narrow_the_ranges() {
    let rig = Rig::new();
    let mut first = rig.open(VF0).unwrap();
    rig.kernel.state().ranges = vec![(0x10_0000, (1 << 39) - 1)];
    let _second = rig.open(VF1).unwrap();
    assert_eq!(first.map_dma(&region(4096)).unwrap(), Iova(0x10_0000));
}

#[test]
fn no_room_and_no_memlock_are_told_and_nothing_is_kept() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    let memory = region(4096);
    rig.kernel.state().fail = Some(("map_dma", libc::ENOMEM));
    let error = bus.map_dma(&memory).unwrap_err().to_string();
    assert!(error.contains("ulimit -l") && !error.contains('\n'), "{error}");
    assert_eq!(Arc::strong_count(&memory), 1);
    rig.kernel.state().fail = None;
    rig.kernel.state().ranges = vec![(0x1000, 0x1fff)];
    let _narrower = rig.open(VF1).unwrap();
    assert!(matches!(bus.map_dma(&region(8192)), Err(Error::Memory(_))));
}

#[test]
fn memory_that_the_kernel_did_not_unmap_is_kept_until_the_container_closes() {
    let rig = Rig::new();
    let (mut first, second) = (rig.open(VF0).unwrap(), rig.open(VF1).unwrap());
    let memory = region(4096);
    first.map_dma(&memory).unwrap();
    rig.kernel.state().fail = Some(("unmap_dma", libc::EIO));
    assert!(first.unmap_dma(&memory).unwrap_err().to_string().contains("kept"));
    assert_eq!(Arc::strong_count(&memory), 2);
    rig.kernel.state().fail = None;
    // An unmap that succeeds for nothing at all is no unmap either.
    let elsewhere = std::mem::take(&mut rig.kernel.state().containers.get_mut(&0).unwrap().mappings);
    first.map_dma(&memory).unwrap();
    assert!(first.unmap_dma(&memory).unwrap_err().to_string().contains("unmapped 0 bytes"));
    assert_eq!(Arc::strong_count(&memory), 2);
    rig.kernel.state().containers.get_mut(&0).unwrap().mappings = elsewhere;
    // Still mapped, so it is used again as it is, and this time it goes.
    first.map_dma(&memory).unwrap();
    assert_eq!(rig.kernel.state().containers[&0].mappings.len(), 1);
    rig.kernel.state().fail = Some(("unmap_dma", libc::EIO));
    drop(first);
    assert_eq!(Arc::strong_count(&memory), 2);
    drop(second);
    assert_eq!(Arc::strong_count(&memory), 1);
    rig.kernel.assert_clean();
}

#[test]
fn memory_of_a_device_that_cannot_be_stopped_stays_mapped() {
    let rig = Rig::new();
    let (mut first, second) = (rig.open(VF0).unwrap(), rig.open(VF1).unwrap());
    let memory = region(4096);
    first.map_dma(&memory).unwrap();
    rig.kernel.state().devices[VF0].set_config(COMMAND, 0xffff);
    drop(first);
    assert_eq!(rig.kernel.state().containers[&0].mappings.len(), 1);
    // Nobody but the container holds it now; it goes after the container has closed.
    let memory = (Arc::downgrade(&memory), drop(memory)).0;
    assert!(memory.upgrade().is_some());
    drop(second);
    assert!(memory.upgrade().is_none());
    rig.kernel.assert_clean();
}

#[test]
fn registers_are_read_and_written_in_bounds_only() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    rig.kernel.state().devices[VF0].set_register(0x3ffc, 0x8086_10ca);
    assert_eq!(bus.read32(Reg(0x3ffc)), 0x8086_10ca);
    bus.write32(Reg(0x1524), 7);
    assert_eq!(rig.kernel.state().devices[VF0].register(0x1524), 7);
    for outside in [0x4000, 0x3ffe, 0x1001, u32::MAX, u32::MAX - 3] {
        assert_eq!(bus.read32(Reg(outside)), ALL_ONES, "{outside:#x}");
        bus.write32(Reg(outside), 1);
        assert!(bus.doorbell(Reg(outside)).is_err(), "{outside:#x}");
    }
    assert_eq!(rig.kernel.state().devices[VF0].register(0x4000), 0);
    assert_eq!(rig.kernel.state().devices[VF0].register(0x1000), 0);
}

#[test]
fn what_may_not_be_mapped_is_reached_through_the_descriptor_but_is_no_doorbell() {
    let rig = Rig::new();
    rig.kernel.state().devices.get_mut(VF0).unwrap().sparse = Some(vec![(0, 0x1000), (0x2000, 0x2000)]);
    let mut bus = rig.open(VF0).unwrap();
    for register in [0x0ffc, 0x1000, 0x1ffc, 0x2000, 0x3ffc] {
        bus.write32(Reg(register), register);
        assert_eq!(rig.kernel.state().devices[VF0].register(register.into()), register);
        rig.kernel.state().devices[VF0].set_register(register.into(), !register);
        assert_eq!(bus.read32(Reg(register)), !register);
        assert_eq!(bus.doorbell(Reg(register)).is_ok(), !(0x1000..0x2000).contains(&register), "{register:#x}");
    }
    bus.doorbell(Reg(0x2818)).unwrap().ring(5);
    assert_eq!(rig.kernel.state().devices[VF0].register(0x2818), 5);
}

#[test]
fn bus_mastering_is_switched_and_other_bits_are_kept() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    let command = || rig.kernel.state().devices[VF0].config(COMMAND);
    rig.kernel.state().devices[VF0].set_config(COMMAND, 0x0400);
    assert!(!bus.bus_master().unwrap());
    bus.set_bus_master(true).unwrap();
    assert_eq!((command(), bus.bus_master().unwrap()), (0x0406, true));
    bus.set_bus_master(false).unwrap();
    assert_eq!(command(), 0x0402);
    rig.kernel.state().devices[VF0].set_config(COMMAND, 0xffff);
    assert!(matches!(bus.bus_master(), Err(Error::Gone { .. })));
    assert!(matches!(bus.set_bus_master(true), Err(Error::Gone { .. })));
    assert_eq!(command(), 0xffff);
}

#[test]
fn vectors_are_connected_in_one_call_and_anew_after_a_disable() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    let eventfds: Vec<_> = (0..4).map(|_| ioctl::eventfd().unwrap()).collect();
    let fds: Vec<BorrowedFd<'_>> = eventfds.iter().map(AsFd::as_fd).collect();
    rig.kernel.take_log();
    // Disabling what is not enabled is nothing.
    bus.connect_vectors(&[]).unwrap();
    bus.connect_vectors(&fds[..3]).unwrap();
    assert_eq!(rig.kernel.take_log(), ["set_irqs 2 x3"]);
    rig.kernel.state().devices[VF0].signal(MSIX);
    assert_eq!(fds.iter().map(|fd| ioctl::was_signalled(*fd)).collect::<Vec<_>>(), [true, true, true, false]);
    bus.connect_vectors(&fds[..2]).unwrap();
    assert_eq!(rig.kernel.take_log(), ["set_irqs 2 x0", "set_irqs 2 x2"]);
    let error = bus.connect_vectors(&fds).unwrap_err().to_string();
    assert!(error.contains("4 interrupt vectors") && error.contains("has 3"), "{error}");
    bus.connect_vectors(&[]).unwrap();
    assert_eq!(rig.kernel.take_log(), ["set_irqs 2 x0"]);
    rig.kernel.state().fail = Some(("set_irqs 2", libc::EIO));
    assert!(bus.connect_vectors(&fds[..1]).is_err());
    rig.kernel.state().fail = None;
    // The failure left them disabled, so there is nothing to disable.
    rig.kernel.take_log();
    bus.connect_vectors(&fds[..1]).unwrap();
    assert_eq!(rig.kernel.take_log(), ["set_irqs 2 x1"]);
}

#[test]
fn a_function_without_reset_says_so() {
    let rig = Rig::new();
    rig.kernel.state().devices.get_mut(VF1).unwrap().can_reset = false;
    let (mut with, mut without) = (rig.open(VF0).unwrap(), rig.open(VF1).unwrap());
    assert!(with.reset_function().unwrap());
    assert_eq!(calls(&rig.kernel.take_log(), "reset"), 1);
    assert!(!without.reset_function().unwrap());
    assert_eq!(calls(&rig.kernel.take_log(), "reset"), 0);
    rig.kernel.state().fail = Some(("reset", libc::EAGAIN));
    assert!(with.reset_function().unwrap_err().to_string().contains("VFIO_DEVICE_RESET"));
}

#[test]
fn errors_and_requests_of_the_kernel_mean_removal_for_good() {
    for index in [ERR, REQ] {
        let rig = Rig::new();
        let mut bus = rig.open(VF0).unwrap();
        assert!(!bus.removal_requested());
        rig.kernel.state().devices[VF0].signal(index);
        assert!(bus.removal_requested());
        assert!(bus.removal_requested());
    }
}

#[test]
fn time_passes() {
    let rig = Rig::new();
    let mut bus = rig.open(VF0).unwrap();
    let before = bus.now();
    let pause = std::time::Duration::from_millis(2);
    bus.pause(pause);
    assert!(bus.now() - before >= pause);
}

#[test]
fn refusals_of_group_and_container_teach() {
    let rig = Rig::new();
    rig.kernel.state().groups.get_mut(&5).unwrap().viable = false;
    rig.sysfs.group(PF, 5);
    let text = rig.refusal(VF0);
    assert!(text.contains("not viable") && text.contains("0000:01:00.0 is bound to igb"), "{text}");
    rig.kernel.state().groups.get_mut(&5).unwrap().viable = true;

    for (call, errno, part) in [
        ("open group", libc::ENOENT, "--device /dev/vfio/5"),
        ("open group", libc::EACCES, "sudo chown $USER /dev/vfio/5"),
        ("open group", libc::EBUSY, "fuser -v /dev/vfio/5"),
        ("open container", libc::ENOENT, "modprobe vfio-pci"),
        ("set_iommu", libc::EPERM, "allow_unsafe_interrupts"),
        ("device 5", libc::EACCES, "token"),
    ] {
        rig.kernel.state().fail = Some((call, errno));
        let text = rig.refusal(VF0);
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    rig.kernel.state().fail = None;

    rig.kernel.state().api_version = 1;
    assert!(rig.refusal(VF0).contains("version 1"));
    rig.kernel.state().api_version = 0;
    rig.kernel.state().type1v2 = false;
    assert!(rig.refusal(VF0).contains("modprobe vfio_iommu_type1"));
    rig.kernel.state().type1v2 = true;
    rig.kernel.state().devices.get_mut(VF0).unwrap().bar_len = 0;
    assert!(rig.refusal(VF0).contains("BAR0 of 0 bytes"));
    rig.kernel.assert_clean();
}

#[test]
fn nothing_is_opened_for_a_function_that_cannot_work() {
    let rig = Rig::new();
    assert!(rig.refusal(PF).contains("is a PF"));
    assert!(rig.refusal("0000:09:00.0").contains("no such PCI device"));
    rig.sysfs.driver(VF0, "igbvf");
    assert!(rig.refusal(VF0).contains("driver_override"));
    assert_eq!(rig.kernel.take_log(), [] as [String; 0]);
}

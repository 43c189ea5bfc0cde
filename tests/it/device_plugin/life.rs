//! What changes while the plugin runs: kubelet, configuration, VFs, and its own end.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vfring_tests::kubelet::{Kubelet, Manner};
use vfring_tests::vm::Result;

use crate::bed::{CONFIG, Host, PF, Plugin, RESOURCE, VFS, ids, names};

/// Repetitions that must leave nothing behind, and how many come before what is left is looked at for the first time.
const REPETITIONS: usize = 100;
const WARM_UP: usize = 20;
/// Resident memory that may be added meanwhile, in KiB: an allocator's pages, and far less than a leak of a connection or
/// of a configuration in each repetition would take.
const GROWTH: usize = 2048;

/// How soon a kubelet must have been noticed: sooner than the silence of one that hung up is.
const NOTICED: Duration = Duration::from_secs(12);

/// What a process holds.
struct Held {
    descriptors: usize,
    resident: usize,
}

impl Held {
    fn by(plugin: &Plugin) -> Held {
        Held { descriptors: plugin.descriptors(), resident: plugin.resident() }
    }

    /// Waits until no more descriptors are open than before, and looks at the memory.
    fn is_held_still(&self, plugin: &Plugin) -> Result<()> {
        plugin.wait("descriptors to be closed", || plugin.descriptors() <= self.descriptors)?;
        let resident = plugin.resident();
        println!(
            "{} descriptors, {} KiB, then {} and {resident}",
            self.descriptors,
            self.resident,
            plugin.descriptors()
        );
        assert!(resident <= self.resident + GROWTH, "{resident} KiB after {} KiB", self.resident);
        Ok(())
    }
}

#[test]
fn a_kubelet_that_comes_late_is_missed_once() -> Result<()> {
    let host = Host::new();
    let plugin = host.start(&[])?;
    plugin.complains("kubelet is not there")?;
    // The socket is served meanwhile, and the plugin looks every 20 ms.
    plugin.wait("the socket", || host.socket().exists())?;
    let kubelet = Kubelet::start(&host.plugins(), Manner { keeps_sockets: true, ..Manner::default() })?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    assert_eq!(plugin.complaints("kubelet is not there"), 1, "{}", plugin.program.evidence());
    // Gone without a trace of its socket, it is missed once more.
    std::fs::remove_file(host.plugins().join("kubelet.sock")).expect("kubelet's socket");
    drop(kubelet);
    plugin.wait("another word", || plugin.complaints("kubelet is not there") == 2)
}

#[test]
fn a_hundred_restarts_of_kubelet_are_survived_and_leave_nothing() -> Result<()> {
    let host = Host::new();
    let plugin = host.start(&[])?;
    let mut held = None;
    for n in 0..REPETITIONS {
        let manner = Manner { dials_later: n % 2 == 1, keeps_sockets: n % 3 == 2, ..Manner::default() };
        let started = Instant::now();
        let kubelet = Kubelet::start(&host.plugins(), manner)?;
        let seen = kubelet.wait_for_healthy(RESOURCE, 4);
        let devices =
            seen.map_err(|error| error.with(format!("restart {n}, {manner:?}")).with(plugin.program.evidence()))?;
        assert_eq!(ids(&devices), VFS);
        // Seen, not guessed from a silence.
        assert!(started.elapsed() < NOTICED, "restart {n}, {manner:?}: {:?}", started.elapsed());
        if n + 1 == WARM_UP {
            held = Some(Held::by(&plugin));
        }
    }
    held.expect("it was looked at").is_held_still(&plugin)
}

#[test]
fn a_kubelet_that_wipes_after_a_registration_is_registered_with_again() -> Result<()> {
    let host = Host::new();
    let plugin = host.start(&[])?;
    plugin.wait("the socket", || host.socket().exists())?;
    // It answers well, then removes the socket; its own stays, so only the plugin's tells.
    let manner = Manner { wipes_after: 1, keeps_sockets: true, ..Manner::default() };
    let kubelet = Kubelet::start(&host.plugins(), manner)?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    plugin.wait("a second registration", || kubelet.registrations().len() >= 2)?;
    assert!(UnixStream::connect(host.socket()).is_ok());
    Ok(())
}

#[test]
fn a_kubelet_that_hangs_up_is_registered_with_again() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    // Its socket stays the same, and so does the plugin's.
    kubelet.hang_up(RESOURCE);
    kubelet.wait_for_healthy(RESOURCE, 4).map_err(|error| error.with(plugin.program.evidence()))?;
    assert_eq!(kubelet.registrations().len(), 2);
    Ok(())
}

#[test]
fn a_hundred_reloads_change_what_is_served_and_leave_nothing() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    // The first two VFs go to a pool of their own, and back.
    let split = r#"{"resourceList": [
        {"resourceName": "first", "selectors": {"pfNames": ["ens802f0#0-1"]}},
        {"resourceName": "intel_sriov_dpdk", "selectors": {"devices": ["1520"]}}]}"#;
    let other = host.plugins().join("intel.com_first.sock");
    let mut held = None;
    for n in 0..REPETITIONS {
        let both = n % 2 == 0;
        host.config(if both { split } else { CONFIG });
        plugin.signal(libc::SIGHUP)?;
        let seen = kubelet.wait_for_healthy(RESOURCE, if both { 2 } else { 4 });
        seen.map_err(|error| error.with(format!("reload {n}")).with(plugin.program.evidence()))?;
        match both {
            true => assert_eq!(ids(&kubelet.wait_for_healthy("intel.com/first", 2)?), VFS[..2]),
            false => plugin.wait("the other socket to go", || !other.exists())?,
        }
        if n + 1 == WARM_UP {
            held = Some(Held::by(&plugin));
        }
    }
    held.expect("it was looked at").is_held_still(&plugin)?;
    // What was served all the time was registered once.
    let again = kubelet.registrations().iter().filter(|request| request.resource_name == RESOURCE).count();
    assert_eq!(again, 1);
    Ok(())
}

#[test]
fn a_changed_file_is_read_without_a_signal_and_a_broken_one_changes_nothing() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    host.config("{\n  \"resourceList\": [,]\n}");
    plugin.complains("line 2 column 20")?;
    plugin.complains("going on with the configuration from before")?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    host.config(&CONFIG.replace("[\"1520\"]", "[\"1520\"], \"pciAddresses\": [\"0000:03:11.4\"]"));
    assert_eq!(ids(&kubelet.wait_for_healthy(RESOURCE, 1)?), ["0000:03:11.4"]);
    // It was served all the time.
    assert_eq!(kubelet.registrations().len(), 1);
    Ok(())
}

#[test]
fn vfs_that_come_and_go_while_they_are_allocated_are_given_whole_or_not_at_all() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    let over = AtomicBool::new(false);
    let (given, refused) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut given, mut refused) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                match kubelet.allocate(RESOURCE, &[VFS[0], VFS[3]]) {
                    Ok(answer) => {
                        given += 1;
                        let hosts: Vec<&str> = answer.devices.iter().map(|node| node.host_path.as_str()).collect();
                        assert_eq!(hosts, ["/dev/vfio/vfio", "/dev/vfio/50", "/dev/vfio/53"]);
                        assert_eq!(answer.envs["PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK"], "0000:03:10.0,0000:03:11.4");
                    }
                    Err(refusal) => {
                        refused += 1;
                        assert!(refusal.text.starts_with(VFS[3]), "{refusal:?}");
                        assert!(refusal.text.contains("cannot be given to a pod"), "{refusal:?}");
                    }
                }
            }
            (given, refused)
        });
        let cycles = || -> Result<()> {
            for _ in 0..20 {
                host.unplug(3);
                let gone = |devices: &[vfring_tests::kubelet::Device]| devices[3].health == "Unhealthy";
                let devices = kubelet.wait_for(RESOURCE, |devices| devices.len() == 4 && gone(devices))?;
                assert!(devices[..3].iter().all(|device| device.health == "Healthy"), "{devices:?}");
                host.plug(3);
                kubelet.wait_for_healthy(RESOURCE, 4)?;
            }
            Ok(())
        };
        let done = cycles();
        over.store(true, Ordering::Relaxed);
        let counts = asking.join().expect("the asking thread");
        done.map(|()| counts)
    })
    .map_err(|error| error.with(plugin.program.evidence()))?;
    println!("{given} allocations were answered, {refused} refused");
    assert!(given > 0 && refused > 0, "{given} given, {refused} refused");
    plugin.complains("0000:03:11.4 is unhealthy: it is gone from the PCI bus")
}

#[test]
fn an_unbound_vf_is_unhealthy_within_5_s_and_back() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    // As it is installed: it looks when it likes to.
    let plugin = host.start(&["--interval=2"])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    for (driver, health) in [(None, "Unhealthy"), (Some("vfio-pci"), "Healthy"), (Some("igbvf"), "Unhealthy")] {
        let changed = Instant::now();
        match driver {
            None => host.tree.remove(VFS[1], "driver"),
            Some(driver) => host.tree.driver(VFS[1], driver),
        };
        kubelet.wait_for(RESOURCE, |devices| devices[1].health == health)?;
        let took = changed.elapsed();
        println!("{driver:?}: {health} after {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}\n{}", plugin.program.evidence());
    }
    Ok(())
}

#[test]
fn what_answers_no_more_and_what_has_lost_its_node_is_unhealthy() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    Plugin::settles();
    host.tree.write_bytes(VFS[0], "config", &[0xff; 64]);
    kubelet.wait_for(RESOURCE, |devices| devices[0].health == "Unhealthy")?;
    plugin.complains("reads all ones")?;
    host.tree.remove(VFS[0], "config").remove_node("51");
    kubelet.wait_for(RESOURCE, |devices| devices[0].health == "Healthy" && devices[1].health == "Unhealthy")?;
    // A spoiled group, with all its members.
    host.tree.node("51").driver(VFS[3], "igbvf").group(VFS[3], 52);
    kubelet.wait_for(RESOURCE, |devices| devices[1].health == "Healthy" && devices[2].health == "Unhealthy")?;
    plugin.complains("its IOMMU group 52 is shared")?;
    plugin.complains("0000:03:11.0 (vfio-pci), 0000:03:11.4 (igbvf)")
}

#[test]
fn an_empty_pool_is_registered_and_fills() -> Result<()> {
    let host = Host::new();
    for index in 0..VFS.len() {
        host.unplug(index);
    }
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    assert_eq!(kubelet.wait_for(RESOURCE, |_| true)?, []);
    plugin.complains("no device yet; `vfring device-plugin explain` says why")?;
    host.plug(2);
    assert_eq!(ids(&kubelet.wait_for_healthy(RESOURCE, 1)?), [VFS[2]]);
    assert_eq!(kubelet.registrations().len(), 1);
    Ok(())
}

#[test]
fn a_pf_that_gets_its_name_later_fills_the_pool_at_once() -> Result<()> {
    let host = Host::new();
    host.config(r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "selectors": {"pfNames": ["ens1"]}}]}"#);
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let _plugin = host.start(&[])?;
    kubelet.wait_for(RESOURCE, <[_]>::is_empty)?;
    Plugin::settles();
    host.tree.interface(PF, "ens1", "a0:36:9f:00:00:01", true);
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    Ok(())
}

#[test]
fn sigterm_ends_the_streams_and_removes_the_sockets() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let host = Host::new();
        let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
        let plugin = host.start(&[])?;
        kubelet.wait_for_healthy(RESOURCE, 4)?;
        plugin.signal(signal)?;
        let ended = plugin.program.end(Duration::from_secs(20))?;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        assert_eq!(names(&host.plugins()), ["kubelet.sock"]);
        // Ended well, not cut off.
        let wait = || Ok(kubelet.ended(RESOURCE));
        let how =
            vfring_tests::vm::poll("the end of the stream", Duration::from_secs(20), Duration::from_millis(5), wait)?;
        assert_eq!(format!("{how:?}"), "Ok");
    }
    Ok(())
}

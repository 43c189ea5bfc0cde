//! Bad input, as a user of the library sees it: one line that names what is wrong, with the numbers or the fix.

use vfring::drivers::sim::World;
use vfring::{Burst, DeviceSpec, MAX_BURST, Mempool, Pages, PciAddress, Port, PortConfig};
use vfring_tests::bed::*;

fn open(text: &str) -> vfring::Result<Port> {
    Port::open(&text.parse::<DeviceSpec>()?, PortConfig::new())
}

#[test]
fn specs_that_mean_nothing() {
    for (text, words) in [
        ("", &["expected"][..]),
        ("eth0", &["eth0", "0000:3b:02.1"]),
        ("0000:3b:02", &["0000:3b:02"]),
        ("0000:3b:20.0", &["0000:3b:20.0"]),
        ("0000:3b:02.8", &["0000:3b:02.8"]),
        ("0000:zz:02.1", &["0000:zz:02.1"]),
        ("0000:3b:02.1\n", &[]),
        ("sim:", &["sim:igbvf"]),
        ("sim:virtio", &["virtio", "sim:igbvf"]),
        ("sim:igbvf?", &[]),
        ("sim:igbvf?part", &["key=value"]),
        ("sim:igbvf?part=82599", &["82599", "82576 or i350"]),
        ("sim:igbvf?speed=10", &["speed", "part", "wire"]),
        ("sim:igbvf?mac=02:00", &["02:00", "none"]),
        ("sim:igbvf?mac=ff:ff:ff:ff:ff:ff", &["ff:ff:ff:ff:ff:ff", "unicast"]),
        ("sim:igbvf?rss=yes", &["yes", "0 or 1"]),
        ("sim:igbvf?wire=fibre", &["fibre", "gen", "sink", "pair:NAME", "tap:IFNAME", "pcap"]),
        ("sim:igbvf?wire=pair:", &["pair"]),
        ("sim:igbvf?size=100", &["size"]),
        ("sim:igbvf?wire=gen&size=59", &["59", "60"]),
        ("sim:igbvf?wire=gen&size=99999", &["99999", "9230"]),
        ("sim:igbvf?wire=gen&rate=-1", &["-1"]),
        ("sim:igbvf?wire=gen&flows=0", &["flows", "0"]),
        ("sim:igbvf?wire=pcap", &["pcap"]),
        ("sim:igbvf?wire=pcap&in=/nowhere/at/all.pcap", &["/nowhere/at/all.pcap"]),
        ("sim:igbvf?wire=tap:a-name-that-is-too-long-for-an-interface", &["interface", "15"]),
        ("sim:igbvf?world=999999999&port=0", &["999999999"]),
        ("sim:igbvf?world=1", &[]),
    ] {
        match open(text) {
            Err(error) => {
                let line = one_line(&error);
                for word in words {
                    assert!(line.to_lowercase().contains(&word.to_lowercase()), "{text:?}: {line}");
                }
            }
            Ok(_) => assert_eq!(text, "sim:igbvf?", "{text:?} was opened"),
        }
    }
    assert_no_violations(&World::shared());
}

#[test]
fn a_third_end_of_a_pair() {
    let spec: DeviceSpec = "sim:igbvf?wire=pair:three".parse().unwrap();
    let ends = [Port::open(&spec, PortConfig::new()).unwrap(), Port::open(&spec, PortConfig::new()).unwrap()];
    let line = one_line(&Port::open(&spec, PortConfig::new()).unwrap_err());
    assert!(line.contains("three") && line.contains("two ends"), "{line}");
    drop(ends);
}

#[test]
fn files_that_are_no_captures() {
    let path = std::env::temp_dir().join(format!("vfring-faults-{}.pcap", std::process::id()));
    for contents in [
        &b""[..],
        b"short",
        &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0],
        b"this is some text, and long enough for a header",
    ] {
        std::fs::write(&path, contents).unwrap();
        let line = one_line(&open(&format!("sim:igbvf?wire=pcap&in={}", path.display())).unwrap_err());
        assert!(line.contains(&path.display().to_string()), "{line}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn functions_that_are_not_there() {
    // Valid, and on no machine: the highest function of the highest bus.
    let address: PciAddress = "ffff:ff:1f.7".parse().unwrap();
    let line = one_line(&Port::open(&DeviceSpec::Pci(address), PortConfig::new()).unwrap_err());
    assert!(line.contains("ffff:ff:1f.7"), "{line}");
}

#[test]
fn resources_that_a_pod_was_not_given() {
    let error = DeviceSpec::from_env("example.com/no_such_resource").unwrap_err();
    let line = one_line(&error);
    assert!(line.contains("PCIDEVICE_EXAMPLE_COM_NO_SUCH_RESOURCE") && line.contains("limits"), "{line}");
}

#[test]
fn bursts_of_nothing_and_of_too_much() {
    for limit in [0, MAX_BURST + 1, usize::MAX] {
        let line = one_line(&Burst::with_limit(limit).unwrap_err());
        assert!(line.contains(&limit.to_string()) && line.contains(&format!("1 to {MAX_BURST}")), "{line}");
    }
    assert_eq!(Burst::with_limit(MAX_BURST).unwrap().limit(), MAX_BURST);
}

#[test]
fn pools_that_cannot_be() {
    let world = world("pools");
    let id = options(PARTS[0], 1).add_to(&world);
    let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
    for buffers in [0, 1, 63, (1 << 24) + 1, u32::MAX] {
        let line = one_line(&Mempool::builder().buffers(buffers).on(&[&port]).unwrap_err());
        assert!(line.contains(&buffers.to_string()) && line.contains("64 to 16777216"), "{line}");
    }
    for room in [0, 63, 16385, u16::MAX] {
        let line = one_line(&Mempool::builder().data_room(room).on(&[&port]).unwrap_err());
        assert!(line.contains(&room.to_string()) && line.contains("64 to 16384"), "{line}");
    }
    // Ordinary pages for nobody in particular, which might be hardware.
    let line = one_line(&Mempool::builder().buffers(64).pages(Pages::Ordinary).on::<Port>(&[]).unwrap_err());
    assert!(line.contains("hugepages"), "{line}");
}

#[test]
fn addresses_that_no_station_can_have() {
    let world = world("addresses");
    let id = options(PARTS[0], 1).add_to(&world);
    for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
        let config = PortConfig::new().mac(text.parse().unwrap());
        let line = one_line(&Port::open(&world.spec(id), config).unwrap_err());
        assert!(line.contains(text), "{line}");
    }
    for text in
        ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "02-00-00-00-00-01-", "0g:00:00:00:00:00", "2:0:0:0:0:1000"]
    {
        let line = one_line(&text.parse::<vfring::MacAddr>().unwrap_err());
        assert!(line.contains(text), "{line}");
    }
}

#[test]
fn interrupts_are_refused_where_vectors_are_missing_or_given() {
    // An igb VF has three vectors for two queues: enough, always.
    let world = world("vectors");
    let id = options(PARTS[0], 1).add_to(&world);
    drop(Port::open(&world.spec(id), PortConfig::new().queues(2, 2).interrupts(true)).unwrap());
    assert_no_violations(&world);
}

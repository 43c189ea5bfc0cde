//! The server against the client of the crate `vfio_user`, which nobody here wrote.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vfio_user::Client;

use super::*;
use crate::spec::DeviceSpec;

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vfring-serve-{name}-{}", std::process::id()))
}

fn server(text: &str, path: &Path) -> Result<Server> {
    match text.parse().unwrap() {
        DeviceSpec::Sim(spec) => Server::bind(&spec, path),
        _ => unreachable!("a model"),
    }
}

/// A server that runs until the test ends.
fn running(name: &str) -> (Arc<Server>, PathBuf) {
    running_model(name, "sim:igbvf")
}

fn running_model(name: &str, spec: &str) -> (Arc<Server>, PathBuf) {
    let path = socket(name);
    let server = Arc::new(server(spec, &path).unwrap());
    let runs = server.clone();
    thread::spawn(move || runs.run());
    (server, path)
}

fn read(client: &mut Client, region: u32, offset: u64) -> u32 {
    let mut data = [0; 4];
    client.region_read(region, offset, &mut data).unwrap();
    u32::from_le_bytes(data)
}

const STATUS: u64 = 0x8;
const EICS: u64 = 0x1520;
const EIMS: u64 = 0x1524;
const BAR0: u32 = vfio::VFIO_PCI_BAR0_REGION_INDEX;
const CONFIG: u32 = vfio::VFIO_PCI_CONFIG_REGION_INDEX;
const MSIX: u32 = vfio::VFIO_PCI_MSIX_IRQ_INDEX;
const EVENTFDS: u32 = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;

#[test]
fn a_client_finds_a_function_and_its_registers() {
    let (_server, path) = running("find");
    let mut client = Client::new(&path).unwrap();
    assert_eq!(read(&mut client, CONFIG, 0), 0x10ca_8086);
    let sizes: Vec<u64> = (0..9).map(|index| client.region(index).unwrap().size).collect();
    assert_eq!(sizes, [0x4000, 0, 0, 0x4000, 0, 0, 0, 4096, 0]);
    assert_eq!(client.get_irq_info(MSIX).unwrap().count, 3);
    assert_eq!(read(&mut client, BAR0, STATUS) & 2, 2, "the link is up");
    assert_eq!(read(&mut client, BAR0, 0x4000), u32::MAX);
    // Bus Master comes from the command register, and goes with a reset.
    client.region_write(CONFIG, 4, &[6, 0]).unwrap();
    assert_eq!(read(&mut client, CONFIG, 4) & 0xffff, 6);
    client.reset().unwrap();
    assert_eq!(read(&mut client, CONFIG, 4) & 0xffff, 0);
}

#[test]
fn the_tails_of_an_adaptive_vf_are_pages_that_the_client_maps() {
    const TX_TAIL: u64 = 0;
    const RX_TAIL: u64 = 0x2000;
    let (_server, path) = running_model("pages", "sim:iavf?part=xl710");
    for _ in 0..2 {
        let mut client = Client::new(&path).unwrap();
        let region = client.region(BAR0).unwrap();
        assert_eq!(region.size, 64 << 10);
        let areas: Vec<_> = region.sparse_areas.iter().map(|area| (area.offset, area.size)).collect();
        assert_eq!(areas, [(TX_TAIL, 4096), (RX_TAIL, 4096)]);
        let shared = region.file_offset.as_ref().unwrap().file().try_clone().unwrap();
        for (tail, value) in [(TX_TAIL + 8, 5u32), (RX_TAIL + 4, 16)] {
            assert_eq!(read(&mut client, BAR0, tail), 0, "a new client gets new pages");
            use std::os::unix::fs::FileExt;
            shared.write_all_at(&value.to_le_bytes(), tail).unwrap();
            assert_eq!(read(&mut client, BAR0, tail), value, "the model reads what the client wrote");
        }
        client.shutdown().unwrap();
    }
}

#[test]
fn a_second_client_finds_nothing_of_the_first() {
    let (server, path) = running("second");
    let memory = memory(8192);
    let mut client = Client::new(&path).unwrap();
    client.dma_map(4096, 0x10_0000, 4096, memory.as_raw_fd()).unwrap();
    client.region_write(BAR0, EIMS, &7u32.to_le_bytes()).unwrap();
    server.world.with(|state| state.env.dma.write(0x10_0ffc, &[1, 2, 3, 4])).unwrap();
    assert_eq!(contents(&memory)[8188..], [1, 2, 3, 4]);
    client.shutdown().unwrap();
    drop(client);
    let mut client = Client::new(&path).unwrap();
    assert_eq!(read(&mut client, BAR0, EIMS), 0);
    assert!(server.world.with(|state| state.env.dma.check(0x10_0000, 1)).is_err());
}

#[test]
fn maps_that_cannot_be_are_refused_and_unmaps_take_what_is_there() {
    let (server, path) = running("maps");
    let memory = memory(8192);
    let mut client = Client::new(&path).unwrap();
    let mapped = |at| server.world.with(|state| state.env.dma.check(at, 4096)).is_ok();
    // This client does not look at the error flag, so the test looks at what became of it.
    client.dma_map(0, 0x10_0000, 12288, memory.as_raw_fd()).unwrap();
    client.dma_map(100, 0x10_0000, 4096, memory.as_raw_fd()).unwrap();
    client.dma_map(u64::MAX - 4095, 0x10_0000, 4096, memory.as_raw_fd()).unwrap();
    assert!(!mapped(0x10_0000));
    client.dma_map(0, 0x10_0000, 8192, memory.as_raw_fd()).unwrap();
    client.dma_unmap(0x10_1000, 4096).unwrap();
    assert!(mapped(0x10_0000) && !mapped(0x10_1000));
}

#[test]
fn interrupts_reach_the_eventfd_of_their_vector() {
    let (server, path) = running("irqs");
    let mut client = Client::new(&path).unwrap();
    let (zero, two) = (memory(8), memory(8));
    // One by one and with a hole, as QEMU does it. A file counts as well as an eventfd: each message is a write.
    client.set_irqs(MSIX, EVENTFDS, 2, 1, &[two.as_raw_fd()]).unwrap();
    client.region_write(BAR0, EIMS, &7u32.to_le_bytes()).unwrap();
    client.region_write(BAR0, EICS, &4u32.to_le_bytes()).unwrap();
    client.set_irqs(MSIX, EVENTFDS, 0, 1, &[zero.as_raw_fd()]).unwrap();
    client.region_write(BAR0, EICS, &1u32.to_le_bytes()).unwrap();
    assert_eq!((contents(&zero)[0], contents(&two)[0]), (1, 1));
    client.set_irqs(MSIX, vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, &[]).unwrap();
    zero.set_len(0).unwrap();
    client.region_write(BAR0, EICS, &1u32.to_le_bytes()).unwrap();
    read(&mut client, BAR0, STATUS);
    assert!(contents(&zero).is_empty());
    assert!(server.world.violations().is_empty(), "{:?}", server.world.violations());
}

#[test]
fn a_socket_is_replaced_only_when_nobody_listens() {
    let path = socket("stale");
    drop(UnixListener::bind(&path).unwrap());
    let first = server("sim:igbvf", &path).unwrap();
    assert!(server("sim:igbvf", &path).err().unwrap().to_string().contains("another process serves"));
    drop(first);
    assert!(!path.exists(), "a server takes its socket with it");
    File::create(&path).unwrap();
    assert!(server("sim:igbvf", &path).err().unwrap().to_string().contains("no socket"));
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_client_that_lies_about_a_length_ends_itself_only() {
    use std::io::Write;
    let (_server, path) = running("lies");
    let mut stream = UnixStream::connect(&path).unwrap();
    // VERSION with a message size below that of its header.
    let mut message = [0u8; 20];
    message[2] = 1;
    message[4] = 3;
    stream.write_all(&message).unwrap();
    let begun = Instant::now();
    assert_eq!(read(&mut Client::new(&path).unwrap(), CONFIG, 0), 0x10ca_8086);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

fn memory(len: u64) -> File {
    // SAFETY: the name is a C string and the flag one of memfd_create(2).
    let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    let file = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    file.set_len(len).unwrap();
    file
}

fn contents(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

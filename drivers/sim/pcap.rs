//! pcap files as a wire: the frames of one file arrive for the VF, what the VF sends goes into another.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

use super::env::Env;
use super::frame::ETHERNET;
use super::model::{Arrival, Model};
use super::wire::WireCounters;
use crate::error::{Error, Result};

/// Frames to receive, and where frames sent go.
pub(super) struct PcapWire {
    input: Vec<Vec<u8>>,
    next: usize,
    again: bool,
    output: Option<PcapWriter<BufWriter<File>>>,
}

impl PcapWire {
    /// Reads all of `input` and creates `output`. With `again`, `input` is received over and over.
    pub(super) fn open(input: Option<&str>, output: Option<&str>, again: bool) -> Result<PcapWire> {
        let input = match input {
            Some(path) => read(path)?,
            None if again => return Err(Error::Config("wire=pcap with loop=1 needs in=FILE".into())),
            None if output.is_none() => return Err(Error::Config("wire=pcap needs in=FILE, out=FILE or both".into())),
            None => Vec::new(),
        };
        let output = match output {
            Some(path) => {
                let file = File::create(path).map_err(|e| Error::os(format!("creating {path}"), e))?;
                let writer = PcapWriter::new(BufWriter::new(file));
                Some(writer.map_err(|e| Error::Config(format!("writing the header of {path}: {e}")))?)
            }
            None => None,
        };
        Ok(PcapWire { input, next: 0, again, output })
    }

    /// The frames that are still to come.
    #[cfg(test)]
    pub(super) fn take_input(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.input)
    }

    /// Writes a frame that the VF sent. A full disk loses frames, as a full recorder would.
    pub(super) fn send(&mut self, frame: &[u8], now: Duration) {
        if let Some(writer) = &mut self.output {
            let _ = writer.write_packet(&PcapPacket::new(now, frame.len() as u32, frame));
        }
    }

    /// Brings frames while the VF has room for them: a recording waits where a live wire would drop.
    pub(super) fn run(
        &mut self,
        limit: usize,
        vf: &mut dyn Model,
        counters: &mut WireCounters,
        env: &mut Env,
    ) -> usize {
        let mut brought = 0;
        while brought < limit {
            if self.next == self.input.len() && self.again {
                self.next = 0;
            }
            let Some(frame) = self.input.get(self.next) else { break };
            if !vf.takes(frame.len()) {
                break;
            }
            let arrival: Arrival = vf.receive(frame, env);
            counters.arrived(arrival, frame.len());
            self.next += 1;
            brought += 1;
        }
        brought
    }
}

fn read(path: &str) -> Result<Vec<Vec<u8>>> {
    let file = File::open(path).map_err(|e| Error::os(format!("opening {path}"), e))?;
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(|e| {
        Error::Config(format!("{path} is no pcap file ({e}); pcapng is converted by `editcap -F pcap`"))
    })?;
    let link = reader.header().datalink;
    if link != DataLink::ETHERNET {
        return Err(Error::Config(format!("{path} holds {link:?} frames; the wire carries Ethernet")));
    }
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let number = frames.len() + 1;
        let packet = packet.map_err(|e| {
            Error::Config(format!("{path} ends or breaks in packet {number} ({e}): the file is truncated"))
        })?;
        if packet.data.len() != packet.orig_len as usize || packet.data.len() < ETHERNET {
            return Err(Error::Config(format!(
                "{path}: packet {number} holds {} of {} bytes; record whole frames (`tcpdump -s 0`)",
                packet.data.len(),
                packet.orig_len
            )));
        }
        frames.push(packet.data.into_owned());
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that no other test uses, removed at the end.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Scratch(std::env::temp_dir().join(format!("vfring-{}-{name}.pcap", std::process::id())))
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_is_written_reads_back_and_a_truncated_file_is_refused() {
        let scratch = Scratch::new("roundtrip");
        let frames = [vec![1u8; 60], vec![2u8; 1514]];
        let mut wire = PcapWire::open(None, Some(scratch.path()), false).unwrap();
        for frame in &frames {
            wire.send(frame, Duration::from_secs(1));
        }
        drop(wire);
        assert_eq!(read(scratch.path()).unwrap(), frames);

        let bytes = std::fs::read(scratch.path()).unwrap();
        std::fs::write(scratch.path(), &bytes[..bytes.len() - 100]).unwrap();
        let error = read(scratch.path()).unwrap_err().to_string();
        assert!(error.contains("packet 2") && error.contains("truncated"), "{error}");
        std::fs::write(scratch.path(), b"not a capture").unwrap();
        assert!(read(scratch.path()).unwrap_err().to_string().contains("no pcap file"));
    }

    #[test]
    #[cfg(feature = "igbvf")]
    fn a_recording_reaches_a_port_that_runs_one_of_its_two_queues() {
        use crate::{Burst, Mempool, Port, PortConfig};

        let scratch = Scratch::new("one-queue");
        let mut wire = PcapWire::open(None, Some(scratch.path()), false).unwrap();
        let mac = crate::MacAddr([2, 0, 0, 0, 0, 0x77]);
        let frames: Vec<Vec<u8>> = (0..3).map(|n| [&mac.0[..], &[n; 54]].concat()).collect();
        frames.iter().for_each(|frame| wire.send(frame, Duration::ZERO));
        drop(wire);

        let spec = format!("sim:igbvf?wire=pcap&in={}&mac={mac}", scratch.path()).parse().unwrap();
        let port = Port::open(&spec, PortConfig::new().queues(1, 1)).unwrap();
        let pool = Mempool::builder().buffers(port.buffers_needed()).on(&[&port]).unwrap();
        let mut started = port.start(&pool).unwrap();
        let (mut cache, mut burst) = (pool.cache(), Burst::new());
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while burst.len() < frames.len() && std::time::Instant::now() < end {
            started.rx[0].burst(&mut cache, &mut burst);
            std::thread::yield_now();
        }
        let received: Vec<Vec<u8>> = burst.iter().map(|packet| packet.to_vec()).collect();
        assert_eq!(received, frames);
    }

    #[test]
    fn a_pcap_wire_without_files_is_refused() {
        assert!(PcapWire::open(None, None, false).is_err());
        assert!(PcapWire::open(None, Some("/nonexistent/x"), false).is_err());
        assert!(PcapWire::open(None, None, true).is_err());
    }
}

//! The example programs as a newcomer runs them: built binaries, their output, their exit codes, their last words.
//!
//! Everything here runs on models, so no rate is judged. What needs a real VF is in the guest tests. Programs that move
//! packets as fast as they can take turns, or they would starve each other.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use vfring_tests::build::{complete_example, example};
use vfring_tests::program::{Ended, Program};
use vfring_tests::vm::{Error, Result, poll};

const SECOND: Duration = Duration::from_secs(1);
/// What a program may take to open models, or to let go of them, on a busy machine.
const PROMPT: Duration = Duration::from_secs(20);

static TURN: Mutex<()> = Mutex::new(());

/// Held by a test whose programs need the processor for themselves.
fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs an example to its end.
fn run(name: &str, arguments: &[&str]) -> Result<Ended> {
    Program::start(&example(name)?, arguments)?.end(60 * SECOND)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The number in front of `unit`, such as 1,234 of "forwarded 1,234 packets".
fn number_after(text: &str, word: &str) -> u64 {
    let rest = text.split_once(word).unwrap_or_else(|| panic!("no {word:?} in:\n{text}")).1;
    let digits: String = rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
    digits.replace(',', "").parse().unwrap_or_else(|_| panic!("no number after {word:?} in:\n{text}"))
}

/// A file in the temporary folder that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("vfring-examples-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("temporary paths are UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The frames of a pcap file, read by hand: a second opinion on what the programs write.
fn frames_of(path: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let big = |at: usize| word(at).swap_bytes();
    let order: &dyn Fn(usize) -> u32 = match word(0) {
        0xa1b2_c3d4 | 0xa1b2_3c4d => &word,
        0xd4c3_b2a1 | 0x4d3c_b2a1 => &big,
        other => panic!("{path}: no pcap file: {other:#x}"),
    };
    assert_eq!(order(20), 1, "link type Ethernet");
    let (mut at, mut frames) = (24, Vec::new());
    while at < bytes.len() {
        let (captured, original) = (order(at + 8) as usize, order(at + 12) as usize);
        assert_eq!(captured, original);
        frames.push(bytes[at + 16..at + 16 + captured].to_vec());
        at += 16 + captured;
    }
    assert_eq!(at, bytes.len());
    frames
}

// --- l2fwd ---------------------------------------------------------------------------------------------------------

#[test]
fn l2fwd_without_options_forwards_and_sums_up() -> Result<()> {
    let _turn = turn();
    let began = Instant::now();
    let ended = run("l2fwd", &["--duration", "2"])?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(began.elapsed() >= 2 * SECOND);
    // A rule that the driver breaks is reported by the models on stderr.
    assert_eq!(ended.stderr, "");
    let text = &ended.stdout;
    assert!(text.starts_with("port 0: sim:igbvf?wire=gen, 82576 VF, MAC 02:"), "{text}");
    // A line a second, or less often on a busy machine.
    let times: Vec<f64> =
        text.lines().filter_map(|line| line.split_once(" s: port 0 (1000 Mb/s): rx ")?.0.parse().ok()).collect();
    assert!(times.first().is_some_and(|first| *first >= 1.0), "{text}");
    let summary = text.split_once("rates on average:\n").expect("a summary").1;
    let rows: Vec<Vec<&str>> = summary.lines().take(3).map(words).collect();
    assert_eq!(rows[0][..3], ["port", "device", "link"]);
    assert_eq!(rows[0][3..], words("rx packets Mpps rx bits tx packets Mpps tx bits drops"));
    let packets = |row: &[&str], column: usize| row[column].replace(',', "").parse::<u64>().expect("a number");
    // port, device, "1000 Mb/s", rx packets, Mpps, "X Mb/s", tx packets, Mpps, "X Mb/s", drops
    let (received, sent, dropped) = (packets(&rows[1], 4), packets(&rows[2], 8), packets(&rows[2], 12));
    assert!(received >= 1000, "{text}");
    assert_eq!(received, sent + dropped, "{text}");
    assert_eq!(number_after(text, "forwarded "), sent);
    assert!(text.contains("a rate is the models' rate, not that of a NIC"), "{text}");
    assert!(text.contains("came back, 0 lost\n"), "{text}");
    Ok(())
}

#[test]
fn ctrl_c_and_sigterm_stop_l2fwd_with_its_summary() -> Result<()> {
    let _turn = turn();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut program = Program::start(&example("l2fwd")?, &["--stats-period", "0.2"])?;
        program.wait_for(" s: port 1", PROMPT)?;
        program.signal(signal)?;
        let ended = program.end(PROMPT)?;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "signal {signal}: {ended:?}");
        assert!(number_after(&ended.stdout, "forwarded ") > 0);
        assert!(ended.stdout.ends_with("came back, 0 lost\n"), "{ended:?}");
    }
    Ok(())
}

#[test]
fn l2fwd_json_is_one_consistent_object() -> Result<()> {
    let _turn = turn();
    let ended = run("l2fwd", &["--duration", "1", "--json"])?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stdout.matches('\n').count(), 1, "one line: {}", ended.stdout);
    assert!(ended.stderr.contains("rates on average"), "the rest goes to stderr: {}", ended.stderr);
    let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
    let number = |value: &Value, path: &str| {
        value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path} in {value:#}"))
    };
    assert_eq!(value["program"], "l2fwd");
    assert_eq!(value["models"], true);
    let seconds = number(&value, "/seconds");
    assert!((1.0..20.0).contains(&seconds), "{value:#}");
    let ports = value["ports"].as_array().expect("a list of ports");
    assert_eq!(ports.len(), 2);
    for side in ["rx", "tx"] {
        let sum: f64 = ports.iter().map(|port| number(port, &format!("/{side}/packets"))).sum();
        assert_eq!(sum, number(&value, &format!("/{side}_packets")));
        for port in ports {
            let (packets, rate) =
                (number(port, &format!("/{side}/packets")), number(port, &format!("/{side}/packets_per_second")));
            // `seconds` has three decimals.
            assert!((rate * seconds - packets).abs() <= packets * 0.002 + 1.0, "{value:#}");
            // Generated frames have 60 bytes, and a device counts the four of the FCS.
            let octets = number(port, &format!("/{side}/octets"));
            assert!(octets % 64.0 == 0.0, "{value:#}");
        }
    }
    for port in ports {
        let reasons = port["drops_by_reason"].as_object().expect("reasons");
        assert_eq!(reasons.values().filter_map(Value::as_f64).sum::<f64>(), number(port, "/drops"));
        assert!(number(port, "/device_counters/tx_packets") <= number(port, "/tx/packets"));
        assert!(number(port, "/device_counters/rx_packets") >= number(port, "/rx/packets"));
        assert_eq!(port["link_up"], true);
    }
    let (received, sent, dropped) =
        (number(&value, "/rx_packets"), number(&value, "/tx_packets"), number(&value, "/drops"));
    assert!(sent > 0.0);
    assert_eq!(received, sent + dropped, "{value:#}");
    assert_eq!(number(&value, "/pool/lost"), 0.0);
    assert_eq!(number(&value, "/pool/available"), number(&value, "/pool/buffers"));
    Ok(())
}

#[test]
fn l2fwd_refreshes_a_table_on_a_terminal() -> Result<()> {
    let _turn = turn();
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: openpty writes the two descriptors; the three null pointers mean "no name, no settings, no size".
    let done = unsafe {
        libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut())
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: openpty has just made both descriptors, and nobody else has them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let mut child = Command::new(example("l2fwd")?)
        .args(["--duration", "3", "--stats-period", "0.25"])
        .stdin(Stdio::null())
        .stdout(theirs)
        .spawn()
        .map_err(Error::during("starting l2fwd"))?;
    let mut seen = Vec::new();
    // Ends with an error (EIO) when the program has closed its end.
    let _ = fs::File::from(ours).read_to_end(&mut seen);
    assert!(child.wait().map_err(Error::during("waiting for l2fwd"))?.success());
    let text = String::from_utf8_lossy(&seen).replace('\r', "");
    let refreshes = text.matches("\x1b[3A\x1b[J").count();
    assert!(refreshes >= 2, "the three lines of the table are drawn over: {text:?}");
    assert!(text.contains("port  device               link"), "{text}");
    assert!(text.contains("came back, 0 lost"), "{text}");
    Ok(())
}

#[test]
fn l2fwd_whose_reader_goes_away_ends_without_a_panic() -> Result<()> {
    let _turn = turn();
    let mut child = Command::new(example("l2fwd")?)
        .args(["--duration", "30", "--stats-period", "0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::during("starting l2fwd"))?;
    let began = Instant::now();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    reader.read_line(&mut line).map_err(Error::during("reading a line"))?;
    drop(reader);
    let output = child.wait_with_output().map_err(Error::during("waiting for l2fwd"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.as_ref()), (Some(1), "l2fwd: Broken pipe (os error 32)\n"));
    assert!(began.elapsed() < 15 * SECOND);
    Ok(())
}

#[test]
fn flows_spread_over_queues_with_a_thread_each() -> Result<()> {
    let _turn = turn();
    for (model, queues) in
        [("ixgbevf?part=x550&queues=4", 4), ("ixgbevf?part=x550&queues=8", 8), ("iavf?part=e810&queues=16", 16)]
    {
        let port = format!("sim:{model}&wire=gen&flows=256&rate=20000");
        let number = queues.to_string();
        for symmetric in [false, true] {
            let mut arguments =
                vec!["--queues", &number, "--port", &port, "--port", &port, "--duration", "2", "--json"];
            arguments.extend(symmetric.then_some("--symmetric-rss"));
            let ended = run("l2fwd", &arguments)?;
            assert_eq!(ended.code, 0, "{ended:?}");
            assert!(ended.stderr.contains(&format!("\n{queues} threads, bursts of 32")), "{}", ended.stderr);
            let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
            for port in value["ports"].as_array().expect("ports") {
                for side in ["rx", "tx"] {
                    let counts: Vec<u64> = port[side]["queue_packets"]
                        .as_array()
                        .map(|counts| counts.iter().filter_map(Value::as_u64).collect())
                        .unwrap_or_default();
                    let all = port[side]["packets"].as_u64().unwrap_or_default();
                    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (queues, all), "{value:#}");
                    // 256 flows: no queue has less than a quarter of its share.
                    assert!(all > 1000 && counts.iter().all(|n| n * 4 * queues as u64 > all), "{side} {counts:?}");
                }
            }
            assert_eq!(value["pool"]["lost"], 0);
        }
    }
    // Refused, with the reason: one queue granted, a key and table that are the PF's, more queues than a table can mean.
    let one = ["--port", "sim:ixgbevf?part=x550&queues=1", "--queues", "2"];
    refused("l2fwd", &one, &["2 receive queues were asked for", "has 1"])?;
    let theirs = ["--port", "sim:ixgbevf?part=82599&queues=4", "--queues", "4", "--symmetric-rss"];
    refused("l2fwd", &theirs, &["symmetric RSS", "82599 VF"])?;
    let three = ["--port", "sim:ixgbevf?part=82599&queues=4", "--queues", "3"];
    refused("l2fwd", &three, &["3 receive queues", "power of two"])
}

#[test]
fn two_queues_on_two_threads() -> Result<()> {
    let _turn = turn();
    let spec = "sim:igbvf?wire=gen&rss=1&flows=16&rate=20000";
    let arguments = ["--queues", "2", "--cores", "0,1", "--port", spec, "--port", spec, "--duration", "2", "--json"];
    let ended = run("l2fwd", &arguments)?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("\n2 threads, bursts of 32"), "{}", ended.stderr);
    let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
    for port in value["ports"].as_array().expect("ports") {
        assert!(port["tx"]["packets"].as_u64().is_some_and(|n| n > 1000), "{value:#}");
    }
    assert_eq!(value["pool"]["lost"], 0);
    // More threads than receive queues are refused; so is a core that does not exist.
    refused("l2fwd", &["--cores", "0,1,2"], &["3 cores", "2 receive queues"])
}

#[test]
fn interrupts_let_l2fwd_sleep_between_packets() -> Result<()> {
    let _turn = turn();
    // A thread for each queue, and one thread for both.
    for threads in [&["--cores", "0,1"][..], &[]] {
        let mut arguments = vec!["--interrupts", "--stats-period", "0.5"];
        arguments.extend(["--port", "sim:igbvf?wire=gen&rate=200", "--port", "sim:igbvf"]);
        arguments.extend(threads);
        let started = Instant::now();
        let program = Program::start(&example("l2fwd")?, &arguments)?;
        // Two seconds, or more on a busy machine.
        poll("400 packets", PROMPT, SECOND / 10, || {
            let printed = program.printed();
            let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let last = whole.lines().rfind(|line| line.contains(" s: port 1"));
            Ok(last.filter(|line| number_after(line, "tx ") >= 400).map(drop))
        })
        .map_err(|error| error.with(program.evidence()))?;
        // Ticks of 10 ms that the forwarding threads took; one that polls takes all there are.
        let ticks = ticks_without_models(program.pid())?;
        let all = started.elapsed().as_millis() as u64 / 10;
        assert!(ticks < all * 3 / 10, "{threads:?}: the threads took {ticks} of {all} ticks: they do not sleep");
        program.signal(libc::SIGINT)?;
        let ended = program.end(PROMPT)?;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        assert!(number_after(&ended.stdout, "forwarded ") > 200, "{ended:?}");
        assert!(ended.stdout.contains("0 lost"), "{ended:?}");
    }
    Ok(())
}

/// Processor time that the threads of a process took, in ticks, without the thread that plays the models.
fn ticks_without_models(pid: u32) -> Result<u64> {
    let mut ticks = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(Error::during("listing threads"))? {
        let task = task.map_err(Error::during("listing threads"))?.path();
        let stat = fs::read_to_string(task.join("stat")).map_err(Error::during(task.display()))?;
        let (head, rest) = stat.rsplit_once(')').expect("a name in parentheses");
        if !head.ends_with("vfring-models") {
            let fields = words(rest);
            ticks += fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        }
    }
    Ok(ticks)
}

#[test]
fn what_l2fwd_does_to_addresses() -> Result<()> {
    let _turn = turn();
    let file = Scratch::new("l2fwd.pcap");
    let out = format!("sim:igbvf?wire=pcap&out={}&mac=02:00:00:00:0a:01", file.path());
    let from = "sim:igbvf?wire=gen&rate=2000&mac=02:00:00:00:0a:00";
    let cases: [(&[&str], [u8; 12]); 3] = [
        (&[], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0x0a, 1]),
        (&["--peer-mac", "1,52:54:00:12:34:56"], [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0x0a, 1]),
        (&["--no-mac-updating"], [2, 0, 0, 0, 0x0a, 0, 2, 0x56, 0x46, 0xff, 0xff, 0xff]),
    ];
    for (options, addresses) in cases {
        let arguments =
            [&["--port", from, "--port", &out, "--portmap", "(0,1)", "--duration", "0.5"], options].concat();
        let ended = Program::start(&complete_example("l2fwd")?, &arguments)?.end(60 * SECOND)?;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        assert!(ended.stdout.contains("port 1: sim:igbvf?wire=pcap"), "{ended:?}");
        assert!(ended.stdout.contains(", only sends\n"), "{ended:?}");
        let frames = frames_of(file.path());
        assert!(frames.len() > 100, "{options:?}: {} frames", frames.len());
        assert!(frames.iter().all(|frame| frame.len() == 60 && frame[..12] == addresses), "{options:?}");
    }
    Ok(())
}

// --- Bad input -----------------------------------------------------------------------------------------------------

/// One line on stderr that names the program and has all `parts`; exit code 1; nothing on stdout.
fn refused(name: &str, arguments: &[&str], parts: &[&str]) -> Result<()> {
    refused_by(Program::start(&example(name)?, arguments)?, name, arguments, parts)
}

fn refused_by(program: Program, name: &str, arguments: &[&str], parts: &[&str]) -> Result<()> {
    let ended = program.end(PROMPT).map_err(|error| error.with(format!("{name} {arguments:?}")))?;
    let Ended { code, stdout, stderr } = &ended;
    assert_eq!(*code, 1, "{name} {arguments:?}: {ended:?}");
    assert!(!stderr.contains("panicked"), "{name} {arguments:?}: {stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{name} {arguments:?} should say one line: {stderr}");
    assert!(stderr.starts_with(&format!("{name}: ")), "{stderr}");
    assert_eq!(stdout, "", "{name} {arguments:?}");
    for part in parts {
        assert!(stderr.contains(part), "{name} {arguments:?}: '{part}' is not in: {stderr}");
    }
    Ok(())
}

#[test]
fn bad_input_ends_in_one_line_and_exit_code_1() -> Result<()> {
    let cases: &[(&[&str], &[&str])] = &[
        // Specs and addresses.
        (&["--port", ""], &["names no device", "0000:3b:02.1"]),
        (&["--port", "eth0"], &["'eth0' names no device", "0000:3b:02.1", "sim:igbvf"]),
        (&["--port", "0000:3b:02"], &["names no device"]),
        (&["--port", "0000:3b:20.1"], &["'0000:3b:20.1' is not a PCI address"]),
        (&["--port", "0000:3b:02.8"], &["is not a PCI address"]),
        (&["--port", "sim:"], &["sim:MODEL?key=value"]),
        (&["--port", "sim:igbvf?wire"], &["'wire' is not of the form key=value"]),
        (&["--port", "sim:e1000"], &["no model 'e1000'", "sim:igbvf"]),
        (&["--port", "sim:igbvf?foo=1"], &["'foo' means nothing here", "wire"]),
        (&["--port", "sim:igbvf?wire=sink&size=64"], &["'size' means nothing here"]),
        (
            &["--port", "sim:igbvf?wire=string"],
            &["no wire 'string'", "gen, sink, pair:NAME, pair:/PATH, tap:IFNAME and pcap"],
        ),
        (&["--port", "sim:igbvf?wire=gen&size=20"], &["size=20 cannot be", "from 60 to"]),
        (&["--port", "sim:igbvf?wire=gen&rate=fast"], &["rate=fast cannot be"]),
        (&["--port", "sim:igbvf?mac=ff:ff:ff:ff:ff:ff"], &["mac=ff:ff:ff:ff:ff:ff cannot be"]),
        (&["--port", "sim:igbvf?part=x710"], &["82576 or i350"]),
        (&["--port", "sim:igbvf?wire=tap:a-name-of-over-fifteen"], &["1 to 15 characters"]),
        (&["--port", "sim:igbvf?wire=pcap&in=x"], &["cargo feature `pcap`"]),
        // Devices.
        (&["--port", "0000:fe:1f.7"], &["0000:fe:1f.7: no such PCI device", "ls -d /sys/bus/pci/devices/*/physfn"]),
        (&["--port", "0000:fe:1f.7", "--port", "0000:fe:1f.7"], &["given as a port twice"]),
        // What the VF has too little of, with the numbers.
        (&["--queues", "3"], &["3 receive queues were asked for", "has 2"]),
        (&["--port", "sim:igbvf?part=i350", "--queues", "2"], &["2 receive queues were asked for", "I350 VF has 1"]),
        (&["--ring", "16"], &["ring of 16 descriptors", "32 to 4096 in multiples of 8"]),
        (&["--ring", "4104"], &["ring of 4104 descriptors", "32 to 4096"]),
        (&["--ring", "500"], &["ring of 500 descriptors", "multiples of 8"]),
        (&["--ring", "40000"], &["--ring: '40000'", "1 to 32768"]),
        (&["--mtu", "60"], &["MTU of 60 bytes", "68 to 9216"]),
        (&["--mtu", "9700"], &["MTU of 9700 bytes", "68 to 9216"]),
        (&["--buffers", "1000"], &["need 1600 buffers", "pool of 1000", "larger by 600"]),
        (&["--buffers", "3"], &["pool of 3 buffers", "64 to 16777216"]),
        // The command line.
        (&["--burst", "0"], &["--burst: '0'", "1 to 1024"]),
        (&["--burst", "1025"], &["--burst: '1025'", "1 to 1024"]),
        (&["--burst", "-1"], &["--burst: '-1'"]),
        (&["--queues", "0"], &["--queues: '0'"]),
        (&["--portmap", "0,1"], &["--portmap: '0,1'", "(0,1),(1,0)"]),
        (&["--portmap", "(0,2)"], &["no port 2", "2 ports"]),
        (&["--portmap", "(0,1),(0,0)"], &["port 0 is first in two pairs"]),
        (&["--peer-mac", "0"], &["1,52:54:00:12:34:56"]),
        (&["--peer-mac", "0,52:54:00"], &["'52:54:00' is not a MAC address"]),
        (&["--peer-mac", "7,52:54:00:12:34:56"], &["no port 7"]),
        (&["--cores", "1-"], &["'1-' is not a list of cores"]),
        (&["--cores", "0,0"], &["core 0 is named twice"]),
        (&["--cores", "1023"], &["cannot run on core 1023", "/sys/devices/system/cpu/online"]),
        (&["--cores", "4096"], &["core 4096 is out of range"]),
        (&["--duration", "soon"], &["'soon' is not a time in seconds"]),
        (&["--duration"], &["--duration needs a value"]),
        (&["--json=1"], &["--json takes no value"]),
        (&["--frobnicate"], &["no option --frobnicate", "--help"]),
        (&["eth0"], &["'eth0' is not an option"]),
        (&["--resource", "intel.com/none"], &["PCIDEVICE_INTEL_COM_NONE is not set", "resource limits"]),
    ];
    for (arguments, parts) in cases {
        refused("l2fwd", arguments, parts)?;
    }
    for (name, arguments, parts) in [
        ("pktgen", ["--size", "59"], "60 to 9714"),
        ("pktgen", ["--burst", "0"], "1 to 1024"),
        ("pktgen", ["--core", "0,1"], "one core"),
        ("pktgen", ["--rx-port", "sim:igbvf"], "say where they leave with --port"),
        ("pktgen", ["--dst-mac", "x"], "not a MAC address"),
        ("pktgen", ["--port", "0000:fe:1f.7"], "no such PCI device"),
        ("rxdump", ["--count", "0"], "--count: '0'"),
        ("rxdump", ["--port", "sim:e1000"], "no model 'e1000'"),
        ("rxdump", ["--write", "/nonexistent/x.pcap"], "needs the feature pcap"),
    ] {
        refused(name, &arguments, &[parts])?;
    }
    Ok(())
}

#[test]
fn a_pod_s_environment_names_the_ports() -> Result<()> {
    let variable = "PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK";
    let arguments = ["--resource", "intel.com/intel_sriov_dpdk"];
    for (value, parts) in [
        ("0000:fe:1f.6,0000:fe:1f.7", ["0000:fe:1f.6", "no such PCI device"]),
        ("eth0", [variable, "is not a PCI address"]),
        ("", [variable, "is not set"]),
    ] {
        let program = Program::start_with(&example("l2fwd")?, &arguments, &[(variable, value)])?;
        refused_by(program, "l2fwd", &arguments, &parts)?;
    }
    Ok(())
}

// --- pktgen, rxdump, minimal ---------------------------------------------------------------------------------------

#[test]
fn pktgen_gets_every_frame_back() -> Result<()> {
    let _turn = turn();
    let ended = run("pktgen", &["--count", "2000", "--json"])?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stdout.matches('\n').count(), 1);
    assert!(ended.stdout.contains("\"sent\":2000,\"received\":2000,\"missing\":0,\"reordered\":0"), "{ended:?}");
    let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
    assert_eq!((&value["lost_buffers"], &value["strangers"]), (&Value::from(0), &Value::from(0)));
    // Jumbo frames over several buffers, paced, in several flows.
    let ended = run(
        "pktgen",
        &["--size", "9000", "--count", "500", "--rate", "2000", "--flows", "7", "--json", "--stats-period", "0"],
    )?;
    assert!(ended.stdout.contains("\"frame_bytes\":9000,\"sent\":500,\"received\":500,\"missing\":0"), "{ended:?}");
    let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stdout));
    assert!(value["seconds"].as_f64().is_some_and(|s| s >= 0.24), "500 frames at 2000 a second: {value:#}");
    Ok(())
}

#[test]
fn pktgen_stops_at_ctrl_c() -> Result<()> {
    let _turn = turn();
    let mut program = Program::start(&example("pktgen")?, &["--rate", "1000", "--stats-period", "0.2"])?;
    program.wait_for("received", PROMPT)?;
    program.signal(libc::SIGINT)?;
    let ended = program.end(PROMPT)?;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stdout.contains("; 0 missing, 0 out of order, 0 of others"), "{ended:?}");
    Ok(())
}

#[test]
fn rxdump_prints_a_line_a_packet() -> Result<()> {
    let _turn = turn();
    let ended = run("rxdump", &["--count", "5"])?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 5);
    for line in lines {
        let (time, rest) = line.split_once(' ').expect("a time and the rest");
        assert!(time.parse::<f64>().is_ok(), "{line}");
        assert_eq!(
            rest,
            "60 bytes 02:56:46:ff:ff:ff > 02:56:46:00:00:01 IPv4 198.18.0.2:1024 > 198.18.1.1:9 UDP, length 18 \
             type IPV4|UDP ip-checksum good l4-checksum good"
        );
    }
    assert!(ended.stderr.contains("rxdump: 5 packets, 0 dropped for errors"), "{ended:?}");
    // With interrupts, and ended by a signal.
    let arguments = ["--interrupts", "--port", "sim:igbvf?wire=gen&rate=50"];
    let mut program = Program::start(&example("rxdump")?, &arguments)?;
    program.wait_for("60 bytes", PROMPT)?;
    program.signal(libc::SIGTERM)?;
    assert_eq!(program.end(PROMPT)?.code, 0);
    Ok(())
}

#[test]
fn a_recording_comes_back_frame_by_frame() -> Result<()> {
    let _turn = turn();
    let file = Scratch::new("rxdump.pcap");
    let rxdump = complete_example("rxdump")?;
    let generator = "sim:igbvf?wire=gen&flows=3&size=100&mac=02:00:00:00:00:77";
    let ended =
        Program::start(&rxdump, &["--count", "50", "--write", file.path(), "--port", generator])?.end(60 * SECOND)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    let frames = frames_of(file.path());
    assert_eq!(frames.len(), 50);
    assert!(frames.iter().all(|frame| frame.len() == 100 && frame[..6] == [2, 0, 0, 0, 0, 0x77]));
    let ports: Vec<u8> = frames.iter().map(|frame| frame[35]).collect();
    assert_eq!(ports[..4], [0, 1, 2, 0], "three flows, in turn");

    // The recording as a wire: what arrives is what the generator sent, packet for packet.
    let lines = |spec: &str| -> Result<Vec<String>> {
        let ended = Program::start(&rxdump, &["--count", "50", "--port", spec])?.end(60 * SECOND)?;
        assert_eq!(ended.code, 0, "{ended:?}");
        let without_time = |line: &str| line.split_once(' ').expect("a time").1.to_owned();
        Ok(ended.stdout.lines().map(without_time).collect())
    };
    let replay = format!("sim:igbvf?wire=pcap&in={}&mac=02:00:00:00:00:77", file.path());
    assert_eq!(lines(&replay)?, lines(generator)?);

    // Truncated, and no recording at all.
    let bytes = fs::read(file.path()).map_err(Error::during(file.path()))?;
    for (contents, part) in [
        (&bytes[..bytes.len() - 30], "truncated"),
        (&bytes[..10], "no pcap file"),
        (&b"hello, world, this is text"[..], "no pcap file"),
    ] {
        fs::write(file.path(), contents).map_err(Error::during(file.path()))?;
        for program in ["rxdump", "l2fwd"] {
            let arguments = ["--port", replay.as_str()];
            let started = Program::start(&complete_example(program)?, &arguments)?;
            refused_by(started, program, &arguments, &[part, file.path()])?;
        }
    }
    let arguments = ["--port", "sim:igbvf?wire=pcap&in=/nonexistent.pcap"];
    refused_by(Program::start(&rxdump, &arguments)?, "rxdump", &arguments, &["/nonexistent.pcap", "No such file"])?;
    let arguments = ["--write", "/nonexistent/x.pcap"];
    refused_by(Program::start(&rxdump, &arguments)?, "rxdump", &arguments, &["cannot write /nonexistent/x.pcap"])
}

#[test]
fn minimal_forwards_for_a_second() -> Result<()> {
    let _turn = turn();
    let ended = run("minimal", &[])?;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert!(number_after(&ended.stdout, "forwarded ") > 100, "{ended:?}");
    let ended = run("minimal", &["eth0"])?;
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
    assert!(ended.stderr.contains("'eth0' names no device") && ended.stderr.matches('\n').count() == 1, "{ended:?}");
    Ok(())
}

#[test]
fn help_goes_to_stdout() -> Result<()> {
    for name in ["l2fwd", "pktgen", "rxdump"] {
        let ended = run(name, &["--help"])?;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{name}");
        assert!(ended.stdout.contains(&format!("usage: {name} [OPTIONS]")), "{name}");
    }
    Ok(())
}

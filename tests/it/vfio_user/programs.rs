//! `vfring sim serve` and the examples as a newcomer runs them: two models and a forwarder between them, without root.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use vfring_tests::build::{complete_example, vfring};
use vfring_tests::program::{Ended, Program};

use crate::bed::PATIENCE;

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vfring-programs-{}-{name}", std::process::id()))
}

fn serve(socket: &PathBuf, wire: &str) -> Program {
    let mut command = Command::new(vfring().unwrap());
    command.args(["sim", "serve", "--model", "igbvf", "--wire", wire, "--socket"]).arg(socket).stdin(Stdio::piped());
    let mut program = Program::spawn(command).unwrap();
    program.wait_for("serving 8086:10ca as vfio-user:", PATIENCE).unwrap();
    program
}

fn run(arguments: &[&str]) -> Ended {
    Program::start(&vfring().unwrap(), arguments).unwrap().end(PATIENCE).unwrap()
}

#[test]
fn l2fwd_forwards_between_two_served_models() {
    let (a, b) = (socket("a"), socket("b"));
    let mut from = serve(&a, "gen:rate=2000,size=100");
    let mut to = serve(&b, "sink");
    let [port_a, port_b] = [&a, &b].map(|path| format!("vfio-user:{}", path.display()));
    let l2fwd = complete_example("l2fwd").unwrap();
    for _ in 0..2 {
        let before = to.ask("stats", PATIENCE).unwrap();
        let arguments = ["--port", &port_a, "--port", &port_b, "--duration", "2"];
        let ended = Program::start(&l2fwd, &arguments).unwrap().end(PATIENCE).unwrap();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
        assert!(ended.stdout.contains(&format!("port 0: {port_a}, 82576 VF, MAC 02:56:")), "{}", ended.stdout);
        assert!(ended.stdout.contains("came back, 0 lost\n"), "{}", ended.stdout);
        let (_, rest) = ended.stdout.split_once("forwarded ").expect("a summary");
        let forwarded: u64 = rest.split(' ').next().unwrap().replace(',', "").parse().unwrap();
        let after = to.ask("stats", PATIENCE).unwrap();
        let sent = |text: &str| -> u64 {
            text.strip_prefix("sent_frames=").and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a number")
        };
        // What is in the ring when the program ends is not sent any more.
        let sent = sent(&after) - sent(&before);
        assert!(sent > 1000 && sent <= forwarded && forwarded <= sent + 512, "{sent} of {forwarded}\n{}", ended.stdout);
    }
    for program in [&mut from, &mut to] {
        assert!(program.ask("stats", PATIENCE).unwrap().ends_with("violations=0"), "{}", program.evidence());
    }
    // One is asked to end, the other is told: both take their sockets with them.
    from.signal(libc::SIGTERM).unwrap();
    let ended = from.end(PATIENCE).unwrap();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert!(to.ask("quit", PATIENCE / 30).is_err(), "it ends instead of answering");
    assert_eq!(to.end(PATIENCE).unwrap().code, 0);
    assert!(!a.exists() && !b.exists());
}

#[test]
fn a_killed_server_does_not_keep_its_socket_from_the_next() {
    let path = socket("killed");
    let first = serve(&path, "sink");
    let text = run(&["sim", "serve", "--model", "igbvf", "--socket", path.to_str().unwrap()]);
    assert_eq!(text.code, 1);
    assert!(text.stderr.starts_with("vfring: another process serves on "), "{text:?}");
    assert_eq!(text.stderr.lines().count(), 1);
    first.signal(libc::SIGKILL).unwrap();
    first.end(PATIENCE).unwrap();
    assert!(path.exists(), "SIGKILL leaves the file");
    let second = serve(&path, "sink");
    second.signal(libc::SIGINT).unwrap();
    assert_eq!(second.end(PATIENCE).unwrap().code, 0);
    assert!(!path.exists());
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let path = socket("mistakes");
    let path = path.to_str().unwrap();
    for (arguments, says) in [
        (["--model", "e1000", "--wire", "sink"], "there is no model 'e1000'"),
        (["--model", "igbvf", "--wire", "string"], "there is no wire 'string'"),
        (["--model", "igbvf", "--mac", "01:00:00:00:00:01"], "mac=01:00:00:00:00:01 cannot be"),
        (["--model", "igbvf", "--set", "colour=red"], "'colour' means nothing here"),
    ] {
        let ended = run(&[&["sim", "serve", "--socket", path], &arguments[..]].concat());
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.lines().count() == 1, "{ended:?}");
    }
    let ended = run(&["sim", "serve", "--help"]);
    assert_eq!(ended.code, 0);
    for word in ["--model", "--socket", "tap:NAME", "pair:PATH", "vfio-user-pci"] {
        assert!(ended.stdout.contains(word), "{word}");
    }
}

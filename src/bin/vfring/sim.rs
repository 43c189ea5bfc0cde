//! `vfring sim serve`: a model of a VF for other processes, over vfio-user.
#![forbid(unsafe_code)]

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use clap::{Arg, ArgAction, ArgMatches, Command};
use vfring::drivers::sim::serve::Server;
use vfring::{DeviceSpec, Error, MacAddr, Result};

use crate::signals::EndSignals;

const ABOUT: &str = "Serve a software model of a VF on a socket, over vfio-user";

const HELP: &str = "\
Serve a software model of a VF on a socket, over vfio-user: to QEMU 10.1 or later,

    qemu-system-x86_64 … -machine memory-backend=mem -object memory-backend-memfd,id=mem,size=1G,share=on \\
        -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"path\":\"/tmp/vf.sock\",\"type\":\"unix\"}}'

or to a program that uses vfring, built with its feature `vfio-user`, as the port `vfio-user:/tmp/vf.sock`.
One client is served at a time, and the next when it has gone: a guest may be started again.

The program says `serving …` when clients can come. It then reads commands from its standard input, one a line, and
answers each with one line: `help` lists them. Ctrl-C, SIGTERM and the command `quit` end it. What a driver does that
the hardware forbids is written to the standard error output, with the last register accesses.";

const AFTER: &str = "\
Wires:
  sink                       frames are counted and dropped
  gen[:KEY=VALUE,…]          frames for the VF are made; size (bytes without FCS), rate (frames a second), flows
  tap:NAME                   a TAP interface of this host; `ip tuntap add dev NAME mode tap user $USER` makes one
  pair:PATH                  another model that is served with the same PATH
  pcap:in=FILE,out=FILE      frames for the VF, and of it (with the cargo feature `pcap`); loop=1: again and again

Example: two models and a forwarder between them, without root
  vfring sim serve --model igbvf --socket /tmp/a --wire gen:rate=1000 &
  vfring sim serve --model igbvf --socket /tmp/b --wire sink &
  cargo run --release --features vfio-user --example l2fwd -- --port vfio-user:/tmp/a --port vfio-user:/tmp/b";

/// `sim` and what is below it.
pub(crate) fn command() -> Command {
    let serve = Command::new("serve")
        .about(ABOUT)
        .long_about(HELP)
        .after_long_help(AFTER)
        .arg(value("model", "NAME").required(true).help("Which VF: igbvf, ixgbevf or iavf"))
        .arg(value("socket", "PATH").required(true).help("The socket to make"))
        .arg(value("wire", "WIRE").default_value("sink").help("What the VF's cable leads to"))
        .arg(value("part", "PART").help("The part: 82576 or i350; 82599, x540, x550 or e610; xl710, x722 or e810"))
        .arg(value("mac", "ADDRESS").help("The address that the PF assigns, or `none` [default: by the socket's path]"))
        .arg(
            value("set", "KEY=VALUE")
                .action(ArgAction::Append)
                .help("Any other key of the spec `sim:NAME?KEY=VALUE`; may be repeated"),
        );
    Command::new("sim").about("Software models of VFs").subcommand_required(true).subcommand(serve)
}

fn value(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("serve", matches)) => serve(matches),
        _ => Ok(()),
    }
}

/// Why the program ends.
enum End {
    Asked,
    Failed(Error),
}

fn serve(matches: &ArgMatches) -> Result<()> {
    let socket: &String = matches.get_one("socket").expect("clap demands it");
    let signals = EndSignals::block().map_err(|e| Error::os("blocking SIGINT and SIGTERM", e))?;
    let server = match spec(matches)?.parse()? {
        DeviceSpec::Sim(spec) => Arc::new(Server::bind(&spec, Path::new(socket))?),
        other => return Err(Error::Config(format!("{other} is no model"))),
    };
    println!("serving {} as vfio-user:{socket}, MAC {}", server.id(), server.mac());
    let (ends, ended) = mpsc::channel();
    let spawn = |name: &str, work: Box<dyn FnOnce() -> Option<End> + Send>| {
        let ends = ends.clone();
        let run = move || work().map_or((), |end| drop(ends.send(end)));
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|e| Error::os("making a thread", e))
    };
    spawn(
        "signals",
        Box::new(move || {
            signals.wait();
            Some(End::Asked)
        }),
    )?;
    let served = Arc::clone(&server);
    spawn("server", Box::new(move || served.run().err().map(End::Failed)))?;
    let controlled = Arc::clone(&server);
    spawn("control", Box::new(move || control(&controlled)))?;
    let end = ended.recv();
    // The other threads hold the server and wait for what may never come: the process ends without them.
    server.remove_socket();
    match end {
        Ok(End::Failed(error)) => Err(error),
        Ok(End::Asked) | Err(_) => Ok(()),
    }
}

/// Obeys the lines of the standard input. When that ends, the server goes on.
fn control(server: &Server) -> Option<End> {
    for line in std::io::stdin().lock().lines() {
        let line = line.ok()?;
        match line.trim() {
            "" => {}
            "quit" => return Some(End::Asked),
            line => match server.command(line) {
                Ok(answer) => println!("{answer}"),
                Err(error) => println!("error: {error}"),
            },
        }
    }
    None
}

/// The spec of the model that the options describe: `--wire gen:size=60,rate=5` is `wire=gen&size=60&rate=5`.
fn spec(matches: &ArgMatches) -> Result<String> {
    let text = |name: &str| matches.get_one::<String>(name);
    let mut pairs: Vec<String> = Vec::new();
    if let Some(wire) = text("wire") {
        let (kind, rest) = wire.split_once(':').unwrap_or((wire, ""));
        let (keys, names): (Vec<&str>, Vec<&str>) =
            rest.split(',').filter(|part| !part.is_empty()).partition(|part| part.contains('='));
        pairs.push(match names[..] {
            [] => format!("wire={kind}"),
            // A pair of processes is named by a path; a bare name would be a pair in this process.
            [name] if kind == "pair" && !name.contains('/') => format!("wire=pair:./{name}"),
            [name] => format!("wire={kind}:{name}"),
            _ => return Err(Error::Parse(format!("--wire {wire}: expected KIND, KIND:NAME or KIND:KEY=VALUE,…"))),
        });
        pairs.extend(keys.into_iter().map(str::to_owned));
    }
    if let Some(part) = text("part") {
        pairs.push(format!("part={part}"));
    }
    if let Some(mac) = text("mac") {
        if mac != "none" {
            mac.parse::<MacAddr>()?;
        }
        pairs.push(format!("mac={mac}"));
    }
    pairs.extend(matches.get_many::<String>("set").into_iter().flatten().cloned());
    let model = text("model").expect("clap demands it");
    Ok(format!("sim:{model}?{}", pairs.join("&")))
}

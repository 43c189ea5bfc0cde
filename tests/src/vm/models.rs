//! A [`Bench`] whose VFs are our models: `vfring sim serve` makes each one in a process of its own, inside the namespace
//! that its wire ends in, and QEMU attaches it as a PCI device behind the guest's IOMMU.
//!
//! So drivers that nobody here wrote judge the models, and ours are judged behind a real vfio-pci. What always holds: a
//! server dies with the test, and after the guest.

use super::bench::{Bench, Plan};
use super::error::{Error, Result};
use super::guest::{Guest, GuestConfig, GuestFile};
use super::host::die_with_this_thread;
use super::net::Netns;
use crate::build::vfring;
use crate::program::Program;
use std::cell::RefCell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// From its start to the line that says that a server serves; the machine may be busy.
const SERVE_TIMEOUT: Duration = Duration::from_secs(60);

/// For an answer to a line of the control language.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a bench of models is made of.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// The model, as `vfring sim serve --model` names it.
    pub model: &'static str,
    /// Further keys of the model, each with its value.
    pub options: Vec<(&'static str, &'static str)>,
    /// The driver that the guest binds both VFs to; a module of this name is loaded where it is not vfio-pci.
    pub driver: &'static str,
    /// The payload limit of TAP devices.
    pub mtu: u32,
    /// Hugepages of 2 MiB.
    pub hugepages: u32,
    /// Processors; see [`GuestConfig::processors`].
    pub processors: u32,
    /// Programs for the guest.
    pub files: Vec<GuestFile>,
}

impl ModelsConfig {
    /// A bench with this model, bound to this driver.
    pub fn new(model: &'static str, driver: &'static str) -> ModelsConfig {
        let (options, files) = (Vec::new(), Vec::new());
        ModelsConfig { model, options, driver, mtu: 1500, hugepages: 128, processors: 1, files }
    }

    /// Sets a further key of the model.
    pub fn option(mut self, key: &'static str, value: &'static str) -> ModelsConfig {
        self.options.push((key, value));
        self
    }

    /// Gives the guest so many processors.
    pub fn processors(mut self, processors: u32) -> ModelsConfig {
        self.processors = processors;
        self
    }

    /// Adds a program: `host` is its path here, `guest` its absolute path there.
    pub fn file(mut self, host: impl Into<PathBuf>, guest: &str) -> ModelsConfig {
        self.files.push(GuestFile { host: host.into(), guest: guest.to_owned() });
        self
    }
}

/// A booted guest with two models between two namespaces.
pub struct Models {
    bench: Bench,
    /// The processes behind the first and the second VF.
    pub servers: [Server; 2],
}

/// A model that is served.
pub struct Server {
    program: RefCell<Program>,
    socket: PathBuf,
}

impl Server {
    fn start(program: &Path, config: &ModelsConfig, plan: &Plan) -> Result<Server> {
        // Tests of one process start their servers side by side, before they wait for their turn to have a guest.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let socket = std::env::temp_dir().join(format!("vfring-{process}-{number}.sock"));
        let mut command = plan.namespace.command(program);
        command.args(["sim", "serve", "--model", config.model, "--wire", &format!("tap:{}", plan.tap.name)]);
        command.arg("--socket").arg(&socket).args(["--mac", &plan.vf_mac.to_string()]);
        for (key, value) in &config.options {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::piped());
        die_with_this_thread(&mut command);
        let mut program = Program::spawn(command)?;
        program.wait_for("\n", SERVE_TIMEOUT)?;
        Ok(Server { program: RefCell::new(program), socket })
    }

    /// What it answers to a line of its control language.
    pub fn ask(&self, line: &str) -> Result<String> {
        let answer = self.program.borrow_mut().ask(line, ANSWER_TIMEOUT)?;
        match answer.strip_prefix("error") {
            Some(_) => Err(Error::new(format!("the model answers {line:?} with {answer:?}"))),
            None => Ok(answer),
        }
    }

    /// What it has printed, for a failure's text.
    pub fn evidence(&self) -> String {
        self.program.borrow().evidence()
    }

    /// A number of its statistics.
    pub fn statistic(&self, name: &str) -> Result<u64> {
        let text = self.ask("stats")?;
        let value = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        value.ok_or_else(|| Error::new(format!("no {name} in {text:?}")))
    }

    /// Fails when the driver did what the hardware forbids.
    pub fn check(&self) -> Result<()> {
        match self.statistic("violations")? {
            0 => Ok(()),
            n => Err(Error::new(format!("the model saw {n} violations")).with(self.evidence())),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.evidence());
        }
        // It is killed, and leaves its socket.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Models {
    /// Starts both models, boots, and binds both VFs.
    pub fn boot(config: ModelsConfig) -> Result<Models> {
        let program = vfring()?;
        let [a, b] = Plan::both(config.mtu, Netns::create_named_tap)?;
        let servers = [Server::start(&program, &config, &a)?, Server::start(&program, &config, &b)?];
        let module = (config.driver != "vfio-pci").then_some(config.driver);
        let guest = Guest::boot(GuestConfig {
            judges: true,
            devices: servers.iter().map(|server| server.socket.clone()).collect(),
            memory_mib: 1024,
            processors: config.processors,
            files: config.files.clone(),
            modules: module.into_iter().chain(["8021q"]).collect(),
            ..GuestConfig::default()
        })?;
        let [vf_a, vf_b] = [1, 2].map(|bus| format!("0000:{bus:02x}:00.0"));
        for vf in [&vf_a, &vf_b] {
            match module {
                None => drop(guest.bind_vfio(vf)?),
                // It took them when it was loaded.
                Some(driver) => {
                    guest.wait_until(&format!("[ -e /sys/bus/pci/drivers/{driver}/{vf} ]"), SERVE_TIMEOUT)?
                }
            }
        }
        guest.hugepages(config.hugepages)?;
        let (a, b) = (a.with_vf(&guest, vf_a)?, b.with_vf(&guest, vf_b)?);
        Ok(Models { bench: Bench { guest, a, b }, servers })
    }
}

impl Models {
    /// Runs a test, and shows what the models and the guest have said where it fails.
    pub fn judge(&self, test: impl FnOnce(&Models) -> Result<()>) -> Result<()> {
        let judged = test(self).and_then(|()| self.servers.iter().try_for_each(Server::check));
        judged.map_err(|error| {
            let said = self.servers.iter().map(Server::evidence).collect::<Vec<_>>().join("\n");
            let kernel = self.guest.sh("dmesg | tail -n 40").unwrap_or_default();
            error.with(said).with(format!("--- the guest's kernel:\n{kernel}"))
        })
    }
}

impl Deref for Models {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

//! Preparing a host: VFs, what their PF says of them, their drivers; from options or from a file.
//!
//! Owns the order. VFs are made, the PF is brought up and told about them, and only then are they bound, so that a VF's
//! reset at binding finds its settings. What always holds: what is so already is left alone and said to be.
#![forbid(unsafe_code)]

use clap::{Arg, ArgAction, ArgMatches, Command};
use vfring::host::{Creation, Hands, Host, Kernel, Rehearsal};
use vfring::host::{bind, bind_unmade, create_vfs, destroy_vfs, find_pf, places_of_vfs, unbind, vfs_of};
use vfring::pci::{self, PciFunction};
use vfring::{Error, MacAddr, PciAddress, Result};

use crate::netlink::{Interface, Netlink};
use crate::roots;
use crate::settings::{Admin, Numbers, Setting};

/// What is wanted of one PF.
pub(crate) struct PfPlan {
    /// Its interface or address.
    pub(crate) pf: String,
    /// How many VFs it shall have.
    pub(crate) vfs: u32,
    /// The driver of all of them; none to leave that as it is.
    pub(crate) driver: Option<String>,
    /// What the PF shall say of them.
    pub(crate) settings: Vec<(Numbers, Vec<Setting>)>,
}

/// What prepares a host, or rehearses it.
pub(crate) struct Tools {
    host: Host,
    force: bool,
    rehearsal: Option<Rehearsal>,
}

/// Adds the options `--force` and `--dry-run`, and those of the roots.
pub(crate) fn with_options(command: Command) -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    roots::with_roots(command)
        .arg(flag("force", "Take what is in use, too"))
        .arg(flag("dry-run", "Print every write as a shell command, and do none"))
}

impl Tools {
    pub(crate) fn new(matches: &ArgMatches) -> Tools {
        let rehearsal = matches.get_flag("dry-run").then(Rehearsal::default);
        Tools { host: roots::host(matches), force: matches.get_flag("force"), rehearsal }
    }

    /// Does something with hands that act, or says what they would write.
    fn act<T>(&mut self, what: impl FnOnce(&Host, &mut dyn Hands, bool) -> Result<T>) -> Result<T> {
        match &mut self.rehearsal {
            None => what(&self.host, &mut Kernel, self.force),
            Some(rehearsal) => {
                let done = what(&self.host, rehearsal, self.force);
                for command in rehearsal.commands.drain(..) {
                    println!("{command}");
                }
                done
            }
        }
    }

    /// Says what was done; a rehearsal has said it already.
    fn say(&self, text: impl std::fmt::Display) {
        if self.rehearsal.is_none() {
            println!("{text}");
        }
    }

    pub(crate) fn bind(&mut self, address: PciAddress, driver: &str) -> Result<()> {
        let done = self.act(|host, hands, force| bind(host, hands, address, driver, force))?;
        self.say(format_args!("{address}: {done}"));
        Ok(())
    }

    pub(crate) fn unbind(&mut self, address: PciAddress) -> Result<()> {
        let done = self.act(|host, hands, force| unbind(host, hands, address, force))?;
        self.say(format_args!("{address}: {done}"));
        Ok(())
    }

    pub(crate) fn destroy(&mut self, pf: &str) -> Result<()> {
        let function = find_pf(&self.host, pf)?;
        match self.act(|host, hands, force| destroy_vfs(host, hands, &function, force))? {
            0 => self.say(format_args!("{pf}: has no VFs")),
            count => self.say(format_args!("{pf}: {count} VFs taken away")),
        }
        Ok(())
    }

    pub(crate) fn prepare(&mut self, plan: &PfPlan) -> Result<()> {
        for (numbers, settings) in &plan.settings {
            check(plan, numbers, settings)?;
        }
        if self.rehearsal.is_none() && !roots::is_this_machine(&self.host) {
            let text = "with --sysfs of another machine, say --dry-run: netlink speaks to this one's kernel";
            return Err(Error::Config(text.into()));
        }
        let name = &plan.pf;
        let pf = find_pf(&self.host, name)?;
        match self.act(|host, hands, force| create_vfs(host, hands, &pf, plan.vfs, force))? {
            Creation::Already => self.say(format_args!("{name}: has {} VFs already", plan.vfs)),
            Creation::Made => self.say(format_args!("{name}: made {} VFs", plan.vfs)),
            Creation::MadeAnew(had) => self.say(format_args!("{name}: had {had} VFs, made {}", plan.vfs)),
        }
        let vfs = self.vfs(&pf, plan.vfs)?;
        self.administer(&pf, plan, &vfs)?;
        let Some(driver) = &plan.driver else { return Ok(()) };
        for (address, is_there) in vfs {
            match (is_there, &mut self.rehearsal) {
                (false, Some(rehearsal)) => {
                    bind_unmade(&self.host, rehearsal, address, driver)?;
                    self.act(|_, _, _| Ok(()))?;
                }
                _ => self.bind(address, driver)?,
            }
        }
        Ok(())
    }

    /// The VFs of a PF by number, and whether they are there: in a rehearsal they may not be.
    fn vfs(&self, pf: &PciFunction, number: u32) -> Result<Vec<(PciAddress, bool)>> {
        let there: Vec<PciAddress> = vfs_of(&self.host, pf.address)?.into_iter().map(|(_, vf)| vf.address).collect();
        if self.rehearsal.is_none() {
            return Ok(there.into_iter().map(|address| (address, true)).collect());
        }
        let had = pf.sriov.map_or(0, |sriov| sriov.num_vfs);
        if had == number {
            return Ok(there.into_iter().map(|address| (address, true)).collect());
        }
        let places = places_of_vfs(&self.host, pf.address, number)?;
        if places.len() < number as usize {
            println!("# the addresses of the new VFs cannot be told before they are made");
        }
        Ok(places.into_iter().map(|address| (address, false)).collect())
    }

    /// Brings the PF up and makes the settings of its VFs.
    fn administer(&mut self, pf: &PciFunction, plan: &PfPlan, vfs: &[(PciAddress, bool)]) -> Result<()> {
        let interfaces = self.host.sysfs.interfaces(pf.address)?;
        let Some(interface) = interfaces.first() else {
            return match plan.settings.iter().all(|(_, settings)| settings.is_empty()) {
                true => Ok(()),
                false => Err(Error::device(
                    &plan.pf,
                    "has no interface, so its VFs cannot be set: bind it to its own driver",
                )),
            };
        };
        let name = &interface.name;
        let netlink = if roots::is_this_machine(&self.host) { Some(Netlink::open()?) } else { None };
        let now = netlink.as_ref().map(|netlink| netlink.interface(name)).transpose()?;
        if !now.as_ref().map_or(interface.up, |now| now.up) {
            self.change(&format!("ip link set {name} up"), || {
                with(&netlink, &now, |link, now| link.set_up(now, name))
            })?;
        }
        let admin = |number: u32| -> Admin {
            let known = now.iter().flat_map(|now| &now.vfs).find(|(n, _)| *n == number);
            known.map(|(_, admin)| admin.clone()).unwrap_or_default()
        };
        let mut wanted: Vec<(u32, Setting)> = Vec::new();
        for (numbers, settings) in &plan.settings {
            wanted.extend(numbers.iter().flat_map(|number| settings.iter().map(move |setting| (number, *setting))));
        }
        wanted.extend(self.kept_addresses(plan, vfs, &wanted, &admin)?);
        for (number, setting) in wanted {
            if !setting.is_met(&admin(number)) {
                let command = format!("ip link set {name} vf {number} {setting}");
                self.change(&command, || with(&netlink, &now, |link, now| link.set_vf(now, name, number, setting)))?;
            }
        }
        Ok(())
    }

    /// The addresses of VFs that have one from a driver of the kernel and none from their PF: vfio-pci's reset would lose
    /// them.
    fn kept_addresses(
        &self,
        plan: &PfPlan,
        vfs: &[(PciAddress, bool)],
        wanted: &[(u32, Setting)],
        admin: &dyn Fn(u32) -> Admin,
    ) -> Result<Vec<(u32, Setting)>> {
        let mut kept = Vec::new();
        if !plan.driver.as_deref().is_some_and(pci::is_vfio_driver) {
            return Ok(kept);
        }
        for (number, (address, _)) in (0..).zip(vfs).filter(|(_, (_, is_there))| *is_there) {
            let is_given = wanted.iter().any(|(n, setting)| *n == number && matches!(setting, Setting::Mac(_)));
            if is_given || admin(number).mac.is_some_and(|mac| mac != MacAddr::ZERO) {
                continue;
            }
            let own = self.host.sysfs.interfaces(*address)?.first().and_then(|interface| interface.mac);
            kept.extend(own.filter(|mac| mac.is_valid_station()).map(|mac| (number, Setting::Mac(mac))));
        }
        Ok(kept)
    }

    fn change(&self, command: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.rehearsal.is_none() {
            act()?;
        }
        println!("{command}");
        Ok(())
    }
}

/// Calls `act` where there is a netlink, which is so whenever something is not only rehearsed.
fn with(
    netlink: &Option<Netlink>,
    now: &Option<Interface>,
    act: impl FnOnce(&Netlink, &Interface) -> Result<()>,
) -> Result<()> {
    match (netlink, now) {
        (Some(netlink), Some(now)) => act(netlink, now),
        _ => Ok(()),
    }
}

fn check(plan: &PfPlan, numbers: &Numbers, settings: &[Setting]) -> Result<()> {
    if let Some(last) = numbers.last().filter(|&last| last >= plan.vfs) {
        return Err(Error::Config(format!(
            "{}: VF {last} is out of range: it shall have {}, numbered from 0",
            plan.pf, plan.vfs
        )));
    }
    if settings.iter().any(|setting| matches!(setting, Setting::Mac(_))) && numbers.iter().nth(1).is_some() {
        return Err(Error::Config(format!("{}: several VFs cannot have one MAC address; name one VF for it", plan.pf)));
    }
    Ok(())
}

//! Which devices kubelet is advised to take together.
//!
//! Owns the answer to GetPreferredAllocation: devices of one NUMA node, with hugepages free there, from many PFs or from
//! few. What always holds: the answer has as many devices as were asked for, contains all that must be in it, and is the
//! same for the same question.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::addr::PciAddress;
use crate::error::{Error, Result};

use super::config::Preference;
use super::pool::{Pool, PoolDevice};

/// Advises which `size` of the devices `available` to give to a container, all of `required` among them.
///
/// # Errors
/// [`Error::Config`] when an id was not advertised, or `size` cannot be met.
pub fn preferred<S: AsRef<str>>(pool: &Pool, available: &[S], required: &[S], size: usize) -> Result<Vec<PciAddress>> {
    let resource = pool.resource();
    let find = |ids: &[S]| -> Result<BTreeMap<PciAddress, &PoolDevice>> {
        let one = |id: &S| {
            let id = id.as_ref();
            let device = id.parse().ok().and_then(|address| pool.device(address));
            let device = device.ok_or_else(|| Error::Config(format!("{resource}: '{id}' was never advertised")))?;
            Ok((device.address, device))
        };
        ids.iter().map(one).collect()
    };
    let mut chosen = find(required)?;
    let mut free = find(available)?;
    free.retain(|address, _| !chosen.contains_key(address));
    if chosen.len() > size || chosen.len() + free.len() < size {
        return Err(Error::Config(format!(
            "{resource}: {size} devices are asked for, with {} required and {} more available",
            chosen.len(),
            free.len()
        )));
    }
    while chosen.len() < size {
        let Some(next) = next(pool, &chosen, &free, size - chosen.len()) else { break };
        free.remove(&next.address);
        chosen.insert(next.address, next);
    }
    Ok(chosen.into_keys().collect())
}

/// The next device to take: of the best NUMA node, of the PF that the preference says, the lowest.
fn next<'a>(
    pool: &Pool,
    chosen: &BTreeMap<PciAddress, &PoolDevice>,
    free: &BTreeMap<PciAddress, &'a PoolDevice>,
    missing: usize,
) -> Option<&'a PoolDevice> {
    let count = |list: &BTreeMap<PciAddress, &PoolDevice>, test: &dyn Fn(&PoolDevice) -> bool| -> usize {
        list.values().filter(|device| test(device)).count()
    };
    let nodes: BTreeSet<Option<u32>> = free.values().map(|device| device.numa_node).collect();
    let node = nodes.into_iter().min_by_key(|&node| {
        let here = |device: &PoolDevice| device.numa_node == node;
        let (begun, left) = (count(chosen, &here), count(free, &here));
        let pages = node.map_or(0, |node| pool.host.free_hugepages(node));
        // A node that was begun; one that has enough; one with hugepages; then the tightest fit that has enough, or
        // the largest part where none has.
        let fit = if left >= missing { left } else { usize::MAX - left };
        (Reverse(begun), left < missing, pages == 0, fit)
    })?;
    free.values().copied().filter(|device| device.numa_node == node).min_by_key(|device| {
        let sibling = |other: &PoolDevice| other.pf == device.pf && other.numa_node == node;
        let (begun, left) = (count(chosen, &sibling), count(free, &sibling));
        let fit = if left >= missing { left } else { usize::MAX - left };
        let rank = match pool.config.preference {
            // The PF that has given least so far; of these the one with most left.
            Preference::Spread => (begun, usize::MAX - left),
            // The PF that was begun; else the tightest fit.
            Preference::Pack => (usize::MAX - begun, fit),
        };
        (rank, device.address)
    })
}

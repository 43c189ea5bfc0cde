//! CPU cores: the list on the command line, and pinning a thread to one of them.
#![allow(unsafe_code)]

use std::io;
use std::str::FromStr;
use std::thread;

/// Cores in the order given, without repeats: `2,3`, `2-5`, `0,4-6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

impl FromStr for CoreList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a list of cores; expected numbers and ranges like 2,3 or 2-5");
        let core = |word: &str| word.trim().parse::<usize>().map_err(|_| bad());
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (core(first)?, core(last)?),
                None => (core(part)?, core(part)?),
            };
            if first > last {
                return Err(bad());
            }
            if last >= libc::CPU_SETSIZE as usize {
                return Err(format!("core {last} is out of range; the highest is {}", libc::CPU_SETSIZE - 1));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(format!("core {core} is named twice in '{text}'"));
                }
                cores.push(core);
            }
        }
        Ok(CoreList(cores))
    }
}

/// Finds out whether threads can be pinned to these cores.
pub fn check(cores: &[usize]) -> Result<(), String> {
    let pinned = |core: usize| thread::spawn(move || pin_to(core)).join().unwrap_or(Err("a thread panicked".into()));
    cores.iter().try_for_each(|core| pinned(*core))
}

/// Pins the calling thread to `core`.
pub fn pin_to(core: usize) -> Result<(), String> {
    // SAFETY: a cpu_set_t is an array of integers, for which all zeroes is a value: the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below CPU_SETSIZE (checked by the parser), so the bit lies within the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the pointer and the size describe `set`, which outlives the call; pid 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(format!(
            "cannot run on core {core}: {}; /sys/devices/system/cpu/online lists the cores there are",
            io::Error::last_os_error()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        for (text, cores) in
            [("3", vec![3]), ("2,3", vec![2, 3]), ("2-5", vec![2, 3, 4, 5]), ("7,0-1", vec![7, 0, 1]), ("4-4", vec![4])]
        {
            assert_eq!(text.parse(), Ok(CoreList(cores)), "{text}");
        }
    }

    #[test]
    fn bad_lists_are_refused() {
        for text in ["", ",", "1,", "a", "-1", "3-1", "1-2-3", "1,1", "0-2,2", "1024", "0-18446744073709551615"] {
            assert!(text.parse::<CoreList>().is_err(), "{text}");
        }
    }
}

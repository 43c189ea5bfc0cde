//! Near misses: what somebody wrote, and what was probably meant.
//!
//! Owns the comparisons that no correct configuration needs. Called when a configuration is read and when a selection
//! is explained; nothing here decides what is selected.
#![forbid(unsafe_code)]

use crate::addr::PciAddress;

/// The known name that `word` is probably meant to be: the same in another letter case, or at most two letters away.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let distance = |name: &str| edits(&word, &name.to_ascii_lowercase());
    known.iter().copied().min_by_key(|name| distance(name)).filter(|name| distance(name) <= 2)
}

/// Letters to insert, delete or replace to get from one word to the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Why `text` can never be equal to a vendor or device id as sysfs prints it, if so.
pub(super) fn id(text: &str) -> Option<String> {
    let is_id = |text: &str| text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if is_id(text) {
        return None;
    }
    let lower = text.trim().to_ascii_lowercase();
    let meant = lower.strip_prefix("0x").unwrap_or(&lower);
    Some(match is_id(meant) {
        true => format!("'{text}' matches nothing: ids are four lower-case digits without 0x; write '{meant}'"),
        false => format!("'{text}' matches nothing: it is no id of four hexadecimal digits, like '8086'"),
    })
}

/// Why `text` can never be equal to a PCI address as sysfs prints it, if so.
pub(super) fn address(text: &str) -> Option<String> {
    match text.trim().parse::<PciAddress>() {
        Ok(address) if address.to_string() == text => None,
        Ok(address) => Some(format!("'{text}' matches nothing: an address is written in full; write '{address}'")),
        Err(_) => Some(format!("'{text}' matches nothing: it is no PCI address like 0000:3b:02.1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_at_most_two_letters_away() {
        let known = ["pfNames", "pKeys", "vendors", "devices"];
        for (word, name) in [
            ("pfName", Some("pfNames")),
            ("PFNAME", Some("pfNames")),
            ("vendor", Some("vendors")),
            ("divises", Some("devices")),
            ("dev", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), name, "{word}");
        }
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn ids_and_addresses_that_sysfs_never_prints_are_told_from_those_it_does() {
        for good in ["8086", "154c"] {
            assert_eq!(id(good), None);
        }
        for (text, meant) in [("0x8086", "write '8086'"), ("154C", "write '154c'"), (" 8086", "write '8086'")] {
            assert!(id(text).unwrap().ends_with(meant), "{text}");
        }
        for text in ["", "808", "80866", "intel"] {
            assert!(id(text).unwrap().contains("no id"), "{text}");
        }
        assert_eq!(address("0000:3b:02.1"), None);
        assert_eq!(address("10000:e1:00.0"), None);
        for (text, meant) in [("3b:02.1", "write '0000:3b:02.1'"), ("0000:3B:02.1", "write '0000:3b:02.1'")] {
            assert!(address(text).unwrap().ends_with(meant), "{text}");
        }
        assert!(address("../../etc").unwrap().contains("no PCI address"));
    }
}

//! What the fuzz targets of `tests/fuzz` call: each parser of words that come from outside, on any bytes.
//!
//! Only in builds for fuzzing and in tests, which replay the corpora in `tests/fuzz/corpus`. What always holds: nothing that
//! a PF, a server or a configuration says may panic or hang.
#![forbid(unsafe_code)]

#[cfg(feature = "iavf")]
pub use crate::drivers::iavf::parse_anything as iavf_replies;
#[cfg(feature = "ixgbevf")]
pub use crate::drivers::ixgbevf::parse_anything as mailbox_replies;
#[cfg(feature = "vfio-user")]
pub use crate::vfio::parse_anything as vfio_user_replies;

/// A PF of igb (first byte even) or of ixgbe (odd) that says anything at any moment.
#[cfg(all(feature = "igbvf", feature = "ixgbevf"))]
pub fn mailbox_talk(bytes: &[u8]) {
    match bytes.split_first() {
        Some((family, bytes)) if family % 2 == 1 => crate::drivers::ixgbevf::talk_to_anyone(bytes),
        Some((_, bytes)) => crate::drivers::igbvf::talk_to_anyone(bytes),
        None => crate::drivers::igbvf::talk_to_anyone(&[]),
    }
}

/// A configuration of the device plugin, as text.
#[cfg(feature = "plugin")]
pub fn plugin_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match crate::plugin::Config::parse(text, None) {
        Ok(config) => {
            for problem in &config.problems {
                assert!(!problem.to_string().contains('\n'), "a problem is one line: {problem}");
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "an error is one line: {error}"),
    }
}

#[cfg(test)]
mod tests {
    /// Feeds every file of a corpus to its target.
    fn replay(name: &str, target: fn(&[u8])) {
        let folder = format!("{}/tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder).expect(&folder).map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 5, "{} files in {folder}", files.len());
        for file in files {
            println!("{}", file.display());
            target(&std::fs::read(&file).unwrap());
        }
    }

    #[test]
    #[cfg(feature = "iavf")]
    fn the_corpus_of_virtchnl_breaks_nothing() {
        replay("iavf_replies", super::iavf_replies);
    }

    #[test]
    #[cfg(feature = "ixgbevf")]
    fn the_corpus_of_mailboxes_breaks_nothing() {
        replay("mailbox_replies", super::mailbox_replies);
    }

    #[test]
    #[cfg(all(feature = "igbvf", feature = "ixgbevf"))]
    fn the_corpus_of_conversations_breaks_nothing() {
        replay("mailbox_talk", super::mailbox_talk);
    }

    #[test]
    #[cfg(feature = "vfio-user")]
    fn the_corpus_of_vfio_user_breaks_nothing() {
        replay("vfio_user_replies", super::vfio_user_replies);
    }

    #[test]
    #[cfg(feature = "plugin")]
    fn the_corpus_of_configurations_breaks_nothing() {
        replay("plugin_config", super::plugin_config);
    }
}

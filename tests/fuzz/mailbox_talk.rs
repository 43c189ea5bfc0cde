//! What an igb or ixgbe PF says in the mailbox, and when (drivers/intel).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vfring::fuzz::mailbox_talk(bytes));

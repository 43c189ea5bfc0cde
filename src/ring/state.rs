//! The state of one start of a port, where its control and its queues meet.
//!
//! One word says what queues do; each queue reads it once per burst and compares it with the word it works under.
//! A [`Gate`] per queue carries the answer: the word the queue has acknowledged, and the word under which control has
//! enabled it at the device. Control changes the word; queues never do.
//!
//! | state | what a burst does | legal next |
//! |---|---|---|
//! | Running | works | Resetting, Stopping, Dead |
//! | Resetting | returns 0, acknowledges once | Running (next epoch), Stopping, Dead |
//! | Stopping | returns 0, acknowledges | Dead |
//! | Dead | returns 0, acknowledges | none: a new start has a new word |
//!
//! What always holds: after a queue has acknowledged a word it writes neither descriptors nor doorbell before it has
//! seen a Running word under which its gate is enabled; and control enables a gate only after the device was reset,
//! the queue has acknowledged, and its ring is programmed with head and tail 0. So a stale doorbell can never reach a
//! live ring. A queue that stays silent stays disabled, and the others go on.
#![forbid(unsafe_code)]

use crate::sync::{AtomicU32, Ordering};

/// What queues do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PortState {
    /// Packets flow.
    Running = 0,
    /// The PF resets, or the VF lost its clear-to-send; the port recovers by itself.
    Resetting = 1,
    /// The program stops the port.
    Stopping = 2,
    /// Stopped, or the device is gone.
    Dead = 3,
}

/// A state and its epoch, as one word: 2 bits of state under 30 bits of epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u32);

impl Word {
    /// A word that no state word ever has: a queue that works under it has to look at its gate first.
    pub(crate) const NONE: Word = Word(u32::MAX);
    /// The acknowledgement of a queue that has been dropped.
    const GONE: u32 = u32::MAX - 1;

    fn new(epoch: u32, state: PortState) -> Word {
        // Epochs wrap after 2^28 resets and leave the two highest values free.
        Word((epoch & 0x0fff_ffff) << 2 | state as u32)
    }

    pub(crate) fn state(self) -> PortState {
        match self.0 & 3 {
            0 => PortState::Running,
            1 => PortState::Resetting,
            2 => PortState::Stopping,
            _ => PortState::Dead,
        }
    }

    fn epoch(self) -> u32 {
        self.0 >> 2
    }
}

/// The word itself. Written by control only.
pub(crate) struct StateWord(AtomicU32);

impl StateWord {
    /// Running, in the first epoch.
    pub(crate) fn new() -> StateWord {
        StateWord(AtomicU32::new(Word::new(1, PortState::Running).0))
    }

    /// The word as it is. Acquire: what control did before it set the word (a device reset, say) is visible.
    #[inline(always)]
    pub(crate) fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    /// Goes to `next` where the table allows it; false, and nothing changed, where it does not.
    pub(crate) fn go(&self, next: PortState) -> bool {
        let now = self.load();
        let epoch = match (now.state(), next) {
            (PortState::Running, PortState::Resetting | PortState::Stopping | PortState::Dead)
            | (PortState::Resetting, PortState::Stopping | PortState::Dead)
            | (PortState::Stopping, PortState::Dead) => now.epoch(),
            (PortState::Resetting, PortState::Running) => now.epoch().wrapping_add(1),
            _ => return false,
        };
        self.0.store(Word::new(epoch, next).0, Ordering::Release);
        true
    }
}

/// What a queue has to do after it looked at a changed word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing may be done under this word.
    Rest,
    /// A new epoch, and the queue is enabled: rebuild the ring and go on.
    Rebuild,
}

/// One queue's side of the word.
pub(crate) struct Gate {
    acknowledged: AtomicU32,
    enabled: AtomicU32,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { acknowledged: AtomicU32::new(Word::NONE.0), enabled: AtomicU32::new(Word::NONE.0) }
    }

    /// The queue's slow path: `current`, the word it works under, is not the one in force. Acknowledges that one and
    /// tells what to do.
    pub(crate) fn look(&self, word: &StateWord, current: &mut Word) -> Turn {
        let now = word.load();
        if now.state() == PortState::Running && self.enabled.load(Ordering::Acquire) == now.0 {
            *current = now;
            return Turn::Rebuild;
        }
        *current = Word::NONE;
        // Release: every descriptor and doorbell written before happens before what control does on seeing this.
        self.acknowledged.store(now.0, Ordering::Release);
        Turn::Rest
    }

    /// The queue is dropped and will never touch the device again.
    pub(crate) fn leave(&self) {
        self.acknowledged.store(Word::GONE, Ordering::Release);
    }

    /// Control: has the queue let go of the device under this word (or for good)?
    pub(crate) fn is_quiet(&self, word: Word) -> bool {
        let answer = self.acknowledged.load(Ordering::Acquire);
        answer == word.0 || answer == Word::GONE
    }

    /// Control: the queue is dropped.
    pub(crate) fn is_gone(&self) -> bool {
        self.acknowledged.load(Ordering::Acquire) == Word::GONE
    }

    /// Control: has `enable` been called under this word?
    pub(crate) fn is_enabled(&self, word: Word) -> bool {
        self.enabled.load(Ordering::Relaxed) == word.0
    }

    /// Control: the ring is programmed and enabled at the device, so the queue may rebuild it under this word.
    pub(crate) fn enable(&self, word: Word) {
        self.enabled.store(word.0, Ordering::Release);
    }
}

//! The trigger of dumps: recorded events that ask for one.
//!
//! A recorded event is compared on the thread that records it, which then only notes the first that matches, without a
//! lock, and wakes the thread that writes dumps.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event::ARGUMENTS;

/// Whether an event, with its object and arguments, asks for a dump.
pub type Wants = Box<dyn Fn(u16, u32, &[u32; ARGUMENTS]) -> bool + Send + Sync>;

static TRIGGER: OnceLock<Trigger> = OnceLock::new();

/// Event that asked for a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Index of the event's declaration.
    pub event: u16,
    /// Number of the guest.
    pub guest: u16,
    /// Number of the object.
    pub object: u32,
}

impl Cause {
    fn pack(self) -> u64 {
        // 0 is none.
        u64::from(self.event + 1) << 48 | u64::from(self.guest) << 32 | u64::from(self.object)
    }

    fn unpack(packed: u64) -> Option<Self> {
        let event = ((packed >> 48) as u16).checked_sub(1)?;
        Some(Self {
            event,
            guest: (packed >> 32) as u16,
            object: packed as u32,
        })
    }
}

/// The events that ask for a dump, and the first that did since the latest.
pub struct Trigger {
    wants: Wants,
    first: AtomicU64,
    /// Does not block.
    wake: UnixStream,
}

impl fmt::Debug for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trigger")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// Compares the events that are recorded from now on; writes to `wake` when the first asks for a dump. A process has
/// one trigger.
pub fn arm(wants: Wants, wake: UnixStream) -> io::Result<&'static Trigger> {
    wake.set_nonblocking(true)?;
    let trigger = Trigger {
        wants,
        first: AtomicU64::new(0),
        wake,
    };
    TRIGGER.set(trigger).map_err(|_| io::ErrorKind::AlreadyExists)?;
    TRIGGER.get().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Compares a recorded event.
pub fn check(event: u16, guest: u16, object: u32, arguments: &[u32; ARGUMENTS]) {
    let Some(trigger) = TRIGGER.get() else { return };
    if trigger.first.load(Ordering::Relaxed) != 0 || !(trigger.wants)(event, object, arguments) {
        return;
    }
    let cause = Cause { event, guest, object };
    let first = &trigger.first;
    if first
        .compare_exchange(0, cause.pack(), Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
    {
        // A full socket wakes as well.
        let _ = (&trigger.wake).write(&[0]);
    }
}

impl Trigger {
    /// Whether an event has asked for a dump.
    pub fn is_set(&self) -> bool {
        self.first.load(Ordering::Relaxed) != 0
    }

    /// Takes the first event that asked for a dump; the next may ask for another.
    pub fn take(&self) -> Option<Cause> {
        Cause::unpack(self.first.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_noted_whole() {
        let cause = Cause {
            event: 0x7ffe,
            guest: 0xffff,
            object: 0xffff_fffe,
        };
        assert_eq!(Cause::unpack(cause.pack()), Some(cause));
        let first = Cause {
            event: 0,
            guest: 0,
            object: 0,
        };
        assert_eq!(Cause::unpack(first.pack()), Some(first));
        assert_eq!(Cause::unpack(0), None);
    }
}

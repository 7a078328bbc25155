//! A record in progress: the events of the turns, in a file.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use flate2::Compression;
use log::{info, warn};
use parking_lot::Mutex;

use super::format::Format;
use super::turns::Turns;
use super::writer::Writer;

/// Maximum number of bytes of a record before compression.
const LIMIT: u64 = 16 << 30;

/// Number of entries after which all events are passed to the file: at most so many are lost with a killed daemon.
const FLUSHED: u64 = 64;

/// A record in progress, or a place in the turns without one.
pub struct Recording<F: Format> {
    name: String,
    turns: Arc<Turns>,
    /// Lock order: taken in a turn; a leaf.
    open: Mutex<Option<Open<F>>>,
}

/// An open record.
struct Open<F> {
    writer: Writer<F, File>,
    /// Number of entries in progress.
    depth: u32,
    /// Number of entries from outside.
    entries: u64,
}

impl<F: Format> Open<F> {
    fn new(file: File, setup: &F::Setup) -> io::Result<Self> {
        Ok(Self {
            writer: Writer::new(file, setup, Compression::fast())?,
            depth: 0,
            entries: 0,
        })
    }

    /// Counts the end of an entry.
    fn leave(&mut self) -> io::Result<()> {
        // A record may begin within a turn.
        self.depth = self.depth.saturating_sub(1);
        self.entries += u64::from(self.depth == 0);
        match self.depth == 0 && self.entries.is_multiple_of(FLUSHED) {
            true => self.writer.flush(),
            false => Ok(()),
        }
    }
}

impl<F: Format> Recording<F> {
    /// Begins a record. `name` is that of the device in logs.
    pub fn to_file(name: &str, turns: Arc<Turns>, file: File, setup: &F::Setup) -> io::Result<Self> {
        let mut recording = Self::turns_only(name, turns);
        *recording.open.get_mut() = Some(Open::new(file, setup)?);
        Ok(recording)
    }

    /// Takes part in the turns without a record.
    pub fn turns_only(name: &str, turns: Arc<Turns>) -> Self {
        Self {
            name: name.to_owned(),
            turns,
            open: Mutex::new(None),
        }
    }

    /// Begins a record, unless there is one. Returns whether it has begun.
    pub fn begin_file(&self, file: File, setup: &F::Setup) -> io::Result<bool> {
        let _turn = self.turns.take();
        let mut open = self.open.lock();
        if open.is_some() {
            return Ok(false);
        }
        *open = Some(Open::new(file, setup)?);
        Ok(true)
    }

    /// Whether there is a record in progress.
    pub fn is_open(&self) -> bool {
        self.open.lock().is_some()
    }

    /// Name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The turns of the daemon.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Ends the record after the entry in progress; later events are not recorded. Further calls are ignored.
    pub fn finish(&self) {
        let _turn = self.turns.take();
        let open = self.open.lock().take();
        if let Some(open) = open {
            self.complete(open);
        }
    }

    fn complete(&self, open: Open<F>) {
        match open.writer.finish().and_then(|file| file.sync_data()) {
            Ok(()) => info!("{}: the record is complete", self.name),
            Err(error) => warn!("{}: cannot write the end of the record: {error}", self.name),
        }
    }

    /// Writes an event of this turn; what other threads do meanwhile is not the guest's doing (statistics).
    pub fn log(&self, event: impl FnOnce() -> F::Event) {
        self.log_and(event, |_| Ok(()));
    }

    fn log_and(&self, event: impl FnOnce() -> F::Event, then: impl FnOnce(&mut Open<F>) -> io::Result<()>) {
        if !self.turns.is_own() {
            return;
        }
        let mut open = self.open.lock();
        let Some(record) = &mut *open else { return };
        if let Err(error) = record.writer.write(&event()).and_then(|()| then(record)) {
            warn!("{}: cannot write the record, which ends here: {error}", self.name);
            *open = None;
        }
    }

    /// Executes an entry in a turn; it begins with the event `enter` and ends with `leave` of what `act` returns.
    pub fn turn<T: Default>(
        &self,
        enter: impl FnOnce() -> F::Event,
        act: impl FnOnce() -> T,
        leave: impl Fn(T) -> F::Event,
    ) {
        let _turn = self.turns.take();
        self.begin(enter);
        let mut leaving = Leaving {
            recording: self,
            result: T::default(),
            leave,
        };
        leaving.result = act();
    }

    /// Ends the entry in progress with `leave`, calls `act` with the turn given up, and begins an entry with `enter` of
    /// its result. `act` may wait for other threads.
    pub fn suspend<T>(&self, leave: F::Event, act: impl FnOnce() -> T, enter: impl FnOnce(&T) -> F::Event) -> T {
        self.log_and(|| leave, Open::leave);
        let result = self.turns.suspend(act);
        self.begin(|| enter(&result));
        result
    }

    fn begin(&self, enter: impl FnOnce() -> F::Event) {
        self.end_at_limit();
        self.log_and(enter, |open| {
            open.depth += 1;
            Ok(())
        });
    }

    /// Ends a record that has reached its limit, between two entries.
    fn end_at_limit(&self) {
        let is_full = |open: &mut Open<F>| open.depth == 0 && open.writer.written() >= LIMIT;
        let full = self.open.lock().take_if(is_full);
        if let Some(open) = full {
            warn!("{}: the record has reached its limit of {LIMIT} bytes", self.name);
            self.complete(open);
        }
    }
}

/// End of an entry, also of one that panics.
struct Leaving<'a, F: Format, T: Default, L: Fn(T) -> F::Event> {
    recording: &'a Recording<F>,
    /// The entry's result.
    result: T,
    leave: L,
}

impl<F: Format, T: Default, L: Fn(T) -> F::Event> Drop for Leaving<'_, F, T, L> {
    fn drop(&mut self) {
        let result = std::mem::take(&mut self.result);
        self.recording.log_and(|| (self.leave)(result), Open::leave);
    }
}

impl<F: Format> fmt::Debug for Recording<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recording").field(&self.name).finish()
    }
}

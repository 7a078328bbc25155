//! Queue between the threads that move the frames and the writer. Neither waits for the other: what does not fit is
//! counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::{CaptureOptions, CaptureStats, command_block};
use crate::net::burst::Burst;
use crate::net::mac_table::PortId;
use crate::net::tap::{CommandRecord, Destination, PortTap, Tap};
use crate::net::work::{Effect, FrameNumber, Sender};

/// Time that a frame waits for its effects: much longer than a delivery on a busy host, and not noticed by who watches.
const HOLD: Duration = Duration::from_millis(250);
/// Interval at which the writer looks for frames that have waited.
const TICK: Duration = Duration::from_millis(50);
/// Memory that an entry takes besides its bytes, and an effect, rounded up.
const ENTRY_CHARGE: usize = 256;
const EFFECT_CHARGE: usize = 64;
/// Maximum number of effects of a frame: the comment is at most 65,535 bytes long.
const MAX_EFFECTS: usize = 256;

/// Kind of a pcapng interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum InterfaceKind {
    /// Frames from a port.
    Frames,
    /// Commands of the NIC at a port.
    Commands,
}

/// A pcapng interface. Its number is its position.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    pub kind: InterfaceKind,
    pub name: Arc<str>,
    /// Frames or commands, the omitted ones included.
    pub seen: u64,
    pub omitted: u64,
}

/// Subject of an entry.
#[derive(Debug)]
pub(super) enum About {
    Frame {
        number: FrameNumber,
        sender: Option<Sender>,
        effects: Vec<(Arc<str>, Effect)>,
    },
    /// A command, and its comment.
    Command(String),
}

/// A frame or a command.
#[derive(Debug)]
pub(super) struct Entry {
    /// Number of the interface.
    pub interface: u32,
    /// Name of the port.
    pub port: Arc<str>,
    /// Time since 1970.
    pub time: Duration,
    pub bytes: Vec<u8>,
    /// Bytes of a frame or command that is captured as a whole.
    pub length: u32,
    pub about: About,
}

impl Entry {
    fn charge(&self) -> usize {
        let effects = match &self.about {
            About::Frame { effects, .. } => effects.len(),
            About::Command(_) => 0,
        };
        ENTRY_CHARGE + self.bytes.len() + effects * EFFECT_CHARGE
    }
}

/// Entries for the writer, and the interfaces that it does not know.
#[derive(Debug)]
pub(super) struct Taken {
    pub interfaces: Vec<Interface>,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Number of entries that were taken.
    taken: u64,
    /// Memory that the entries take.
    waiting: usize,
    /// Position of each frame, counted with those that were taken.
    positions: HashMap<FrameNumber, u64>,
    interfaces: Vec<Interface>,
    numbers: HashMap<(PortId, InterfaceKind), u32>,
    written: CaptureStats,
    /// The writer has ended.
    ended: bool,
}

impl State {
    fn interface(&mut self, port: &PortTap, kind: InterfaceKind) -> u32 {
        let interfaces = &mut self.interfaces;
        *self.numbers.entry((port.id(), kind)).or_insert_with(|| {
            interfaces.push(Interface {
                kind,
                name: port.name().clone(),
                seen: 0,
                omitted: 0,
            });
            interfaces.len() as u32 - 1
        })
    }

    fn push(&mut self, entry: Entry) {
        if let About::Frame { number, .. } = entry.about {
            self.positions.insert(number, self.taken + self.entries.len() as u64);
        }
        self.waiting += entry.charge();
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.taken += 1;
        self.waiting -= entry.charge();
        if let About::Frame { number, .. } = entry.about {
            self.positions.remove(&number);
        }
        Some(entry)
    }
}

/// The queue of one capture; its tap.
pub(super) struct Queue {
    port: Option<String>,
    commands: bool,
    memory: usize,
    /// The clocks at the beginning: entries have times that do not go back.
    begun: (Instant, Duration),
    /// Memory in use, by entries in the queue and in the writer.
    used: AtomicUsize,
    /// The output takes no more.
    closed: AtomicBool,
    /// The capture ends when all that it has is written.
    ending: AtomicBool,
    deadline: Option<Instant>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// Creates the queue of a capture that ends at `deadline` if not before.
    pub fn new(options: &CaptureOptions, deadline: Option<Instant>) -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            port: options.port.clone(),
            commands: options.commands,
            memory: options.memory,
            begun: (Instant::now(), unix.unwrap_or_default()),
            used: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            deadline,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn now(&self) -> Duration {
        self.begun.1 + self.begun.0.elapsed()
    }

    /// Reserves memory, if there is enough.
    fn reserve(&self, bytes: usize) -> bool {
        let grown = |used: usize| Some(used + bytes).filter(|used| *used <= self.memory);
        let order = Ordering::Relaxed;
        !self.is_closed() && self.used.fetch_update(order, order, grown).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub fn stats(&self) -> CaptureStats {
        let state = self.state.lock();
        CaptureStats {
            omitted: state.interfaces.iter().map(|interface| interface.omitted).sum(),
            ..state.written
        }
    }

    /// Ends the capture. Returns whether the writer ended within `timeout`.
    pub fn end(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        self.ending.store(true, Ordering::Relaxed);
        self.changed.notify_all();
        let ended = |state: &mut State| !state.ended;
        !self.changed.wait_while_for(&mut state, ended, timeout).timed_out()
    }

    /// Appends entries of an interface, made from `parts`, and counts `omitted` others.
    fn append(
        &self,
        port: &PortTap,
        kind: InterfaceKind,
        parts: impl ExactSizeIterator<Item = (Vec<u8>, usize, About)>,
        omitted: u64,
    ) {
        let mut state = self.state.lock();
        let number = state.interface(port, kind);
        let interface = &mut state.interfaces[number as usize];
        interface.seen += parts.len() as u64 + omitted;
        interface.omitted += omitted;
        let was_empty = state.entries.is_empty();
        // Under the lock: the order of the entries is that of their times.
        let time = self.now();
        for (bytes, length, about) in parts {
            state.push(Entry {
                interface: number,
                port: port.name().clone(),
                time,
                bytes,
                length: length as u32,
                about,
            });
        }
        if was_empty || state.waiting > self.memory / 2 {
            self.changed.notify_all();
        }
    }
}

/// The writer's side.
impl Queue {
    /// Waits for entries that have waited for their effects, or for which there is no memory any more. `known` is the
    /// number of interfaces that the writer knows. `None` at the end.
    pub fn take(&self, known: usize) -> Option<Taken> {
        let mut state = self.state.lock();
        loop {
            let mut entries = Vec::new();
            let old = self.now().saturating_sub(HOLD);
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.ending.store(true, Ordering::Relaxed);
            }
            let ending = self.is_ending();
            while let Some(first) = state.entries.front() {
                if !ending && first.time > old && state.waiting <= self.memory / 2 {
                    break;
                }
                entries.extend(state.pop());
            }
            if !entries.is_empty() {
                let interfaces = state.interfaces[known..].to_vec();
                return Some(Taken { interfaces, entries });
            }
            if ending {
                return None;
            }
            let tick = (!state.entries.is_empty()).then(|| Instant::now() + TICK);
            match tick.into_iter().chain(self.deadline).min() {
                Some(time) => {
                    self.changed.wait_until(&mut state, time);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Returns the memory of an entry, and counts it.
    pub fn done(&self, entry: &Entry, written: bool) {
        self.release(entry.charge());
        let mut state = self.state.lock();
        match &entry.about {
            _ if !written => state.interfaces[entry.interface as usize].omitted += 1,
            About::Frame { .. } => state.written.frames += 1,
            About::Command(_) => state.written.commands += 1,
        }
    }

    /// Sets the length of the output.
    pub fn set_bytes(&self, bytes: u64) {
        self.state.lock().written.bytes = bytes;
    }

    /// Takes no more entries.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Returns all interfaces, with the counters for the end of the output.
    pub fn interfaces(&self) -> (Duration, Vec<Interface>) {
        (self.now(), self.state.lock().interfaces.clone())
    }

    /// Reports the end of the writer; entries that it has not taken are omitted.
    pub fn writer_ended(&self) {
        self.close();
        let mut state = self.state.lock();
        while let Some(entry) = state.pop() {
            state.interfaces[entry.interface as usize].omitted += 1;
        }
        state.ended = true;
        self.changed.notify_all();
    }
}

impl Tap for Queue {
    fn frames(&self, port: &PortTap, destination: Destination<'_>, first: FrameNumber, burst: &Burst<'_>) {
        let selected = self.port.as_deref().is_none_or(|selected| {
            **port.name() == *selected
                || matches!(destination, Destination::All)
                || destination == Destination::Port(selected)
        });
        if !selected || self.is_ending() {
            return;
        }
        let (mut parts, mut omitted, mut next) = (Vec::new(), 0, first);
        burst.each(|frame| {
            let number = next;
            next = next.plus(1);
            let charge = ENTRY_CHARGE + frame.longest();
            if !self.reserve(charge) {
                omitted += 1;
                return;
            }
            let Some(bytes) = frame.to_bytes() else {
                self.release(charge);
                omitted += 1;
                return;
            };
            let about = About::Frame {
                number,
                sender: burst.sender_of(&frame),
                effects: Vec::new(),
            };
            let length = bytes.len();
            parts.push((bytes.into_owned(), length, about));
        });
        self.append(port, InterfaceKind::Frames, parts.into_iter(), omitted);
    }

    fn effect(&self, port: &PortTap, first: FrameNumber, count: u32, effect: Effect) {
        let state = &mut *self.state.lock();
        for index in 0..count {
            let position = state.positions.get(&first.plus(index));
            let entry = position.and_then(|position| state.entries.get_mut((position - state.taken) as usize));
            if let Some(Entry {
                about: About::Frame { effects, .. },
                ..
            }) = entry
                && effects.len() < MAX_EFFECTS
                && self.reserve(EFFECT_CHARGE)
            {
                effects.push((port.name().clone(), effect));
                state.waiting += EFFECT_CHARGE;
            }
        }
    }

    fn command(&self, port: &PortTap, command: &CommandRecord<'_>) {
        let selected = self.port.as_deref().is_none_or(|selected| **port.name() == *selected);
        if !self.commands || !selected || self.is_ending() {
            return;
        }
        let bytes = command_block::bytes(command);
        if self.reserve(ENTRY_CHARGE + bytes.len()) {
            let about = About::Command(command_block::comment(port.name(), command));
            let part = (bytes, command_block::length(command), about);
            self.append(port, InterfaceKind::Commands, [part].into_iter(), 0);
        } else {
            self.append(port, InterfaceKind::Commands, [].into_iter(), 1);
        }
    }
}

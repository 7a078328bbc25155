//! Answers a fabric from a record.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use vhost_daemon::fault::{FaultTape, Strike, Work};
use vhost_daemon::finding::{Kind, Object};
use vhost_daemon::record::RecordError;
use vhost_daemon::replay::{Found, Script};

use super::{Counts, Report};
use crate::connection::{Frontend, FrontendDoor};
use crate::ism_finding::{Descriptor, Finding};
use crate::record::{Event, IsmRecord, Reader};
use crate::tape::{Entry, Tape};

/// Player of a record.
#[derive(Clone)]
pub(super) struct Player(Arc<Shared>);

struct Shared {
    /// Unlocked while the devices execute an entry.
    script: Mutex<Script<IsmRecord, Counts>>,
    guests: Vec<String>,
    connections: AtomicU32,
    /// Random numbers so far.
    drawn: Mutex<HashSet<u64>>,
    /// Threads that wait for the answer of their VMM, by connection.
    waiting: Mutex<HashMap<u32, Sender<bool>>>,
    yields: Mutex<Sender<()>>,
    /// Work that faults have delayed, by its number.
    late: Mutex<Vec<Option<Work>>>,
}

/// Notices of the threads of entries: each waits or has ended.
pub(super) struct Yields(Receiver<()>);

impl Yields {
    /// Waits until the thread that runs waits or ends.
    pub fn wait(&self) {
        let _ = self.0.recv();
    }
}

/// Sends that a thread has ended, also by a panic.
pub(super) struct EndOfLane(Player);

impl Drop for EndOfLane {
    fn drop(&mut self) {
        self.0.give_way();
    }
}

impl Player {
    pub fn new(reader: Reader<Box<dyn Read + Send>>) -> (Self, Yields) {
        let (sender, receiver) = channel();
        let player = Self(Arc::new(Shared {
            guests: reader.setup().guests.clone(),
            script: Mutex::new(Script::new(reader)),
            connections: AtomicU32::new(0),
            drawn: Mutex::default(),
            waiting: Mutex::default(),
            yields: Mutex::new(sender),
            late: Mutex::default(),
        }));
        (player, Yields(receiver))
    }

    /// Number of entries so far.
    pub fn entries(&self) -> u64 {
        self.0.script.lock().entries()
    }

    /// Returns the next entry; `None` at the end of the record.
    pub fn next_entry(&self) -> Option<Entry> {
        let mut script = self.0.script.lock();
        let entry = script.take_if(|event| match event {
            Event::Enter(entry) => Some(*entry),
            _ => None,
        });
        match entry {
            None => script.expect_end(),
            Some(Entry::Control(_) | Entry::Event(_) | Entry::Doorbell(_) | Entry::Move(_)) => {
                script.counts().kicks += 1
            }
            Some(_) => {}
        }
        entry
    }

    /// Ends an entry that has read `read`.
    pub fn leave(&self, read: &[u8]) {
        self.0.script.lock().leave(&Event::Leave(ByteBuf::from(read)), true);
    }

    /// Ends the replay of a record that no recorder makes.
    pub fn refuse(&self, reason: &'static str) {
        self.0.script.lock().refuse(reason);
    }

    /// Returns the tape of the faults of a guest.
    pub fn of_faults(&self, guest: u16) -> Arc<dyn FaultTape> {
        Arc::new(GuestFaults {
            player: self.clone(),
            guest,
        })
    }

    /// Does work that a fault delayed. Returns nothing if it is not known.
    pub fn do_late(&self, number: u32) -> Option<()> {
        let work = self.0.late.lock().get_mut(number as usize).and_then(Option::take)?;
        work();
        Some(())
    }

    /// Returns the result, and ends the replay for the threads that wait.
    pub fn report(&self) -> Result<Report, RecordError> {
        let report = {
            let mut script = self.0.script.lock();
            let report = script.finish();
            script.refuse("the replay is over");
            report
        };
        self.0.waiting.lock().clear();
        report
    }

    /// Returns what sends that the calling thread has ended.
    pub fn end_of_lane(&self) -> EndOfLane {
        EndOfLane(self.clone())
    }

    fn give_way(&self) {
        let _ = self.0.yields.lock().send(());
    }

    /// Whether the control worker of a connection waits for its VMM.
    pub fn waits(&self, connection: u32) -> bool {
        self.0.waiting.lock().contains_key(&connection)
    }

    /// Passes the answer of a VMM to the thread that waits for it. Returns false if none does.
    pub fn resume(&self, connection: u32, ok: bool) -> bool {
        let waiting = self.0.waiting.lock().remove(&connection);
        waiting.is_some_and(|sender| sender.send(ok).is_ok())
    }

    /// Asks the VMM of a connection something: the entry ends, and the answer is another one. Returns the answer.
    pub fn ask(&self, connection: u32, question: &Event) -> bool {
        let answer = {
            let mut script = self.0.script.lock();
            script.counts().maps += u64::from(!matches!(question, Event::Mapper { .. }));
            script.take(|event| (event == question).then_some(()), || question.to_string());
            script.leave(&Event::Leave(ByteBuf::new()), true);
            if !script.follows() {
                return false;
            }
            let (sender, answer) = channel();
            self.0.waiting.lock().insert(connection, sender);
            answer
        };
        self.give_way();
        answer.recv().unwrap_or(false)
    }

    /// Takes the next event as [`Script::take`] does, and counts it.
    pub fn take<T>(
        &self,
        select: impl FnOnce(&Event) -> Option<T>,
        replayed: impl FnOnce() -> String,
        count: impl FnOnce(&mut Counts, &T),
    ) -> Option<T> {
        let mut script = self.0.script.lock();
        let taken = script.take(select, replayed);
        if let Some(taken) = &taken {
            count(script.counts(), taken);
        }
        taken
    }

    /// Takes an output that is equal to the next event.
    fn output(&self, output: &Event) {
        self.take(
            |event| (event == output).then_some(()),
            || output.to_string(),
            |_, ()| {},
        );
    }

    /// Takes the descriptor of what was read before; older records have none.
    pub fn take_descriptor(&self, connection: u32) -> Descriptor {
        let descriptor = |event: &Event| match event {
            Event::Descriptor { connection: of, bytes } if *of == connection => Some(bytes.to_vec()),
            _ => None,
        };
        self.0.script.lock().take_if(descriptor).unwrap_or_default()
    }

    /// Takes the findings about a ring, which is not in the replay: they come before what was read from it.
    pub fn take_ring_findings(&self) {
        let mut script = self.0.script.lock();
        let finding = |event: &Event| match event {
            Event::Finding {
                guest, kind, number, ..
            } if kind == Finding::BadRing.name() => Some((*guest, *number)),
            _ => None,
        };
        while let Some((guest, number)) = script.take_if(finding) {
            self.found(
                &mut script,
                guest,
                Finding::BadRing.name(),
                Object::new("virtqueue", number),
                Finding::BadRing.text(),
            );
        }
    }

    fn found(
        &self,
        script: &mut Script<IsmRecord, Counts>,
        guest: u16,
        kind: &'static str,
        object: Object,
        text: impl fmt::Display,
    ) {
        let name = self.0.guests.get(usize::from(guest)).map_or("", String::as_str);
        script.found(|event, entry| Found {
            event,
            entry,
            kind,
            object: object.kind,
            number: object.number,
            text: format!("{name}: {} {}: {text}", object.kind, object.number),
        });
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player").finish_non_exhaustive()
    }
}

impl Tape for Player {
    fn enter(&self, _: Entry, act: &mut dyn FnMut() -> Vec<u8>) {
        act();
    }

    fn enter_if(&self, condition: &mut dyn FnMut() -> bool, _: Entry, act: &mut dyn FnMut()) {
        if condition() {
            act();
        }
    }

    fn random(&self, number: u64) -> u64 {
        let recorded = |event: &Event| match event {
            Event::Random(number) => Some(*number),
            _ => None,
        };
        let taken = self.take(recorded, || "random number".to_owned(), |_, _| {});
        match taken {
            Some(taken) if self.0.drawn.lock().insert(taken) => taken,
            Some(_) => {
                // Objects are told apart by them.
                self.refuse("a random number is drawn twice");
                number
            }
            None => number,
        }
    }

    fn finding(&self, guest: u16, kind: &'static str, object: Object, evidence: &[u8], text: fmt::Arguments<'_>) {
        let finding = Event::Finding {
            guest,
            kind: kind.to_owned(),
            object: object.kind.to_owned(),
            number: object.number,
            evidence: ByteBuf::from(evidence),
        };
        let mut script = self.0.script.lock();
        let same = script.take(|event| (*event == finding).then_some(()), || finding.to_string());
        if same.is_some() {
            self.found(&mut script, guest, kind, object, text);
        }
    }

    fn awake(&self, guest: u16, awake: bool) {
        self.output(&Event::Awake { guest, awake });
    }

    fn collect(&self, guest: u16, limit: u32, rung: &mut Vec<u32>) {
        let recorded = |event: &Event| match event {
            Event::Collect {
                guest: of,
                limit: below,
                rung,
            } if (*of, *below) == (guest, limit) => Some(rung.clone()),
            _ => None,
        };
        let replayed = || format!("doorbells of guest {guest} below chunk {limit}");
        let taken = self.take(recorded, replayed, |counts, rung| counts.doorbells += rung.len() as u64);
        *rung = taken.unwrap_or_default();
    }

    fn sleep(&self, _: Duration) {}

    fn bell(&self, guest: u16, chunk: u32, _: bool) -> bool {
        let recorded = |event: &Event| match event {
            Event::Bell {
                guest: of,
                chunk: at,
                asleep,
            } if (*of, *at) == (guest, chunk) => Some(*asleep),
            _ => None,
        };
        let replayed = || format!("bell of guest {guest}, chunk {chunk}");
        self.take(recorded, replayed, |_, _| {}).unwrap_or(false)
    }

    fn take(&self, guest: u16, chunk: u32, _: bool) -> bool {
        let recorded = |event: &Event| match event {
            Event::Take {
                guest: of,
                chunk: at,
                rung,
            } if (*of, *at) == (guest, chunk) => Some(*rung),
            _ => None,
        };
        let replayed = || format!("doorbell of guest {guest}, chunk {chunk}");
        let count = |counts: &mut Counts, rung: &bool| counts.doorbells += u64::from(*rung);
        self.take(recorded, replayed, count).unwrap_or(false)
    }
}

/// The faults of one guest in a record.
#[derive(Debug)]
struct GuestFaults {
    player: Player,
    guest: u16,
}

impl FaultTape for GuestFaults {
    fn struck(&self, _: &Strike) {}

    fn replayed(&self, door: u32, object: u32, asks: &mut dyn FnMut(&str) -> bool) -> Option<Strike> {
        let recorded = |event: &Event| match event {
            Event::Strike {
                guest,
                door: at,
                object: of,
                fault,
                random,
            } if (*guest, *at, *of) == (self.guest, door, object) && asks(fault) => Some(Strike {
                door,
                object,
                fault: fault.clone(),
                random: *random,
            }),
            _ => None,
        };
        self.player.0.script.lock().take_if(recorded)
    }

    fn late(&self, work: Work) -> Option<Work> {
        self.player.0.late.lock().push(Some(work));
        None
    }

    fn act(&self, _: &str, act: &mut dyn FnMut()) {
        act();
    }
}

impl FrontendDoor for Player {
    fn connect(&self, _: u16) -> u32 {
        self.0.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn disconnect(&self, _: u32) {}

    fn serve(&self, _: u32, frontend: &dyn Frontend, serve: &mut dyn FnMut(&dyn Frontend)) {
        serve(frontend);
    }
}

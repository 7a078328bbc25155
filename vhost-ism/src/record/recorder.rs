//! Records a fabric and its guests.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_bytes::ByteBuf;
use vhost_daemon::fault::{FaultTape, Strike, Work};
use vhost_daemon::finding::Object;
use vhost_daemon::record::{Recording, Turns};

use super::event::Event;
use super::setup::{IsmRecord, Setup};
use crate::tape::{Entry, Tape};

/// Recorder of a fabric.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    recording: Recording<IsmRecord>,
    connections: AtomicU32,
    /// Number of pieces of work that faults have delayed.
    delayed: AtomicU32,
}

impl Recorder {
    /// Records a fabric to a file.
    pub fn to_file(file: File, setup: &Setup) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            recording: Recording::to_file("fabric", Arc::<Turns>::default(), file, setup)?,
            connections: AtomicU32::new(0),
            delayed: AtomicU32::new(0),
        })))
    }

    /// Calls `create`, which creates the fabric and its guests with this recorder as their tape.
    pub fn create<T>(&self, create: impl FnOnce(Arc<dyn Tape>) -> T) -> T {
        let mut created = None;
        let act = || {
            created = Some(create(Arc::new(self.clone())));
            ByteBuf::new()
        };
        self.turn(Entry::Create, act);
        created.expect("a turn calls its closure")
    }

    /// Returns the tape of the faults of a guest.
    pub fn of_faults(&self, guest: u16) -> Arc<dyn FaultTape> {
        Arc::new(GuestFaults {
            recorder: self.clone(),
            guest,
        })
    }

    /// Ends the record after the entry in progress; later events are not recorded. Further calls are ignored.
    pub fn finish(&self) {
        self.0.recording.finish();
    }

    /// Writes an event of this turn.
    pub(super) fn log(&self, event: impl FnOnce() -> Event) {
        self.0.recording.log(event);
    }

    /// Asks the VMM of a connection something, and waits for its answer without a turn.
    pub(super) fn ask<T>(
        &self,
        connection: u32,
        question: Event,
        ask: impl FnOnce() -> T,
        is_ok: impl FnOnce(&T) -> bool,
    ) -> T {
        self.log(|| question);
        self.0.recording.suspend(Event::Leave(ByteBuf::new()), ask, |answer| {
            let ok = is_ok(answer);
            Event::Enter(Entry::Answer { connection, ok })
        })
    }

    /// Records a new connection of a guest, and returns its number.
    pub(super) fn connection(&self, guest: u16) -> u32 {
        let mut number = 0;
        let act = || {
            number = self.0.connections.fetch_add(1, Ordering::Relaxed);
            ByteBuf::new()
        };
        self.turn(Entry::Connect { guest }, act);
        number
    }

    fn turn(&self, entry: Entry, act: impl FnOnce() -> ByteBuf) {
        self.0.recording.turn(|| Event::Enter(entry), act, Event::Leave);
    }
}

/// The tape of the faults of one guest.
#[derive(Debug)]
struct GuestFaults {
    recorder: Recorder,
    guest: u16,
}

impl FaultTape for GuestFaults {
    fn struck(&self, strike: &Strike) {
        self.recorder.log(|| Event::Strike {
            guest: self.guest,
            door: strike.door,
            object: strike.object,
            fault: strike.fault.clone(),
            random: strike.random,
        });
    }

    fn replayed(&self, _: u32, _: u32, _: &mut dyn FnMut(&str) -> bool) -> Option<Strike> {
        None
    }

    fn late(&self, work: Work) -> Option<Work> {
        let number = self.recorder.0.delayed.fetch_add(1, Ordering::Relaxed);
        let recorder = self.recorder.clone();
        let work = move || {
            let act = || {
                work();
                ByteBuf::new()
            };
            recorder.turn(Entry::Late(number), act);
        };
        Some(Box::new(work))
    }

    /// The only action, the end of a session, is an entry itself.
    fn act(&self, _: &str, act: &mut dyn FnMut()) {
        act();
    }
}

impl Tape for Recorder {
    fn enter(&self, entry: Entry, act: &mut dyn FnMut() -> Vec<u8>) {
        self.turn(entry, || ByteBuf::from(act()));
    }

    fn enter_if(&self, condition: &mut dyn FnMut() -> bool, entry: Entry, act: &mut dyn FnMut()) {
        let _turn = self.0.recording.turns().take();
        if condition() {
            self.turn(entry, || {
                act();
                ByteBuf::new()
            });
        }
    }

    fn random(&self, number: u64) -> u64 {
        self.log(|| Event::Random(number));
        number
    }

    fn finding(&self, guest: u16, kind: &'static str, object: Object, evidence: &[u8], _: fmt::Arguments<'_>) {
        self.log(|| Event::Finding {
            guest,
            kind: kind.to_owned(),
            object: object.kind.to_owned(),
            number: object.number,
            evidence: ByteBuf::from(evidence),
        });
    }

    fn awake(&self, guest: u16, awake: bool) {
        self.log(|| Event::Awake { guest, awake });
    }

    fn collect(&self, guest: u16, limit: u32, rung: &mut Vec<u32>) {
        self.log(|| Event::Collect {
            guest,
            limit,
            rung: rung.clone(),
        });
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }

    fn take(&self, guest: u16, chunk: u32, rung: bool) -> bool {
        self.log(|| Event::Take { guest, chunk, rung });
        rung
    }

    fn bell(&self, guest: u16, chunk: u32, asleep: bool) -> bool {
        self.log(|| Event::Bell { guest, chunk, asleep });
        asleep
    }
}

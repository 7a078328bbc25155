//! Records a fabric and its guests.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{info, warn};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use vhost_daemon::fault::{FaultTape, Strike, Work};
use vhost_daemon::finding::Object;
use vhost_daemon::record::{Begun, OnDemand, OrderError, Recording};

use super::event::Event;
use super::order::Order;
use super::setup::{IsmRecord, Setup};
use crate::tape::{Entry, Tape};

/// Name of the device in logs.
const NAME: &str = "fabric";

/// Recorder of a fabric.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    recording: Recording<IsmRecord>,
    setup: Setup,
    on_demand: OnDemand<Order>,
    /// A leaf.
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// Connections that have begun since the record did.
    connections: u32,
    /// Connections that have not ended.
    live: u32,
    /// Records that have begun on demand.
    records: u32,
    /// Pieces of work that faults have delayed since.
    delayed: u32,
}

impl Recorder {
    /// Records a fabric to a file.
    pub fn to_file(file: File, setup: &Setup) -> io::Result<Self> {
        let recording = Recording::to_file(NAME, Arc::default(), file, setup)?;
        Ok(Self::new(recording, setup))
    }

    /// Makes the guests of a fabric take turns, and records them on demand.
    pub fn on_demand(setup: &Setup) -> Self {
        Self::new(Recording::turns_only(NAME, Arc::default()), setup)
    }

    fn new(recording: Recording<IsmRecord>, setup: &Setup) -> Self {
        Self(Arc::new(Shared {
            recording,
            setup: setup.clone(),
            on_demand: OnDemand::default(),
            numbers: Mutex::default(),
        }))
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

    /// Begins a record when the fabric is without state: at once if no guest has a VMM, or when the last one is gone.
    /// `order` is not called if there is a record or an order.
    pub fn begin<E: From<OrderError>>(&self, order: impl FnOnce() -> Result<Order, E>) -> Result<Begun, E> {
        let recording = &self.0.recording;
        let _turn = recording.turns().take();
        self.0.on_demand.place(recording, order)?;
        if self.0.numbers.lock().live > 0 {
            return Ok(Begun::Later);
        }
        self.begin_ordered();
        Ok(Begun::Now)
    }

    /// Ends the record, or takes back the order for one. Returns false if there is neither.
    pub fn end(&self) -> bool {
        self.0.on_demand.end(&self.0.recording)
    }

    /// Begins the record that was ordered, if there is one, with the creation of the fabric as it is: empty, its guests
    /// with the identities of their next sessions.
    fn begin_ordered(&self) {
        let Some(Order { file, guests }) = self.0.on_demand.take() else {
            return;
        };
        // That of a connection whose end has failed.
        guests.iter().for_each(|guest| guest.end_session());
        let recording = &self.0.recording;
        match recording.begin_file(file, &self.0.setup) {
            Ok(_) => info!("{NAME}: the record begins"),
            Err(error) => return warn!("{NAME}: cannot write the record: {error}"),
        }
        {
            let mut numbers = self.0.numbers.lock();
            *numbers = Numbers {
                records: numbers.records + 1,
                ..Numbers::default()
            };
        }
        let fabric = guests.iter().map(|guest| guest.fabric().id()).take(1);
        let identities = guests.iter().flat_map(|guest| guest.identity());
        self.turn(Entry::Create, || {
            fabric
                .chain(identities)
                .for_each(|number| self.log(|| Event::Random(number)));
            ByteBuf::new()
        });
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
            let mut numbers = self.0.numbers.lock();
            number = numbers.connections;
            numbers.connections += 1;
            numbers.live += 1;
            ByteBuf::new()
        };
        self.turn(Entry::Connect { guest }, act);
        number
    }

    /// Notes the end of a connection and its workers. A record that waits for the last one begins.
    pub(super) fn connection_gone(&self) {
        let _turn = self.0.recording.turns().take();
        let live = {
            let mut numbers = self.0.numbers.lock();
            numbers.live -= 1;
            numbers.live
        };
        if live == 0 {
            self.begin_ordered();
        }
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
        let (record, number) = {
            let mut numbers = self.recorder.0.numbers.lock();
            numbers.delayed += 1;
            (numbers.records, numbers.delayed - 1)
        };
        let recorder = self.recorder.clone();
        let work = move || {
            let _turn = recorder.0.recording.turns().take();
            // That of the sessions before is not in the record.
            if recorder.0.numbers.lock().records == record {
                let act = || {
                    work();
                    ByteBuf::new()
                };
                recorder.turn(Entry::Late(number), act);
            }
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

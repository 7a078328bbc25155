//! Answers a NIC from a record, at its doors.

use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use vhost_daemon::fault::{FaultTape, Strike, Work};
use vhost_daemon::finding::Object;
use vhost_daemon::record::RecordError;
use vhost_daemon::replay::{Found, Script};

use super::{Counts, Report};
use crate::dma::{self, DmaError, MemoryAccess, MemoryDoor, MemoryTape};
use crate::hca::tape::{self, Tape};
use crate::net::{Burst, Cable, Direction, End, Frame, Port};
use crate::nic::Nic;
use crate::pci::{Delivery, FunctionParts, InterruptLines, MsixMessage};
use crate::record::{Entry, Event, NicRecord, Reader};

/// Maximum nesting of answers to frames: more than that of deliveries in a switch.
const MAX_NESTING: u32 = 32;

/// Player of a record, at the doors of one NIC.
#[derive(Clone)]
pub(super) struct Player(Arc<Shared>);

struct Shared {
    /// Unlocked while the NIC executes an entry.
    script: Mutex<Script<NicRecord, Counts>>,
    /// Latest reading of the clock.
    time: AtomicU64,
    nic: OnceLock<Weak<Nic>>,
    /// Work that faults have delayed, by its number.
    late: Mutex<Vec<Option<Work>>>,
    nesting: AtomicU32,
}

impl Player {
    pub fn new(reader: Reader<Box<dyn Read + Send>>) -> Self {
        Self(Arc::new(Shared {
            script: Mutex::new(Script::new(reader)),
            time: AtomicU64::new(0),
            nic: OnceLock::new(),
            late: Mutex::default(),
            nesting: AtomicU32::new(0),
        }))
    }

    /// Puts the player in the place of guest memory.
    pub fn install(&self, parts: &FunctionParts) {
        parts.dma.set_door(Arc::new(self.clone()));
    }

    /// Names the NIC that receives what is an answer to its frames.
    pub fn connect(&self, nic: &Arc<Nic>) {
        let _ = self.0.nic.set(Arc::downgrade(nic));
    }

    /// Number of entries from outside so far.
    pub fn entries(&self) -> u64 {
        self.0.script.lock().entries()
    }

    /// Returns the next entry from outside; `None` at the end of the record.
    pub fn next_entry(&self) -> Option<Entry> {
        let mut script = self.0.script.lock();
        let entry = take_entry(&mut script);
        if entry.is_none() {
            script.expect_end();
        }
        entry
    }

    /// Ends an entry from outside that has read `read`.
    pub fn leave(&self, read: &[u8]) {
        self.0.script.lock().leave(&Event::Leave(ByteBuf::from(read)), true);
    }

    /// Ends the replay of a record that no recorder makes.
    pub fn refuse(&self, reason: &'static str) {
        self.0.script.lock().refuse(reason);
    }

    /// Returns the result.
    pub fn report(&self, commands: u64) -> Result<Report, RecordError> {
        let mut report = self.0.script.lock().finish()?;
        report.counts.commands = commands;
        Ok(report)
    }

    /// Takes the next event as [`Script::take`] does.
    fn take<T>(&self, select: impl FnOnce(&Event) -> Option<T>, replayed: impl FnOnce() -> Event) -> Option<T> {
        self.0.script.lock().take(select, || replayed().to_string())
    }

    /// Does work that a fault delayed.
    pub fn do_late(&self, number: u32) {
        let work = self.0.late.lock().get_mut(number as usize).and_then(Option::take);
        match work {
            Some(work) => work(),
            None => self.refuse("delayed work is not known"),
        }
    }

    /// Delivers recorded frames.
    pub fn receive(&self, nic: &Nic, frames: &[ByteBuf]) {
        let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame::new(bytes)).collect();
        if frames.windows(2).any(|pair| pair[0].addresses() != pair[1].addresses()) {
            return self.refuse("the frames of a delivery have several addresses");
        }
        nic.receive_burst(&Burst::new(&frames));
    }

    /// Makes the entries that are answers to frames, until their delivery ends.
    fn answer(&self) {
        loop {
            let entry = take_entry(&mut self.0.script.lock());
            match entry {
                Some(Entry::Receive(frames)) => {
                    if let Some(nic) = self.0.nic.get().and_then(Weak::upgrade) {
                        self.receive(&nic, &frames);
                    }
                    self.0.script.lock().leave(&Event::Leave(ByteBuf::new()), false);
                }
                Some(_) => return self.refuse("an answer to a frame is no frame"),
                None => {
                    self.take(|event| (*event == Event::Sent).then_some(()), || Event::Sent);
                    return;
                }
            }
        }
    }
}

/// Takes the next event if it is an entry.
fn take_entry(script: &mut Script<NicRecord, Counts>) -> Option<Entry> {
    let entry = script.take_if(|event| match event {
        Event::Enter(entry) => Some(entry.clone()),
        _ => None,
    })?;
    match &entry {
        Entry::Read { .. } | Entry::Write { .. } => script.counts().accesses += 1,
        Entry::Receive(frames) => script.counts().frames_in += frames.len() as u64,
        _ => {}
    }
    Some(entry)
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player").finish_non_exhaustive()
    }
}

impl Tape for Player {
    fn enter(&self, _: tape::Entry<'_>, act: &mut dyn FnMut()) {
        act();
    }

    fn time(&self, _: u64) -> u64 {
        let mut script = self.0.script.lock();
        let recorded = |event: &Event| match event {
            Event::Time(time) => Some(*time),
            _ => None,
        };
        let time = script.take(recorded, || "reading of the clock".to_owned());
        if let Some(time) = time {
            self.0.time.store(time, Ordering::Relaxed);
        }
        self.0.time.load(Ordering::Relaxed)
    }

    fn finding(&self, kind: &'static str, object: Object, evidence: &[u8], text: fmt::Arguments<'_>) {
        let finding = Event::Finding {
            kind: kind.to_owned(),
            object: object.kind.to_owned(),
            number: object.number,
            evidence: ByteBuf::from(evidence),
        };
        let mut script = self.0.script.lock();
        let same = script.take(|event| (*event == finding).then_some(()), || finding.to_string());
        if same.is_some() {
            script.found(|event, entry| Found {
                event,
                entry,
                kind,
                object: object.kind,
                number: object.number,
                text: text.to_string(),
            });
        }
    }

    fn end(&self) {}
}

impl FaultTape for Player {
    fn struck(&self, _: &Strike) {}

    fn replayed(&self, door: u32, object: u32, asks: &mut dyn FnMut(&str) -> bool) -> Option<Strike> {
        let recorded = |event: &Event| match event {
            Event::Strike {
                door: at,
                object: of,
                fault,
                random,
            } if (*at, *of) == (door, object) && asks(fault) => Some(Strike {
                door,
                object,
                fault: fault.clone(),
                random: *random,
            }),
            _ => None,
        };
        self.0.script.lock().take_if(recorded)
    }

    fn late(&self, work: Work) -> Option<Work> {
        self.0.late.lock().push(Some(work));
        None
    }

    fn act(&self, _: &str, act: &mut dyn FnMut()) {
        act();
    }
}

impl MemoryDoor for Player {
    fn access(&self, _: &MemoryAccess) -> bool {
        true
    }

    fn tape(&self) -> Option<&dyn MemoryTape> {
        Some(self)
    }
}

/// The answer to accesses of a NIC that no longer follows the record.
fn gone(address: u64, length: usize) -> DmaError {
    DmaError::Unmapped {
        address,
        length: length as u64,
    }
}

impl MemoryTape for Player {
    fn read(&self, address: u64, data: &mut [u8], _: &mut dyn FnMut(&mut [u8]) -> dma::Result<()>) -> dma::Result<()> {
        let length = data.len();
        let recorded = |event: &Event| match event {
            Event::MemoryRead {
                address: at,
                length: of,
                answer,
            } if (*at, *of) == (address, length as u64) => match answer {
                Ok(bytes) if bytes.len() == length => {
                    data.copy_from_slice(bytes);
                    Some(Ok(()))
                }
                // A read that a recorder makes has all bytes.
                Ok(_) => None,
                Err(failure) => Some(Err(DmaError::from(*failure))),
            },
            _ => None,
        };
        let replayed = || format!("read of memory at {address:#x}, {length} bytes");
        let mut script = self.0.script.lock();
        script.counts().memory_reads += 1;
        let answer = script.take(recorded, replayed);
        answer.unwrap_or_else(|| Err(gone(address, length)))
    }

    fn write(&self, address: u64, data: &[u8], _: &mut dyn FnMut() -> dma::Result<()>) -> dma::Result<()> {
        let recorded = |event: &Event| match event {
            Event::MemoryWrite {
                address: at,
                data: bytes,
                answer,
            } if *at == address && *bytes == data => Some(answer.map_err(DmaError::from)),
            _ => None,
        };
        let replayed = || {
            let write = Event::MemoryWrite {
                address,
                data: ByteBuf::from(data),
                answer: Ok(()),
            };
            write.to_string()
        };
        let mut script = self.0.script.lock();
        script.counts().memory_writes += 1;
        let answer = script.take(recorded, replayed);
        answer.unwrap_or_else(|| Err(gone(address, data.len())))
    }

    fn update(
        &self,
        address: u64,
        change: &dyn Fn(u64) -> Option<u64>,
        _: &mut dyn FnMut() -> dma::Result<u64>,
    ) -> dma::Result<u64> {
        let recorded = |event: &Event| match event {
            Event::MemoryUpdate {
                address: at,
                answer,
                new,
            } if *at == address && answer.ok().and_then(change) == *new => Some(answer.map_err(DmaError::from)),
            _ => None,
        };
        let replayed = || format!("atomic access to memory at {address:#x}, with another result");
        let mut script = self.0.script.lock();
        script.counts().memory_writes += 1;
        let answer = script.take(recorded, replayed);
        answer.unwrap_or_else(|| Err(gone(address, size_of::<u64>())))
    }
}

impl InterruptLines for Player {
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery {
        let raised = Event::Interrupt {
            vector,
            address: message.address,
            data: message.data,
            sent: true,
        };
        let recorded = |event: &Event| match *event {
            Event::Interrupt {
                vector: of,
                address,
                data,
                sent,
            } if (of, address, data) == (vector, message.address, message.data) => Some(sent),
            _ => None,
        };
        let mut script = self.0.script.lock();
        let sent = script.take(recorded, || raised.to_string());
        script.counts().interrupts += u64::from(sent == Some(true));
        match sent {
            Some(false) => Delivery::NotNow,
            _ => Delivery::Done,
        }
    }
}

impl Cable for Player {
    fn carry(&self, direction: Direction, burst: &Burst<'_>, _: End<'_>) {
        if direction == Direction::In {
            return;
        }
        let mut frames = Vec::new();
        burst.each(|frame| frames.extend(frame.to_bytes().map(|bytes| ByteBuf::from(bytes.into_owned()))));
        let count = frames.len() as u64;
        let sent = Event::Send(frames);
        if self
            .take(|event| (*event == sent).then_some(()), || sent.clone())
            .is_none()
        {
            return;
        }
        self.0.script.lock().counts().frames_out += count;
        let depth = self.0.nesting.fetch_add(1, Ordering::Relaxed);
        if depth < MAX_NESTING {
            self.answer();
        } else {
            self.refuse("answers to frames are nested too deeply");
        }
        self.0.nesting.fetch_sub(1, Ordering::Relaxed);
    }
}

//! Records a guest at the doors of its NIC and function.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use flate2::Compression;
use log::{info, warn};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use vhost_daemon::finding::Object;
use vhost_daemon::trace::Tracer;

use super::event::{Entry, Event, Failure};
use super::header::Setup;
use super::turns::Turns;
use super::writer::Writer;
use crate::dma::{self, MemoryAccess, MemoryDoor, MemoryTape};
use crate::hca::nic_event;
use crate::hca::tape::{self, Tape};
use crate::net::{Burst, Cable, Direction, End, Frame};
use crate::nic::NicDoors;
use crate::pci::{
    Change, Delivery, FunctionDoor, FunctionParts, InterruptDoor, InterruptLines, Masking, MsixMessage, PciFunction,
    Space,
};

/// Maximum number of bytes of a record before compression.
const LIMIT: u64 = 16 << 30;

/// Number of entries after which all events are passed to the file: at most so many are lost with a killed daemon.
const FLUSHED: u64 = 64;

/// Recorder of one guest, at all doors of its NIC. A guest that only takes part in the turns has one without a file.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    name: String,
    tracer: Tracer,
    turns: Arc<Turns>,
    /// Lock order: taken in a turn; a leaf.
    tape: Option<Mutex<Option<Open>>>,
}

/// An open record.
struct Open {
    writer: Writer<File>,
    /// Number of entries in progress.
    depth: u32,
    /// Number of entries from outside.
    entries: u64,
}

impl Open {
    /// Counts the end of an entry.
    fn leave(&mut self) -> io::Result<()> {
        self.depth -= 1;
        self.entries += u64::from(self.depth == 0);
        match self.depth == 0 && self.entries.is_multiple_of(FLUSHED) {
            true => self.writer.flush(),
            false => Ok(()),
        }
    }
}

impl Recorder {
    /// Records a NIC to a file.
    pub fn to_file(turns: Arc<Turns>, file: File, setup: &Setup) -> io::Result<Self> {
        let writer = Writer::new(file, setup, Compression::fast())?;
        Ok(Self(Arc::new(Shared {
            name: setup.name.clone(),
            tracer: Tracer::new(setup.vhca_id),
            turns,
            tape: Some(Mutex::new(Some(Open {
                writer,
                depth: 0,
                entries: 0,
            }))),
        })))
    }

    /// Makes a NIC take turns with those that are recorded.
    pub fn turns_only(turns: Arc<Turns>, name: &str) -> Self {
        Self(Arc::new(Shared {
            name: name.to_owned(),
            tracer: Tracer::default(),
            turns,
            tape: None,
        }))
    }

    /// Puts the recorder into guest memory and interrupts, before anything uses them.
    pub fn install(&self, parts: &FunctionParts) {
        if self.0.tape.is_some() {
            parts.dma.set_door(Arc::new(self.clone()));
            parts.msix.set_door(Arc::new(self.clone()));
        }
    }

    /// Puts the recorder before the function.
    pub fn guard(&self, function: &PciFunction) {
        function.set_door(Arc::new(self.clone()));
    }

    /// The doors of the NIC itself.
    pub fn of_nic(&self) -> NicDoors {
        NicDoors {
            cable: self.0.tape.is_some().then(|| Arc::new(self.clone()) as Arc<dyn Cable>),
            tape: Some(Arc::new(self.clone())),
            ..NicDoors::default()
        }
    }

    /// Ends the record after the entry in progress; later events are not recorded. Further calls are ignored.
    pub fn finish(&self) {
        let _turn = self.0.turns.take();
        if let Some(open) = self.0.tape.as_ref().and_then(|tape| tape.lock().take()) {
            self.complete(open);
        }
    }

    fn complete(&self, open: Open) {
        match open.writer.finish().and_then(|file| file.sync_data()) {
            Ok(()) => info!("{}: the record is complete", self.0.name),
            Err(error) => warn!("{}: cannot write the end of the record: {error}", self.0.name),
        }
    }

    /// Writes an event of this turn; what other threads do meanwhile is not the guest's doing (statistics).
    fn log(&self, event: impl FnOnce() -> Event) {
        self.log_and(event, |_| Ok(()));
    }

    fn log_and(&self, event: impl FnOnce() -> Event, then: impl FnOnce(&mut Open) -> io::Result<()>) {
        let Some(tape) = &self.0.tape else { return };
        if !self.0.turns.is_own() {
            return;
        }
        let mut open = tape.lock();
        let Some(record) = &mut *open else { return };
        if let Err(error) = record.writer.write(&event()).and_then(|()| then(record)) {
            warn!("{}: cannot write the record, which ends here: {error}", self.0.name);
            *open = None;
        }
    }

    /// Executes an entry in a turn. `act` returns what the entry reads.
    fn turn(&self, entry: impl FnOnce() -> Entry, act: impl FnOnce() -> ByteBuf) {
        let _turn = self.0.turns.take();
        self.end_at_limit();
        let begin = |open: &mut Open| {
            open.depth += 1;
            Ok(())
        };
        self.log_and(|| Event::Enter(entry()), begin);
        let mut leaving = Leaving {
            recorder: self,
            read: ByteBuf::new(),
        };
        leaving.read = act();
    }

    /// Ends a record that has reached its limit, between two entries.
    fn end_at_limit(&self) {
        let Some(tape) = &self.0.tape else { return };
        let is_full = |open: &mut Open| open.depth == 0 && open.writer.written() >= LIMIT;
        let full = tape.lock().take_if(is_full);
        if let Some(open) = full {
            warn!("{}: the record has reached its limit of {LIMIT} bytes", self.0.name);
            self.complete(open);
        }
    }
}

/// End of an entry, also of one that panics.
struct Leaving<'a> {
    recorder: &'a Recorder,
    /// Bytes that the entry reads.
    read: ByteBuf,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let read = std::mem::take(&mut self.read);
        self.recorder.log_and(|| Event::Leave(read), Open::leave);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.0.name).finish()
    }
}

fn bytes(data: &[u8]) -> ByteBuf {
    ByteBuf::from(data)
}

impl Tape for Recorder {
    fn enter(&self, entry: tape::Entry<'_>, act: &mut dyn FnMut()) {
        let entry = || match entry {
            tape::Entry::Step => Entry::Step,
            tape::Entry::Receive(frames) => Entry::Receive(frames.iter().map(|frame| bytes(frame)).collect()),
            tape::Entry::Cable(plugged) => Entry::Cable(plugged),
            tape::Entry::PartnerSpeed(gbps) => Entry::PartnerSpeed(gbps),
        };
        self.turn(entry, || {
            act();
            ByteBuf::new()
        });
    }

    fn time(&self, nanoseconds: u64) -> u64 {
        self.log(|| Event::Time(nanoseconds));
        nanoseconds
    }

    fn finding(&self, kind: &'static str, object: Object, evidence: &[u8], _: fmt::Arguments<'_>) {
        self.log(|| Event::Finding {
            kind: kind.to_owned(),
            object: object.kind.to_owned(),
            number: object.number,
            evidence: bytes(evidence),
        });
    }

    fn end(&self) {
        self.finish();
    }
}

impl FunctionDoor for Recorder {
    fn read(&self, space: Space, offset: u64, data: &mut [u8], read: &mut dyn FnMut(&mut [u8])) {
        let entry = Entry::Read {
            space: space.into(),
            offset,
            length: data.len() as u32,
        };
        self.turn(
            || entry,
            || {
                read(data);
                bytes(data)
            },
        );
    }

    fn write(&self, space: Space, offset: u64, data: &[u8], write: &mut dyn FnMut()) {
        let entry = || Entry::Write {
            space: space.into(),
            offset,
            data: bytes(data),
        };
        self.turn(entry, || {
            write();
            ByteBuf::new()
        });
    }

    fn change(&self, change: Change, act: &mut dyn FnMut()) {
        let entry = match change {
            Change::Reset => Entry::Reset,
            Change::PowerCycle => Entry::PowerCycle,
            Change::Connect(masking) => Entry::Connect {
                masked_by_attachment: masking == Masking::Attachment,
            },
            Change::Disconnect => Entry::Disconnect,
            Change::Raise(vector) => Entry::Raise(vector),
            Change::Retry { first, count } => Entry::Retry(first, count),
        };
        self.turn(
            || entry,
            || {
                act();
                ByteBuf::new()
            },
        );
    }
}

impl MemoryDoor for Recorder {
    fn access(&self, access: &MemoryAccess) -> bool {
        nic_event::record_access(self.0.tracer, access);
        true
    }

    fn tape(&self) -> Option<&dyn MemoryTape> {
        Some(self)
    }
}

impl MemoryTape for Recorder {
    fn read(
        &self,
        address: u64,
        data: &mut [u8],
        live: &mut dyn FnMut(&mut [u8]) -> dma::Result<()>,
    ) -> dma::Result<()> {
        let result = live(data);
        self.log(|| Event::MemoryRead {
            address,
            length: data.len() as u64,
            answer: result.as_ref().map(|()| bytes(data)).map_err(Failure::from),
        });
        result
    }

    fn write(&self, address: u64, data: &[u8], live: &mut dyn FnMut() -> dma::Result<()>) -> dma::Result<()> {
        let result = live();
        self.log(|| Event::MemoryWrite {
            address,
            data: bytes(data),
            answer: result.as_ref().copied().map_err(Failure::from),
        });
        result
    }

    fn update(
        &self,
        address: u64,
        change: &dyn Fn(u64) -> Option<u64>,
        live: &mut dyn FnMut() -> dma::Result<u64>,
    ) -> dma::Result<u64> {
        let result = live();
        self.log(|| Event::MemoryUpdate {
            address,
            answer: result.as_ref().copied().map_err(Failure::from),
            new: result.as_ref().ok().and_then(|old| change(*old)),
        });
        result
    }
}

/// Lines of an attachment with the recorder before them.
struct Lines {
    recorder: Recorder,
    lines: Arc<dyn InterruptLines>,
}

impl InterruptDoor for Recorder {
    fn before(&self, lines: Arc<dyn InterruptLines>) -> Arc<dyn InterruptLines> {
        Arc::new(Lines {
            recorder: self.clone(),
            lines,
        })
    }
}

impl InterruptLines for Lines {
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery {
        let delivery = self.lines.deliver(vector, message);
        self.recorder.log(|| Event::Interrupt {
            vector,
            address: message.address,
            data: message.data,
            sent: delivery == Delivery::Done,
        });
        delivery
    }
}

impl Cable for Recorder {
    fn carry(&self, direction: Direction, burst: &Burst<'_>, end: End<'_>) {
        // The NIC itself records the frames that it gets: none without a link.
        if direction == Direction::In {
            return end.pass(burst);
        }
        let mut frames = Vec::new();
        burst.each(|frame| frames.extend(frame.to_bytes().map(|bytes| ByteBuf::from(bytes.into_owned()))));
        self.log(|| Event::Send(frames.clone()));
        if !frames.is_empty() {
            let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame::new(bytes)).collect();
            end.pass(&Burst::new(&frames));
        }
        self.log(|| Event::Sent);
    }
}

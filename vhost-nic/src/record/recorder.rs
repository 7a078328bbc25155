//! Records a guest at the doors of its NIC and function.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use serde_bytes::ByteBuf;
use vhost_daemon::finding::Object;
use vhost_daemon::record::{Recording, Turns};
use vhost_daemon::trace::Tracer;

use super::event::{Entry, Event, Failure};
use super::setup::{NicRecord, Setup};
use crate::dma::{self, MemoryAccess, MemoryDoor, MemoryTape};
use crate::hca::nic_event;
use crate::hca::tape::{self, Tape};
use crate::net::{Burst, Cable, Direction, End, Frame};
use crate::nic::NicDoors;
use crate::pci::{
    Change, Delivery, FunctionDoor, FunctionParts, InterruptDoor, InterruptLines, Masking, MsixMessage, PciFunction,
    Space,
};

/// Recorder of one guest, at all doors of its NIC. A guest that only takes part in the turns has one without a file.
#[derive(Debug, Clone)]
pub struct Recorder {
    recording: Arc<Recording<NicRecord>>,
    has_file: bool,
    tracer: Tracer,
}

impl Recorder {
    /// Records a NIC to a file.
    pub fn to_file(turns: Arc<Turns>, file: File, setup: &Setup) -> io::Result<Self> {
        Ok(Self {
            recording: Arc::new(Recording::to_file(&setup.name, turns, file, setup)?),
            has_file: true,
            tracer: Tracer::new(setup.vhca_id),
        })
    }

    /// Makes a NIC take turns with those that are recorded.
    pub fn turns_only(turns: Arc<Turns>, name: &str) -> Self {
        Self {
            recording: Arc::new(Recording::turns_only(name, turns)),
            has_file: false,
            tracer: Tracer::default(),
        }
    }

    /// Puts the recorder into guest memory and interrupts, before anything uses them.
    pub fn install(&self, parts: &FunctionParts) {
        if self.has_file {
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
            cable: self.has_file.then(|| Arc::new(self.clone()) as Arc<dyn Cable>),
            tape: Some(Arc::new(self.clone())),
            ..NicDoors::default()
        }
    }

    /// Ends the record after the entry in progress; later events are not recorded. Further calls are ignored.
    pub fn finish(&self) {
        self.recording.finish();
    }

    fn log(&self, event: impl FnOnce() -> Event) {
        self.recording.log(event);
    }

    /// Executes an entry in a turn. `act` returns what the entry reads.
    fn turn(&self, entry: impl FnOnce() -> Entry, act: impl FnOnce() -> ByteBuf) {
        self.recording.turn(|| Event::Enter(entry()), act, Event::Leave);
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
        nic_event::record_access(self.tracer, access);
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

//! Records a guest at the doors of its NIC and function.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{info, warn};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use vhost_daemon::fault::{FaultTape, Strike, Work};
use vhost_daemon::finding::Object;
use vhost_daemon::record::{Begun, OnDemand, OrderError, Recording, Turns};
use vhost_daemon::trace::Tracer;

use super::event::{Entry, Event, Failure};
use super::order::Order;
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

/// Recorder of one guest, at all doors of its NIC. One of a guest that only takes part in the turns is at no door but
/// that of entries.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    /// Whether it is at the doors.
    records: bool,
    tracer: Tracer,
    behind: Behind,
}

#[derive(Debug)]
struct Shared {
    recording: Recording<NicRecord>,
    /// Number of records that have begun on demand, and of pieces of work that faults have delayed since.
    delayed: Mutex<(u32, u32)>,
    on_demand: OnDemand<Order>,
    /// Whether a VMM has used the NIC since its last power cycle.
    used: AtomicBool,
}

/// Doors of the guest between the recorder and the outside: those of faults.
#[derive(Clone, Default)]
pub struct Behind {
    /// Door of guest memory.
    pub memory: Option<Arc<dyn MemoryDoor>>,
    /// Door of interrupts.
    pub interrupts: Option<Arc<dyn InterruptDoor>>,
    /// Cable.
    pub cable: Option<Arc<dyn Cable>>,
}

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").finish_non_exhaustive()
    }
}

impl Shared {
    fn new(recording: Recording<NicRecord>) -> Arc<Self> {
        Arc::new(Self {
            recording,
            delayed: Mutex::default(),
            on_demand: OnDemand::default(),
            used: AtomicBool::new(false),
        })
    }
}

impl Recorder {
    /// Records a NIC to a file.
    pub fn to_file(turns: Arc<Turns>, file: File, setup: &Setup) -> io::Result<Self> {
        Ok(Self {
            shared: Shared::new(Recording::to_file(&setup.name, turns, file, setup)?),
            records: true,
            tracer: Tracer::new(setup.vhca_id),
            behind: Behind::default(),
        })
    }

    /// Makes a NIC take turns with those that are recorded.
    pub fn turns_only(turns: Arc<Turns>, name: &str) -> Self {
        Self {
            shared: Shared::new(Recording::turns_only(name, turns)),
            records: false,
            tracer: Tracer::default(),
            behind: Behind::default(),
        }
    }

    /// Makes a NIC take turns, and records it on demand.
    pub fn on_demand(turns: Arc<Turns>, setup: &Setup) -> Self {
        Self {
            records: true,
            tracer: Tracer::new(setup.vhca_id),
            ..Self::turns_only(turns, &setup.name)
        }
    }

    /// Puts doors behind the recorder.
    #[must_use]
    pub fn before(self, behind: Behind) -> Self {
        Self { behind, ..self }
    }

    /// Puts the recorder into guest memory and interrupts, before anything uses them.
    pub fn install(&self, parts: &FunctionParts) {
        let Behind { memory, interrupts, .. } = match self.records {
            true => Behind {
                memory: Some(Arc::new(self.clone())),
                interrupts: Some(Arc::new(self.clone())),
                cable: None,
            },
            false => self.behind.clone(),
        };
        if let Some(memory) = memory {
            parts.dma.set_door(memory);
        }
        if let Some(interrupts) = interrupts {
            parts.msix.set_door(interrupts);
        }
    }

    /// Puts the recorder before the function.
    pub fn guard(&self, function: &PciFunction) {
        function.set_door(Arc::new(self.clone()));
    }

    /// The doors of the NIC itself, besides those of commands and entries.
    pub fn of_nic(&self) -> NicDoors {
        let cable = match self.records {
            true => Some(Arc::new(self.clone()) as Arc<dyn Cable>),
            false => self.behind.cable.clone(),
        };
        NicDoors {
            cable,
            tape: Some(Arc::new(self.clone())),
            ..NicDoors::default()
        }
    }

    /// Ends the record after the entry in progress; later events are not recorded. Further calls are ignored.
    pub fn finish(&self) {
        self.shared.recording.finish();
    }

    /// Begins a record when the NIC is without state: at once, or when its VMM is gone. `order` is not called if there
    /// is a record or an order.
    pub fn begin<E: From<OrderError>>(
        &self,
        order: impl FnOnce() -> Result<Order, E>,
        power_cycle: impl FnOnce(),
    ) -> Result<Begun, E> {
        let recording = &self.shared.recording;
        let _turn = recording.turns().take();
        if !self.records {
            return Err(OrderError::NotRecordable.into());
        }
        self.shared.on_demand.place(recording, order)?;
        if !self.shared.used.load(Ordering::Relaxed) {
            power_cycle();
            return Ok(Begun::Now);
        }
        Ok(Begun::Later)
    }

    /// Ends the record, or takes back the order for one. Returns false if there is neither.
    pub fn end(&self) -> bool {
        self.shared.on_demand.end(&self.shared.recording)
    }

    /// Begins the record that was ordered, if there is one, with a power cycle of a NIC without state.
    fn begin_ordered(&self, power_cycle: &mut dyn FnMut()) {
        let Some(order) = self.shared.on_demand.take() else {
            return;
        };
        let recording = &self.shared.recording;
        match recording.begin_file(order.file, &order.setup) {
            Ok(_) => info!("{}: the record begins", recording.name()),
            Err(error) => return warn!("{}: cannot write the record: {error}", recording.name()),
        }
        let mut delayed = self.shared.delayed.lock();
        *delayed = (delayed.0 + 1, 0);
        drop(delayed);
        self.turn(
            || Entry::PowerCycle,
            || {
                power_cycle();
                ByteBuf::new()
            },
        );
        (order.restore)();
    }

    fn log(&self, event: impl FnOnce() -> Event) {
        self.shared.recording.log(event);
    }

    /// Executes an entry in a turn. `act` returns what the entry reads.
    fn turn(&self, entry: impl FnOnce() -> Entry, act: impl FnOnce() -> ByteBuf) {
        self.shared.recording.turn(|| Event::Enter(entry()), act, Event::Leave);
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
        self.shared.used.store(true, Ordering::Relaxed);
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
        self.shared.used.store(true, Ordering::Relaxed);
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
        let _turn = self.shared.recording.turns().take();
        let used = change != Change::PowerCycle;
        self.shared.used.store(used, Ordering::Relaxed);
        self.turn(
            || entry,
            || {
                act();
                ByteBuf::new()
            },
        );
        if change == Change::PowerCycle {
            self.begin_ordered(act);
        }
    }
}

impl FaultTape for Recorder {
    fn struck(&self, strike: &Strike) {
        self.log(|| Event::Strike {
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
            let mut delayed = self.shared.delayed.lock();
            delayed.1 += 1;
            (delayed.0, delayed.1 - 1)
        };
        let recorder = self.clone();
        let work = move || {
            let _turn = recorder.shared.recording.turns().take();
            // That of the VMM before is not in the record.
            if recorder.shared.delayed.lock().0 == record {
                recorder.turn(
                    || Entry::Late(number),
                    || {
                        work();
                        ByteBuf::new()
                    },
                );
            }
        };
        Some(Box::new(work))
    }

    fn act(&self, fault: &str, act: &mut dyn FnMut()) {
        let entry = || Entry::Fault(fault.to_owned());
        self.turn(entry, || {
            act();
            ByteBuf::new()
        });
    }
}

impl MemoryDoor for Recorder {
    fn access(&self, access: &MemoryAccess) -> bool {
        match &self.behind.memory {
            Some(memory) => memory.access(access),
            None => {
                nic_event::record_access(self.tracer, access);
                true
            }
        }
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
        let lines = match &self.behind.interrupts {
            None => lines,
            Some(door) => door.before(lines),
        };
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
        let pass = |burst: &Burst<'_>| match &self.behind.cable {
            None => end.pass(burst),
            Some(cable) => cable.carry(direction, burst, end),
        };
        // The NIC itself records the frames that it gets: none without a link.
        if direction == Direction::In {
            return pass(burst);
        }
        let mut frames = Vec::new();
        burst.each(|frame| frames.extend(frame.to_bytes().map(|bytes| ByteBuf::from(bytes.into_owned()))));
        self.log(|| Event::Send(frames.clone()));
        if !frames.is_empty() {
            let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame::new(bytes)).collect();
            pass(&Burst::new(&frames));
        }
        self.log(|| Event::Sent);
    }
}

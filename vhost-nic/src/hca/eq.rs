//! Event queues.

use std::sync::Arc;

use mlx5_prm::eq::Eqc;
use mlx5_prm::queue_entry::{Eqe, EventType};
use parking_lot::Mutex;
use serde::Serialize;
use smallvec::SmallVec;
use vhost_daemon::trace::Tracer;
use zerocopy::IntoBytes;

use super::buffer::Buffer;
use super::entry_door::{EntryDoor, EventEntry, Posting};
use super::entry_ring::EntryRing;
use super::event;
use super::inspect::{self, Numbered};
use super::limits::LOG_MAX_EQ;
use super::memory_budget::Budget;
use super::nic_event::NicEvent;
use super::nic_finding::{Finding, Findings, Object};
use super::object_table::Table;
use super::pcie_account::{PcieAccount, Transactions};
use super::pcie_latency::{PcieLatency, Transaction};
use super::refcount::{RefCount, Reference};
use crate::dma::{Dma, Purpose};
use crate::pci::Msix;

/// Largest log2 of the number of entries.
pub const MAX_LOG_EQ_SIZE: u8 = 22;
/// Bytes of a doorbell, and of an MSI-X message.
const DOORBELL: u64 = 4;
const MESSAGE: u64 = 4;

/// An event queue.
#[derive(Debug, Serialize)]
pub struct Eq {
    /// EQ number (8 bits).
    pub number: u32,
    /// Context as given in CREATE_EQ.
    #[serde(serialize_with = "inspect::eqc")]
    pub context: Eqc,
    /// Event types it takes (`event_bitmask`), a bit each.
    pub mask: u64,
    /// References by completion queues that report here.
    pub references: RefCount,
    #[serde(skip)]
    uar: Mutex<Option<Reference>>,
    #[serde(skip)]
    buffer: Buffer,
    state: Mutex<State>,
    #[serde(skip)]
    dma: Arc<Dma>,
    #[serde(skip)]
    msix: Arc<Msix>,
    #[serde(skip)]
    findings: Arc<Findings>,
    #[serde(skip)]
    tracer: Tracer,
    #[serde(skip)]
    door: Option<Arc<dyn EntryDoor>>,
    #[serde(skip)]
    pcie_latency: Arc<PcieLatency>,
}

impl Numbered for Eq {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

/// Parameters of CREATE_EQ.
#[derive(Debug)]
pub(crate) struct NewEq {
    pub(crate) context: Eqc,
    pub(crate) mask: u64,
    pub(crate) buffer: Buffer,
    pub(crate) uar: Reference,
}

/// Parts of the function that an event queue refers to.
#[derive(Debug, Clone)]
pub(crate) struct EqResources {
    pub(crate) dma: Arc<Dma>,
    pub(crate) msix: Arc<Msix>,
    pub(crate) findings: Arc<Findings>,
    pub(crate) tracer: Tracer,
    pub(crate) door: Option<Arc<dyn EntryDoor>>,
    pub(crate) pcie_latency: Arc<PcieLatency>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct State {
    #[serde(flatten)]
    ring: EntryRing,
    armed: bool,
    /// MMIO writes that arm or update the EQ.
    doorbells: Transactions,
    /// DMA writes of EQEs.
    eqe_writes: Transactions,
    interrupts: Transactions,
}

impl Eq {
    fn object(&self) -> Object {
        Object::new("eq", self.number.into())
    }

    /// Drops the reference to the UAR, even if an `Arc` outlives DESTROY_EQ.
    pub fn retire(&self) {
        let State { ring, armed, .. } = *self.state.lock();
        if ring.unread() > 0 && !armed {
            let evidence = [ring.producer.to_be_bytes(), ring.consumer().to_be_bytes()].concat();
            let text = format_args!(
                "event queue {} is destroyed with {} unread events",
                self.number,
                ring.unread()
            );
            self.findings
                .report(Finding::EqNotRearmed, self.object(), &evidence, text);
        }
        *self.uar.lock() = None;
    }

    pub(crate) fn new(number: u32, new: NewEq, resources: EqResources) -> Self {
        let NewEq {
            context,
            mask,
            buffer,
            uar,
        } = new;
        let EqResources {
            dma,
            msix,
            findings,
            tracer,
            door,
            pcie_latency,
        } = resources;
        let state = Mutex::new(State {
            ring: EntryRing::new(context.log_eq_size()),
            ..State::default()
        });
        Self {
            number,
            context,
            mask,
            references: RefCount::default(),
            uar: Mutex::new(Some(uar)),
            buffer,
            state,
            dma,
            msix,
            findings,
            tracer,
            door,
            pcie_latency,
        }
    }

    /// Appends an event, and raises the interrupt if the EQ is armed.
    pub fn post(&self, event_type: EventType, sub_type: u8, data: &[u8]) {
        debug_assert!(
            event::is_raised(event_type),
            "{event_type:?} is not in the table of events"
        );
        let event = EventEntry {
            event_type,
            sub_type,
            data,
        };
        let posting = match &self.door {
            Some(door) => door.eqe(self.number, &event),
            None => Posting::Once,
        };
        if posting != Posting::Never {
            self.post_past_door(&event);
        }
        if posting == Posting::Twice {
            self.post_past_door(&event);
        }
    }

    /// Appends an event that has passed the door; see [`EntryDoor::eqe`].
    pub fn post_past_door(&self, event: &EventEntry<'_>) {
        let EventEntry {
            event_type,
            sub_type,
            data,
        } = *event;
        let mut eqe = Eqe::new(event_type, sub_type);
        let length = data.len().min(eqe.data.len());
        eqe.data[..length].copy_from_slice(&data[..length]);

        self.pcie_latency.spend(Transaction::EqeWrite);
        let mut state = self.state.lock();
        if state.ring.is_full() {
            let text = format_args!("event queue {} is full", self.number);
            self.findings
                .report(Finding::EqOverrun, self.object(), eqe.as_bytes(), text);
            return;
        }
        eqe.owner = state.ring.owner();
        let offset = u64::from(state.ring.slot()) * size_of::<Eqe>() as u64;
        if let Err(error) = self.buffer.publish(&self.dma, Purpose::Eqe, offset, eqe.as_bytes()) {
            let text = format_args!("event queue {}: {error}", self.number);
            self.findings
                .report(Finding::LostEqe, self.object(), eqe.as_bytes(), text);
            self.findings.report_dma(self.object(), &error);
            return;
        }
        state.ring.advance();
        state.eqe_writes.add(1, size_of::<Eqe>() as u64);
        let armed = std::mem::take(&mut state.armed);
        if armed {
            state.interrupts.add(1, MESSAGE);
        }
        drop(state);
        self.tracer
            .record(NicEvent::Eqe, self.number, || traced(event_type, sub_type, data));
        if armed {
            self.raise();
        }
    }

    fn raise(&self) {
        let vector = self.context.intr();
        self.pcie_latency.spend(Transaction::Interrupt);
        self.tracer
            .record(NicEvent::Interrupt, vector.into(), || [self.number, 0, 0, 0]);
        self.msix.raise(vector);
    }

    /// Takes the guest's consumer index, and with `arm` arms the EQ; raises the interrupt at once if events are unread.
    pub fn update(&self, consumer: u32, arm: bool) {
        let mut state = self.state.lock();
        state.doorbells.add(1, DOORBELL);
        state.ring.set_consumer(consumer);
        let unread = state.ring.unread() > 0;
        state.armed = arm && !unread;
        if arm && unread {
            state.interrupts.add(1, MESSAGE);
        }
        drop(state);
        if arm && unread {
            self.raise();
        }
    }

    /// Returns the transactions so far.
    pub fn account(&self) -> PcieAccount {
        let state = *self.state.lock();
        PcieAccount {
            eq_doorbells: state.doorbells,
            eqe_writes: state.eqe_writes,
            interrupts: state.interrupts,
            ..PcieAccount::default()
        }
    }

    /// Returns the context with its indexes and state (QUERY_EQ).
    pub fn query(&self) -> Eqc {
        let state = *self.state.lock();
        let mut context = self.context.clone();
        // Armed or fired (`MLX5_EQ_STATE_*`, core/lib/eq.h).
        context.set_st(if state.armed { 0x9 } else { 0xa });
        context.set_consumer_counter(state.ring.consumer());
        context.set_producer_counter(state.ring.producer);
        context
    }
}

/// Arguments of [`NicEvent::Eqe`]. A completion event has the CQ at its end, every other one its object in front.
fn traced(event_type: EventType, sub_type: u8, data: &[u8]) -> [u32; 4] {
    let at = if event_type == EventType::Completion { 24 } else { 0 };
    let source = data.get(at..).and_then(<[u8]>::first_chunk);
    let source = source.map_or(0, |bytes| u32::from_be_bytes(*bytes));
    [event_type as u32, sub_type.into(), source, 0]
}

/// Event queues of a function.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Eqs {
    /// Event queues by number.
    pub table: Table<Eq>,
}

impl Eqs {
    /// Creates a table whose event queues are charged to `budget`.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            table: Table::new(1..1 << LOG_MAX_EQ, budget),
        }
    }

    /// Returns the queues that take events of a type.
    pub fn listeners(&self, event_type: EventType) -> SmallVec<[Arc<Eq>; 4]> {
        self.table.filter(|eq| eq.mask & event_type.bit() != 0)
    }

    /// Posts an event to every queue that takes events of its type.
    pub fn announce(&self, event_type: EventType, sub_type: u8, data: &[u8]) {
        for eq in self.listeners(event_type) {
            eq.post(event_type, sub_type, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::Dma;

    #[test]
    fn an_event_goes_to_the_queues_whose_mask_has_its_type() {
        let (dma, errors, uars) = (Arc::<Dma>::default(), Arc::<Findings>::default(), RefCount::default());
        let eqs = Eqs::new(&Arc::default());
        for types in [
            &[EventType::Command][..],
            &[EventType::PortChange, EventType::Command],
            &[],
        ] {
            let made = NewEq {
                context: Eqc::default(),
                mask: types.iter().map(|event_type| event_type.bit()).sum(),
                buffer: Buffer::new(0, 0, 4096, &[0; 8], &Arc::default()).unwrap(),
                uar: uars.acquire(),
            };
            let msix = Arc::new(Msix::new(1));
            let resources = EqResources {
                dma: dma.clone(),
                msix,
                findings: errors.clone(),
                tracer: Tracer::default(),
                door: None,
                pcie_latency: Arc::default(),
            };
            let make = |number| Eq::new(number, made, resources);
            eqs.table.insert_with(make).unwrap();
        }
        let numbers = |event_type| eqs.listeners(event_type).iter().map(|eq| eq.number).collect::<Vec<_>>();
        assert_eq!(numbers(EventType::Command), [1, 2]);
        assert_eq!(numbers(EventType::PortChange), [2]);
        assert!(numbers(EventType::CqError).is_empty());
    }
}

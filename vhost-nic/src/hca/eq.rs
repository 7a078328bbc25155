//! Event queues.

use std::sync::Arc;

use mlx5_prm::eq::Eqc;
use mlx5_prm::queue_entry::{Eqe, EventType};
use parking_lot::Mutex;
use serde::Serialize;
use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::buffer::Buffer;
use super::guest_error::{GuestError, GuestErrors};
use super::inspect::{self, Numbered};
use super::limits::LOG_MAX_EQ;
use super::object_table::Table;
use super::refcount::{RefCount, Reference};
use crate::dma::{Dma, Purpose};
use crate::pci::Msix;

/// Largest log2 of the number of entries.
pub const MAX_LOG_EQ_SIZE: u8 = 22;
/// Consumer indexes on the wire have 24 bits.
const INDEX_MASK: u32 = 0xff_ffff;

/// An event queue.
#[derive(Debug, Serialize)]
pub struct Eq {
    /// Its number.
    pub number: u32,
    /// What it was made with.
    #[serde(serialize_with = "inspect::eqc")]
    pub context: Eqc,
    /// Events it takes, a bit per type.
    pub mask: u64,
    /// The completion queues that report here.
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
    guest_errors: Arc<GuestErrors>,
}

impl Numbered for Eq {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

/// What an event queue is made of.
#[derive(Debug)]
pub(crate) struct NewEq {
    pub(crate) context: Eqc,
    pub(crate) mask: u64,
    pub(crate) buffer: Buffer,
    pub(crate) uar: Reference,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct State {
    producer: u32,
    consumer: u32,
    armed: bool,
}

impl Eq {
    /// The guest destroys it: it uses nothing any more, whoever still holds it for a moment.
    pub fn retire(&self) {
        *self.uar.lock() = None;
    }

    pub(crate) fn new(
        number: u32,
        made: NewEq,
        dma: Arc<Dma>,
        msix: Arc<Msix>,
        guest_errors: Arc<GuestErrors>,
    ) -> Self {
        let NewEq {
            context,
            mask,
            buffer,
            uar,
        } = made;
        let (references, state) = (RefCount::default(), Mutex::default());
        Self {
            number,
            context,
            mask,
            references,
            uar: Mutex::new(Some(uar)),
            buffer,
            state,
            dma,
            msix,
            guest_errors,
        }
    }

    /// Appends an event, and interrupts the guest if it waits for one.
    pub fn post(&self, event_type: EventType, sub_type: u8, data: &[u8]) {
        let size = 1 << self.context.log_eq_size();
        let mut eqe = Eqe::new(event_type, sub_type);
        let length = data.len().min(eqe.data.len());
        eqe.data[..length].copy_from_slice(&data[..length]);

        let mut state = self.state.lock();
        if state.producer.wrapping_sub(state.consumer) & INDEX_MASK >= size {
            self.guest_errors.report(
                GuestError::EqOverrun,
                format_args!("Event queue {} is full.", self.number),
            );
            return;
        }
        eqe.owner = (state.producer >> self.context.log_eq_size()) as u8 & 1;
        let offset = u64::from(state.producer % size) * size_of::<Eqe>() as u64;
        if let Err(error) = self.buffer.publish(&self.dma, Purpose::Eqe, offset, eqe.as_bytes()) {
            self.guest_errors.report(
                GuestError::LostEqe,
                format_args!("Event queue {}: {error}", self.number),
            );
            return;
        }
        state.producer = state.producer.wrapping_add(1);
        let armed = std::mem::take(&mut state.armed);
        drop(state);
        if armed {
            self.msix.raise(self.context.intr());
        }
    }

    /// The guest has read up to `consumer`, and with `arm` it wants an interrupt when there is more.
    pub fn update(&self, consumer: u32, arm: bool) {
        let mut state = self.state.lock();
        state.consumer = consumer & INDEX_MASK;
        let unread = state.producer & INDEX_MASK != state.consumer;
        state.armed = arm && !unread;
        drop(state);
        if arm && unread {
            self.msix.raise(self.context.intr());
        }
    }

    /// The context with its counters.
    pub fn query(&self) -> Eqc {
        let state = *self.state.lock();
        let mut context = self.context.clone();
        // Armed or fired (`MLX5_EQ_STATE_*`, core/lib/eq.h).
        context.set_st(if state.armed { 0x9 } else { 0xa });
        context.set_consumer_counter(state.consumer);
        context.set_producer_counter(state.producer);
        context
    }
}

/// The event queues of one function.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Eqs {
    /// By number.
    pub table: Table<Eq>,
}

impl Default for Eqs {
    fn default() -> Self {
        Self {
            table: Table::new(1..1 << LOG_MAX_EQ),
        }
    }
}

impl Eqs {
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
        let (dma, errors, uars) = (
            Arc::<Dma>::default(),
            Arc::<GuestErrors>::default(),
            RefCount::default(),
        );
        let eqs = Eqs::default();
        for types in [
            &[EventType::Command][..],
            &[EventType::PortChange, EventType::Command],
            &[],
        ] {
            let made = NewEq {
                context: Eqc::default(),
                mask: types.iter().map(|event_type| event_type.bit()).sum(),
                buffer: Buffer::new(0, 0, 4096, &[0; 8]).unwrap(),
                uar: uars.acquire(),
            };
            let msix = Arc::new(Msix::new(1));
            let make = |number| Eq::new(number, made, dma.clone(), msix, errors.clone());
            eqs.table.insert_with(make).unwrap();
        }
        let numbers = |event_type| eqs.listeners(event_type).iter().map(|eq| eq.number).collect::<Vec<_>>();
        assert_eq!(numbers(EventType::Command), [1, 2]);
        assert_eq!(numbers(EventType::PortChange), [2]);
        assert!(numbers(EventType::CqError).is_empty());
    }
}

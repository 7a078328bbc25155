//! Shared receive queues: receive memory pools and XRC shared receive queues.

use std::sync::Arc;

use mlx5_prm::queue_entry::EventType;
use mlx5_prm::wq::{Rmpc, XrcSrqc};
use mlx5_prm::wqe::DataSegment;
use parking_lot::Mutex;
use serde::Serialize;

use super::cq::Cq;
use super::inspect::{self, Numbered};
use super::refcount::{RefCount, Reference};
use super::wq::WorkQueue;
use crate::dma::{self, Dma};

/// A receive memory pool; the shared receive queue of this interface step.
#[derive(Debug, Serialize)]
pub struct Rmp {
    /// Its number.
    pub number: u32,
    /// Its WQEs.
    pub list: ReceiveList,
    /// As the guest gave it.
    #[serde(serialize_with = "inspect::rmpc")]
    pub context: Mutex<Rmpc>,
    /// The queues that take WQEs from it.
    pub references: RefCount,
}

impl Numbered for Rmp {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

impl Rmp {
    /// The protection domain of its keys.
    pub fn pd(&self) -> u32 {
        self.context.lock().wq().pd()
    }
}

/// An XRC shared receive queue.
#[derive(Debug, Serialize)]
pub struct XrcSrq {
    /// Its number.
    pub number: u32,
    /// Its WQEs.
    pub list: ReceiveList,
    /// Where it completes.
    #[serde(serialize_with = "inspect::number")]
    pub cq: Arc<Cq>,
    /// As the guest gave it.
    #[serde(serialize_with = "inspect::xrc_srqc")]
    pub context: Mutex<XrcSrqc>,
    /// The queues that take WQEs from it.
    pub references: RefCount,
    #[serde(skip)]
    pub(crate) uses: Mutex<Vec<Reference>>,
}

impl XrcSrq {
    /// The guest destroys it: it uses nothing any more, whoever still holds it for a moment.
    pub fn retire(&self) {
        self.uses.lock().clear();
    }

    /// The protection domain of its keys.
    pub fn pd(&self) -> u32 {
        self.context.lock().pd()
    }
}

/// WQEs that name each other, taken by many queues.
#[derive(Debug, Serialize)]
pub struct ReceiveList {
    ring: WorkQueue,
    state: Mutex<ListState>,
}

#[derive(Debug, Default, Serialize)]
struct ListState {
    /// Index of the next WQE.
    next: u32,
    /// How many WQEs were taken, modulo 2^16.
    taken: u16,
    /// Fewer posted WQEs than this are to be told, once; 0 is off.
    limit: u16,
}

/// A WQE that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its index.
    pub index: u16,
    /// Whether fewer are left than the guest wanted to be told of.
    pub limit_reached: bool,
}

impl ReceiveList {
    /// A list on a ring, of which nothing is taken yet.
    pub fn new(ring: WorkQueue) -> Self {
        Self {
            ring,
            state: Mutex::default(),
        }
    }

    /// Takes the next WQE, whose scatter list goes into `segments`; none if there is none.
    pub fn take(&self, dma: &Dma, segments: &mut Vec<DataSegment>) -> dma::Result<Option<Taken>> {
        let mut state = self.state.lock();
        let posted = self.ring.receive_producer(dma)?.wrapping_sub(state.taken);
        if posted == 0 {
            return Ok(None);
        }
        let index = state.next;
        state.next = self.ring.receive_wqe(dma, index, segments)?;
        state.taken = state.taken.wrapping_add(1);
        let limit_reached = posted - 1 < state.limit;
        if limit_reached {
            state.limit = 0;
        }
        Ok(Some(Taken {
            index: index as u16,
            limit_reached,
        }))
    }

    /// From now on, the guest wants to be told when fewer than `limit` WQEs are left. Returns whether that is so already.
    pub fn set_limit(&self, dma: &Dma, limit: u16) -> bool {
        let mut state = self.state.lock();
        let posted = self
            .ring
            .receive_producer(dma)
            .map_or(0, |producer| producer.wrapping_sub(state.taken));
        let reached = posted < limit;
        state.limit = if reached { 0 } else { limit };
        reached
    }
}

/// The data of an event about a shared receive queue (`struct mlx5_eqe_qp_srq`, device.h).
pub fn event_data(number: u32) -> [u8; 28] {
    let mut data = [0; 28];
    data[24..].copy_from_slice(&number.to_be_bytes());
    data
}

/// Fewer WQEs are left than the guest wanted to be told of.
pub const LIMIT_EVENT: EventType = EventType::SrqRqLimit;

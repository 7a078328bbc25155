//! Shared receive queues: receive memory pools and XRC shared receive queues.

use std::sync::Arc;

use mlx5_prm::queue_entry::EventType;
use mlx5_prm::wq::{Rmpc, XrcSrqc};
use mlx5_prm::wqe::DataSegment;
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;

use super::cq::Cq;
use super::inspect::{self, Numbered};
use super::nic_finding::Findings;
use super::refcount::{RefCount, Reference};
use super::wq::WorkQueue;
use crate::dma::{Dma, DmaError};

/// A receive memory pool (RMP): the shared receive queue of this interface step (ISSI 1).
#[derive(Debug, Serialize)]
pub struct Rmp {
    /// RMP number (24 bits).
    pub number: u32,
    /// Receive WQEs.
    pub list: ReceiveList,
    /// Context as given by the guest. Lock order: before the list.
    #[serde(serialize_with = "inspect::rmpc")]
    pub context: Mutex<Rmpc>,
    /// References by queues that take WQEs from it.
    pub references: RefCount,
}

impl Numbered for Rmp {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

impl Rmp {
    /// Protection domain of its memory keys.
    pub fn pd(&self) -> u32 {
        self.context.lock().wq().pd()
    }
}

/// An XRC shared receive queue.
#[derive(Debug, Serialize)]
pub struct XrcSrq {
    /// SRQ number (24 bits).
    pub number: u32,
    /// Receive WQEs.
    pub list: ReceiveList,
    /// Completion queue.
    #[serde(serialize_with = "inspect::number")]
    pub cq: Arc<Cq>,
    /// Context as given by the guest.
    #[serde(serialize_with = "inspect::xrc_srqc")]
    pub context: Mutex<XrcSrqc>,
    /// References by queues that take WQEs from it.
    pub references: RefCount,
    /// References to the CQ and the XRC domain.
    #[serde(skip)]
    pub(crate) held: Mutex<Vec<Reference>>,
}

impl XrcSrq {
    /// XRC domain.
    pub fn xrcd(&self) -> u32 {
        self.context.lock().xrcd()
    }

    /// Drops the references to the CQ and the XRC domain, even if an `Arc` outlives DESTROY_XRC_SRQ.
    pub fn retire(&self) {
        self.held.lock().clear();
    }

    /// Protection domain of its memory keys.
    pub fn pd(&self) -> u32 {
        self.context.lock().pd()
    }
}

/// Receive WQEs in a linked list, consumed by many queues.
#[derive(Debug, Serialize)]
pub struct ReceiveList {
    ring: WorkQueue,
    state: Mutex<ListState>,
}

#[derive(Debug, Default, Serialize)]
struct ListState {
    /// Index of the next WQE.
    next: u32,
    /// Number of WQEs taken, modulo 2^16.
    taken: u16,
    /// Limit of posted WQEs below which one event is raised; 0 is off.
    limit: u16,
    /// Whether no more WQEs are taken.
    failed: bool,
}

/// Reason why no receive WQE can be taken, posted or not.
#[derive(Debug, Error)]
pub enum TakeError {
    /// The doorbell record cannot be read. The list has failed.
    #[error("cannot read the doorbell record")]
    Record(#[source] DmaError),
    /// The list had failed before.
    #[error("the list is in error")]
    Failed,
    /// The WQE cannot be read, and with it the index of the next one. The list has failed.
    #[error("cannot read the WQE")]
    Wqe(#[source] DmaError),
}

/// A receive WQE taken from the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Index of the WQE.
    pub index: u16,
    /// Whether fewer WQEs than the limit are left.
    pub limit_reached: bool,
    /// Producer and consumer index of which the WQE was taken.
    pub indexes: (u16, u16),
}

impl ReceiveList {
    /// Creates a list whose WQEs are all yet to be taken.
    pub fn new(ring: WorkQueue) -> Self {
        Self {
            ring,
            state: Mutex::default(),
        }
    }

    /// Takes the next WQE, and reads its scatter list into `segments`; `None` if none is posted.
    pub fn take(&self, dma: &Dma, segments: &mut Vec<DataSegment>) -> Result<Option<Taken>, TakeError> {
        let mut state = self.state.lock();
        if state.failed {
            return Err(TakeError::Failed);
        }
        let producer = self.ring.receive_producer(dma).map_err(|error| {
            state.failed = true;
            TakeError::Record(error)
        })?;
        let posted = producer.wrapping_sub(state.taken);
        if posted == 0 {
            return Ok(None);
        }
        let index = state.next;
        state.next = self.ring.receive_wqe(dma, index, segments).map_err(|error| {
            state.failed = true;
            TakeError::Wqe(error)
        })?;
        let indexes = (producer, state.taken);
        state.taken = state.taken.wrapping_add(1);
        let limit_reached = posted - 1 < state.limit;
        if limit_reached {
            state.limit = 0;
        }
        Ok(Some(Taken {
            index: index as u16,
            limit_reached,
            indexes,
        }))
    }

    /// Reports more WQEs posted than the list has.
    pub fn check_overrun(&self, findings: &Findings, number: u32, taken: &Taken) {
        let (producer, consumer) = taken.indexes;
        self.ring.check_overrun(findings, number, producer, consumer);
    }

    /// Bytes of a WQE.
    pub fn stride(&self) -> usize {
        self.ring.stride()
    }

    /// Takes no more WQEs. Returns whether any were taken before.
    pub fn fail(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().failed, true)
    }

    /// Whether no more WQEs are taken.
    pub fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// Limit of posted WQEs below which the event is raised; 0 once it was.
    pub fn limit(&self) -> u16 {
        self.state.lock().limit
    }

    /// Arms the limit event, for when fewer than `limit` WQEs are left. Returns whether that is the case
    /// already; the event then stays disarmed.
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

/// Event for when fewer WQEs than the limit are left.
pub const LIMIT_EVENT: EventType = EventType::SrqRqLimit;

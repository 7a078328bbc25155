//! Receive queues.

use std::sync::Arc;

use mlx5_prm::wq::Rqc;
use mlx5_prm::wqe::DataSegment;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use super::cq::Cq;
use super::inspect::{self, Numbered};
use super::queue_counter::QueueCounters;
use super::refcount::{RefCount, Reference};
use super::wq::WorkQueue;

/// What a receive or send queue does (`MLX5_RQC_STATE_*`, `MLX5_SQC_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    /// Nothing.
    Reset = 0,
    /// Its work.
    Ready = 1,
    /// Nothing any more.
    Error = 3,
}

impl QueueState {
    /// The state of this number.
    pub fn new(number: u8) -> Option<Self> {
        [Self::Reset, Self::Ready, Self::Error]
            .into_iter()
            .find(|state| *state as u8 == number)
    }

    /// Whether the guest may bring a queue from this state to that one.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // Out of error leads only a reset.
            (Self::Error, Self::Ready) => false,
            (Self::Reset, Self::Error) => false,
            _ => true,
        }
    }
}

/// A receive queue.
#[derive(Debug, Serialize)]
pub struct Rq {
    /// Its number.
    pub number: u32,
    /// The protection domain of its keys.
    pub pd: u32,
    /// Its WQEs.
    pub ring: WorkQueue,
    /// Where it completes.
    #[serde(serialize_with = "inspect::number")]
    pub cq: Arc<Cq>,
    /// Where it counts, if the guest gave it a set of counters.
    #[serde(skip)]
    pub counters: Option<Arc<QueueCounters>>,
    /// The tables and TIRs that send to it.
    pub references: RefCount,
    state: Mutex<RqState>,
    /// What it refers to.
    #[serde(skip)]
    uses: Mutex<Vec<Reference>>,
}

impl Numbered for Rq {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

/// The part of a receive queue that changes.
#[derive(Debug, Serialize)]
pub struct RqState {
    /// As the guest gave it; with its state.
    #[serde(serialize_with = "inspect::rqc")]
    pub context: Rqc,
    /// What it does.
    pub state: QueueState,
    /// How many WQEs are used up.
    pub consumer: u16,
    /// The scatter list of the current WQE; kept so that its memory is.
    #[serde(skip)]
    pub segments: Vec<DataSegment>,
}

impl Rq {
    /// A queue in reset, of a protection domain of which there is a use if it has one.
    pub(crate) fn new(
        number: u32,
        context: Rqc,
        ring: WorkQueue,
        cq: Arc<Cq>,
        counters: Option<Arc<QueueCounters>>,
        pd: Option<Reference>,
    ) -> Self {
        Self {
            number,
            pd: context.wq().pd(),
            ring,
            uses: Mutex::new(pd.into_iter().chain([cq.references.acquire()]).collect()),
            cq,
            counters,
            references: RefCount::default(),
            state: Mutex::new(RqState {
                context,
                state: QueueState::Reset,
                consumer: 0,
                segments: Vec::new(),
            }),
        }
    }

    /// The changing part; whoever holds it is the only one to receive.
    pub fn lock(&self) -> MutexGuard<'_, RqState> {
        self.state.lock()
    }

    /// The guest destroys it: it works no more, and uses nothing any more, whoever still holds it for a moment.
    pub fn retire(&self) {
        self.lock().become_state(QueueState::Reset);
        self.uses.lock().clear();
    }
}

impl RqState {
    /// Goes to another state. A reset forgets all WQEs.
    pub fn become_state(&mut self, next: QueueState) {
        if next == QueueState::Reset {
            self.consumer = 0;
        }
        self.state = next;
        self.context.set_state(next as u8);
    }
}

//! Receive queues.

use std::sync::Arc;

use mlx5_prm::wq::Rqc;
use mlx5_prm::wqe::DataSegment;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use super::cq::Cq;
use super::inspect::{self, Numbered};
use super::pcie_account::{PayloadAccount, PcieAccount, Transactions};
use super::queue_counter::QueueCounters;
use super::refcount::{RefCount, Reference};
use super::wq::WorkQueue;

/// State of an RQ or SQ (`MLX5_RQC_STATE_*`, `MLX5_SQC_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    /// Executes no WQEs; indexes are 0.
    Reset = 0,
    /// Executes WQEs.
    Ready = 1,
    /// Executes no WQEs until reset.
    Error = 3,
}

impl QueueState {
    /// Returns the state of this number.
    pub fn new(number: u8) -> Option<Self> {
        [Self::Reset, Self::Ready, Self::Error]
            .into_iter()
            .find(|state| *state as u8 == number)
    }

    /// Whether MODIFY_RQ and MODIFY_SQ allow this transition.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // A queue leaves the error state only by a reset.
            (Self::Error, Self::Ready) => false,
            (Self::Reset, Self::Error) => false,
            _ => true,
        }
    }
}

/// A receive queue.
#[derive(Debug, Serialize)]
pub struct Rq {
    /// RQ number (24 bits).
    pub number: u32,
    /// Protection domain of its memory keys.
    pub pd: u32,
    /// Receive WQEs.
    pub wq: WorkQueue,
    /// Completion queue.
    #[serde(serialize_with = "inspect::number")]
    pub cq: Arc<Cq>,
    /// Queue counters (`counter_set_id`), if any.
    #[serde(skip)]
    pub counters: Option<Arc<QueueCounters>>,
    /// References by RQTs and TIRs that dispatch to it.
    pub references: RefCount,
    state: Mutex<RqState>,
    /// References to the CQ and the protection domain.
    #[serde(skip)]
    held: Mutex<Vec<Reference>>,
}

impl Numbered for Rq {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

/// Mutable state of a receive queue.
#[derive(Debug, Serialize)]
pub struct RqState {
    /// Context as given by the guest, with the current state.
    #[serde(serialize_with = "inspect::rqc")]
    pub context: Rqc,
    /// State of the queue.
    pub state: QueueState,
    /// Consumer index: WQEs consumed, modulo 2^16.
    pub consumer: u16,
    /// Scatter list of the current WQE; a field so that its allocation is reused.
    #[serde(skip)]
    pub segments: Vec<DataSegment>,
    /// DMA reads of WQEs.
    pub wqe_reads: Transactions,
    /// PCIe transactions of the frames.
    pub payload: PayloadAccount,
}

impl Rq {
    /// Creates a queue in reset. `pd` is a reference to its protection domain, if it has one.
    pub(crate) fn new(
        number: u32,
        context: Rqc,
        wq: WorkQueue,
        cq: Arc<Cq>,
        counters: Option<Arc<QueueCounters>>,
        pd: Option<Reference>,
    ) -> Self {
        Self {
            number,
            pd: context.wq().pd(),
            wq,
            held: Mutex::new(pd.into_iter().chain([cq.references.acquire()]).collect()),
            cq,
            counters,
            references: RefCount::default(),
            state: Mutex::new(RqState {
                context,
                state: QueueState::Reset,
                consumer: 0,
                segments: Vec::new(),
                wqe_reads: Transactions::default(),
                payload: PayloadAccount::default(),
            }),
        }
    }

    /// Locks the mutable state; the lock serializes receives.
    pub fn lock(&self) -> MutexGuard<'_, RqState> {
        self.state.lock()
    }

    /// Returns the transactions so far.
    pub fn account(&self) -> PcieAccount {
        let state = self.lock();
        let mut account = PcieAccount {
            receive_wqe_reads: state.wqe_reads,
            ..PcieAccount::default()
        };
        account.add_payload(state.payload);
        account
    }

    /// Stops the queue and drops its references, even if an `Arc` outlives DESTROY_RQ. Waits for a receive in progress,
    /// and writes completions that are held.
    pub fn retire(&self) {
        self.lock().become_state(QueueState::Reset);
        self.cq.end_burst();
        self.held.lock().clear();
    }
}

impl RqState {
    /// Changes the state. A reset discards all WQEs.
    pub fn become_state(&mut self, next: QueueState) {
        if next == QueueState::Reset {
            self.consumer = 0;
        }
        self.state = next;
        self.context.set_state(next as u8);
    }
}

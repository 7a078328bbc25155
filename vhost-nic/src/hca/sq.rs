//! Send queues.

use std::sync::Arc;

use mlx5_prm::wq::Sqc;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use super::blue_flame::Slot;
use super::cq::Cq;
use super::inspect;
use super::refcount::Reference;
use super::rq::QueueState;
use super::wq::WorkQueue;

/// A send queue.
#[derive(Debug, Serialize)]
pub struct Sq {
    /// Its number.
    pub number: u32,
    /// The protection domain of its keys.
    pub pd: u32,
    /// Its WQEs.
    pub ring: WorkQueue,
    /// Where it completes.
    #[serde(serialize_with = "inspect::number")]
    pub cq: Arc<Cq>,
    /// The transport domain of its TIS, if it has one.
    pub transport_domain: Option<u32>,
    /// The WQE that came last through a doorbell register.
    #[serde(skip)]
    pub blue_flame: Slot,
    state: Mutex<SqState>,
    /// What it refers to.
    #[serde(skip)]
    uses: Mutex<Vec<Reference>>,
}

/// The part of a send queue that changes.
#[derive(Debug, Serialize)]
pub struct SqState {
    /// As the guest gave it; with its state.
    #[serde(serialize_with = "inspect::sqc")]
    pub context: Sqc,
    /// What it does.
    pub state: QueueState,
    /// How far WQEs are carried out, in basic blocks.
    pub consumer: u16,
}

impl Sq {
    /// A queue in reset. `uses` are those of its domain, its UAR and its TIS.
    pub(crate) fn new(
        number: u32,
        context: Sqc,
        ring: WorkQueue,
        cq: Arc<Cq>,
        transport_domain: Option<u32>,
        mut uses: Vec<Reference>,
    ) -> Self {
        uses.push(cq.references.acquire());
        Self {
            number,
            pd: context.wq().pd(),
            ring,
            cq,
            transport_domain,
            blue_flame: Slot::default(),
            state: Mutex::new(SqState {
                context,
                state: QueueState::Reset,
                consumer: 0,
            }),
            uses: Mutex::new(uses),
        }
    }

    /// The changing part; whoever holds it is the only one to send.
    pub fn lock(&self) -> MutexGuard<'_, SqState> {
        self.state.lock()
    }

    /// The guest destroys it: it works no more, and uses nothing any more, whoever still holds it for a moment.
    pub fn retire(&self) {
        self.lock().become_state(QueueState::Reset);
        self.uses.lock().clear();
    }
}

impl SqState {
    /// Goes to another state. A reset forgets all WQEs.
    pub fn become_state(&mut self, next: QueueState) {
        if next == QueueState::Reset {
            self.consumer = 0;
        }
        self.state = next;
        self.context.set_state(next as u8);
    }
}

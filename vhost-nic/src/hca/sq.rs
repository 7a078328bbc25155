//! Send queues.

use std::sync::Arc;

use mlx5_prm::wq::Sqc;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use super::blue_flame::Slot;
use super::cq::Cq;
use super::inspect;
use super::pcie_account::{PayloadAccount, PcieAccount};
use super::refcount::Reference;
use super::rq::QueueState;
use super::wq::WorkQueue;

/// A send queue.
#[derive(Debug, Serialize)]
pub struct Sq {
    /// SQ number (24 bits).
    pub number: u32,
    /// Protection domain of its memory keys.
    pub pd: u32,
    /// UAR page that its doorbells come through.
    pub uar: u32,
    /// Send WQEs.
    pub wq: WorkQueue,
    /// Completion queue.
    #[serde(serialize_with = "inspect::number")]
    pub cq: Arc<Cq>,
    /// Transport domain of its TIS, if it has one.
    pub transport_domain: Option<u32>,
    /// Doorbells and the latest WQE from doorbell registers, with the account of both.
    #[serde(rename = "pcie")]
    pub blue_flame: Slot,
    /// Unlocked while a frame is delivered, which is in no memory of the guest then: commands wait for no receiver.
    state: Mutex<SqState>,
    /// References to the CQ, protection domain, UAR and TIS.
    #[serde(skip)]
    held: Mutex<Vec<Reference>>,
}

/// Mutable state of a send queue.
#[derive(Debug, Serialize)]
pub struct SqState {
    /// Context as given by the guest, with the current state.
    #[serde(serialize_with = "inspect::sqc")]
    pub context: Sqc,
    /// State of the queue.
    pub state: QueueState,
    /// Consumer index, in basic blocks modulo 2^16.
    pub consumer: u16,
    /// Number of resets.
    #[serde(skip)]
    pub resets: u64,
    /// Whether the WQE at `consumer` could not be read and is completed already: its length is not known.
    pub unread: bool,
    /// PCIe transactions of the frames.
    pub payload: PayloadAccount,
}

impl Sq {
    /// Creates a queue in reset. `held` are references to its protection domain, UAR and TIS.
    pub(crate) fn new(
        number: u32,
        context: Sqc,
        wq: WorkQueue,
        cq: Arc<Cq>,
        transport_domain: Option<u32>,
        mut held: Vec<Reference>,
    ) -> Self {
        held.push(cq.references.acquire());
        Self {
            number,
            pd: context.wq().pd(),
            uar: context.wq().uar_page(),
            wq,
            cq,
            transport_domain,
            blue_flame: Slot::default(),
            state: Mutex::new(SqState {
                context,
                state: QueueState::Reset,
                consumer: 0,
                resets: 0,
                unread: false,
                payload: PayloadAccount::default(),
            }),
            held: Mutex::new(held),
        }
    }

    /// Locks the mutable state.
    pub fn lock(&self) -> MutexGuard<'_, SqState> {
        self.state.lock()
    }

    /// Returns the transactions so far.
    pub fn account(&self) -> PcieAccount {
        let mut account = PcieAccount::default();
        account.add_sends(self.blue_flame.account());
        account.add_payload(self.lock().payload);
        account
    }

    /// Stops the queue and drops its references, even if an `Arc` outlives DESTROY_SQ. Waits until a WQE in progress is
    /// read and its frame assembled, but not for the delivery.
    pub fn retire(&self) {
        self.lock().become_state(QueueState::Reset);
        self.held.lock().clear();
    }
}

impl SqState {
    /// Changes the state. A reset discards all WQEs.
    pub fn become_state(&mut self, next: QueueState) {
        if next == QueueState::Reset {
            self.consumer = 0;
            self.resets += 1;
            self.unread = false;
        }
        self.state = next;
        self.context.set_state(next as u8);
    }
}

//! What carries out the WQEs of a guest and writes what arrives into its memory.
//!
//! One thread per NIC sends. A received frame is written by the thread of its sender.

mod rdma;
mod receive;
mod transmit;
mod worker;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use crate::hca::blue_flame::Doorbell;
use crate::hca::guest_error::GuestError;
use crate::hca::rq::QueueState;
use crate::hca::scheduler::{Scheduler, Task};
use crate::hca::{Hca, Queue};
use crate::net::{Burst, SwitchPort};
pub use worker::Worker;

/// The data path of one NIC.
#[derive(Debug)]
pub struct Engine {
    hca: Arc<Hca>,
    wire: OnceLock<SwitchPort>,
    /// Held for reading by who touches the guest's memory or its objects, for writing by who takes them away.
    gate: RwLock<()>,
}

impl Engine {
    /// A data path that is not connected to anything yet.
    pub fn new(hca: Arc<Hca>) -> Self {
        Self {
            hca,
            wire: OnceLock::new(),
            gate: RwLock::new(()),
        }
    }

    /// Connects the NIC to a switch, once and for all.
    pub fn connect(&self, port: SwitchPort) {
        // A second port would be one too many.
        let _ = self.wire.set(port);
    }

    /// What the NIC's port of the switch counts.
    pub fn wire(&self) -> Option<&SwitchPort> {
        self.wire.get()
    }

    /// Looks after what wants attention.
    pub fn attend(&self, what: Task) {
        // Recursive: a thread that sends to a NIC that sends to this one must not wait for itself.
        let _open = self.gate.read_recursive();
        let queue = match what {
            Task::Queue(queue) => queue,
            Task::Register(half) => match self.hca.blue_flame.overdue(half) {
                Some(Doorbell { number, end }) => {
                    match self.hca.queues.get(number).as_deref().and_then(Queue::blue_flame) {
                        Some(slot) => slot.ring(end),
                        None => {
                            let what = format_args!("There is no queue {number:#x} to send from.");
                            self.hca.guest_errors.report(GuestError::StrayDoorbell, what);
                        }
                    }
                    number
                }
                None => return,
            },
            Task::Cq(number) => {
                if let Some(cq) = self.hca.cqs.get(number) {
                    cq.period_over();
                }
                return;
            }
        };
        match self.hca.queues.get(queue).as_deref() {
            Some(Queue::Send(sq)) => transmit::run(self, sq),
            Some(Queue::Pair(qp)) => rdma::run(self, qp),
            // A doorbell and a command that destroys the queue may cross.
            Some(Queue::Receive(_)) | None => {}
        }
    }

    /// Whether the guest has posted more to a queue than was read of it. Only of a queue that can send: others have their time.
    pub fn has_posted(&self, number: u32) -> bool {
        let _open = self.gate.read_recursive();
        match self.hca.queues.get(number).as_deref() {
            Some(Queue::Send(sq)) => {
                let state = sq.lock();
                let producer = sq.ring.send_producer(&self.hca.dma);
                state.state == QueueState::Ready && producer.is_ok_and(|producer| producer != state.consumer)
            }
            Some(Queue::Pair(qp)) => rdma::has_posted(self, qp),
            Some(Queue::Receive(_)) | None => false,
        }
    }

    /// Takes frames from the wire.
    pub fn receive(&self, burst: &Burst<'_>) {
        // Looked at again behind the gate; here so that who closes it does not wait behind a stream of frames.
        if !self.hca.port.initialized() {
            let refused = &self.hca.port_counters.refused;
            refused.fetch_add(burst.count(), Ordering::Relaxed);
            return;
        }
        let _open = self.gate.read_recursive();
        receive::from_wire(self, burst);
    }

    /// What the NIC's thread waits for.
    pub fn scheduler(&self) -> &Arc<Scheduler> {
        &self.hca.scheduler
    }

    /// Does something while no frame is under way in this NIC.
    pub fn quiesce<T>(&self, act: impl FnOnce() -> T) -> T {
        let _closed = self.gate.write();
        act()
    }
}

//! The data path of a NIC: executes the guest's WQEs, and writes what arrives into its memory.
//!
//! `context` is the base. `egress` is the way out, of `ethernet` send queues and `rdma` queue pairs alike; `ingress` is
//! the way in, from the wire and from the hairpin. One thread per NIC sends, the [`worker`]; `ingress` defines on which
//! thread a frame is received.

mod context;
mod data_segments;
mod denial;
mod egress;
mod ethernet;
mod held_completions;
mod ingress;
mod memory;
mod rdma;
pub mod worker;
mod wqe_check;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use crate::hca::blue_flame::Doorbell;
use crate::hca::nic_event::NicEvent;
use crate::hca::nic_finding::{Finding, queue};
use crate::hca::scheduler::{Due, Next, Scheduler, Task};
use crate::hca::{Hca, Queue};
use crate::net::{Burst, SwitchPort};
use context::{Context, Origin};

/// Reaction to a panic of a task of the NIC's thread, outside of the gate.
type OnPanic = Box<dyn Fn() + Send + Sync>;

/// The data path of one NIC.
pub struct Engine {
    context: Context,
    on_panic: OnceLock<OnPanic>,
    /// Locked for reading while the guest's memory and objects are in use, for writing while they are taken away. Lock
    /// order: before every other lock of the NIC, those of the firmware included; commands do not take it.
    gate: RwLock<()>,
}

impl Engine {
    /// Creates a data path without a connection to a switch.
    pub fn new(hca: Arc<Hca>) -> Self {
        Self {
            context: Context::new(hca, ingress::receive),
            on_panic: OnceLock::new(),
            gate: RwLock::new(()),
        }
    }

    /// Connects the NIC to a switch. Further calls are ignored.
    pub fn connect(&self, port: SwitchPort) {
        let _ = self.context.wire.set(port);
    }

    /// Sets the reaction to a panic of a task. Further calls are ignored.
    pub fn set_on_panic(&self, act: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_panic.set(Box::new(act));
    }

    /// Reacts to a panic of a task.
    fn panicked(&self) {
        if let Some(act) = self.on_panic.get() {
            act();
        }
    }

    /// The NIC's port of the switch.
    pub fn wire(&self) -> Option<&SwitchPort> {
        self.context.wire.get()
    }

    /// Services a task that is due.
    pub fn service(&self, due: Due) {
        let tracer = self.context.hca.tracer;
        match (due.task, due.doorbell) {
            (Task::Queue(number), true) => tracer.record(NicEvent::Service, number, Default::default),
            (Task::Queue(number), false) => tracer.record(NicEvent::TimerExpired, number, Default::default),
            (Task::Cq(number), _) => tracer.record(NicEvent::ModerationExpired, number, Default::default),
            (Task::Register(_), _) => {}
        }
        self.execute(due.task);
    }

    /// Services a queue that has work, but whose doorbell has not arrived.
    pub fn service_polled(&self, number: u32) {
        self.context
            .hca
            .tracer
            .record(NicEvent::Service, number, || [1, 0, 0, 0]);
        self.execute(Task::Queue(number));
    }

    /// Records that a queue is polled from now on, or no longer.
    pub fn trace_hot_period(&self, number: u32, begins: bool) {
        let arguments = || [begins.into(), 0, 0, 0];
        self.context.hca.tracer.record(NicEvent::HotPeriod, number, arguments);
    }

    /// Executes a task: sends from a queue, or ends the wait of a doorbell register or of a completion queue.
    fn execute(&self, task: Task) {
        // Recursive: a thread that sends to a NIC that sends to this one must not wait for itself.
        let _open = self.gate.read_recursive();
        match task {
            Task::Queue(number) => self.send(number),
            Task::Register(half) => {
                if let Some(doorbell) = self.context.hca.blue_flame.overdue(half) {
                    self.ring(half.page, doorbell);
                }
            }
            Task::Cq(number) => {
                if let Some(cq) = self.context.hca.cqs.get(number) {
                    cq.period_over();
                }
            }
        }
    }

    /// Services the next task that is due, if any.
    pub fn step(&self) {
        if let Next::Due(due) = self.scheduler().poll() {
            self.service(due);
        }
    }

    /// Treats a WQE that stays incomplete in its doorbell register as a plain doorbell.
    fn ring(&self, page: u32, Doorbell { number, end }: Doorbell) {
        let hca = &self.context.hca;
        let queue_of_number = hca.queues.get(number);
        match queue_of_number.as_deref().and_then(|queue| queue.slot(page)) {
            Some(slot) => {
                slot.ring(end);
                self.send(number);
            }
            None => {
                let what = format_args!("no queue {number:#x} to send from in UAR {page}");
                let evidence = number.to_be_bytes();
                hca.findings
                    .report(Finding::StrayDoorbell, queue(number), &evidence, what);
            }
        }
    }

    fn send(&self, number: u32) {
        match self.context.hca.queues.get(number).as_deref() {
            Some(Queue::Send(sq)) => ethernet::send::run(&self.context, sq),
            Some(Queue::Pair(qp)) => rdma::run(&self.context, qp),
            // A doorbell and the command that destroys the queue may cross.
            Some(Queue::Receive(_)) | None => {}
        }
    }

    /// Whether a queue has unread WQEs and can send them now.
    pub fn has_posted(&self, number: u32) -> bool {
        let _open = self.gate.read_recursive();
        match self.context.hca.queues.get(number).as_deref() {
            Some(Queue::Send(sq)) => ethernet::send::has_posted(&self.context, sq),
            Some(Queue::Pair(qp)) => rdma::has_posted(&self.context, qp),
            Some(Queue::Receive(_)) | None => false,
        }
    }

    /// Receives frames from the wire.
    pub fn receive(&self, burst: &Burst<'_>) {
        // Checked again behind the gate; here so that closing the gate does not wait behind a stream of frames.
        if !self.context.initialized() {
            let refused = &self.context.hca.port_counters.refused;
            refused.fetch_add(burst.count(), Ordering::Relaxed);
            return;
        }
        let _open = self.gate.read_recursive();
        ingress::receive(&self.context, burst, Origin::Wire);
    }

    /// Calls `act` with the objects while none is taken away by a reset.
    pub fn with_objects<T>(&self, act: impl FnOnce(&Hca) -> T) -> T {
        let _open = self.gate.read_recursive();
        act(&self.context.hca)
    }

    /// The work of the NIC's thread.
    pub fn scheduler(&self) -> &Arc<Scheduler> {
        &self.context.hca.scheduler
    }

    /// Calls `act` while no queue is serviced and no frame is received.
    pub fn quiesce<T>(&self, act: impl FnOnce() -> T) -> T {
        let _closed = self.gate.write();
        act()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

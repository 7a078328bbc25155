//! Common arguments of requester and responder: queue pair, its parameters, and the function.

use std::time::{Duration, Instant};

use mlx5_prm::queue_entry::EventType;

use super::super::context::Context;
use super::super::memory::{AccessError, Memory};
use crate::hca::Hca;
use crate::hca::cq::{CqInError, Posted};
use crate::hca::event::{EventQueue, event_data};
use crate::hca::mkey::Accessor;
use crate::hca::nic_event::{NicEvent, Timer, microseconds};
use crate::hca::qp::{Parameters, Qp, Receive};
use crate::hca::queue_counter::QueueCounter;
use crate::hca::scheduler::Task;
use crate::net::{CqePlace, Effect, FrameNumber, Payload, QueueKind, Sources, WqeId};

/// A queue pair with a snapshot of its parameters, and the function it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint<'a> {
    pub context: &'a Context,
    pub qp: &'a Qp,
    pub parameters: &'a Parameters,
}

impl<'a> Endpoint<'a> {
    pub fn hca(&self) -> &'a Hca {
        &self.context.hca
    }

    /// Whether the parameters are still those of the queue pair; see [`Qp::is_still`].
    pub fn is_current(&self) -> bool {
        self.qp.is_still(self.parameters)
    }

    pub fn count(&self, counter: QueueCounter) {
        self.parameters.count(counter);
    }

    /// Records an event of the queue pair.
    #[inline]
    pub fn trace(&self, event: NicEvent, arguments: impl FnOnce() -> [u32; 4]) {
        self.hca().tracer.record(event, self.qp.number, arguments);
    }

    /// Notes that a frame ended a receive WQE.
    pub fn note_received(&self, frame: FrameNumber, wqe_counter: u16, cqe: Option<CqePlace>) {
        self.context
            .note(frame, 1, || Effect::Ends(self.wqe(wqe_counter, true), cqe));
    }

    /// A WQE of the queue pair.
    pub fn wqe(&self, index: u16, receive: bool) -> WqeId {
        WqeId {
            kind: QueueKind::Qp,
            queue: self.qp.number,
            index,
            receive,
        }
    }

    /// The identity that memory keys are checked against.
    pub fn accessor(&self) -> Accessor {
        Accessor {
            pd: self.parameters.pd,
            qpn: self.qp.number,
            reserved_lkey: self.parameters.reserved_lkey,
        }
    }

    pub fn memory(&self) -> Memory<'a> {
        Memory {
            hca: self.hca(),
            accessor: self.accessor(),
        }
    }

    /// Writes a payload to the memory of a receive WQE, from byte `offset` on.
    pub fn scatter(&self, receive: &Receive, offset: usize, payload: &Payload<'_>) -> Result<(), AccessError> {
        let memory = Memory {
            hca: self.hca(),
            accessor: Accessor {
                pd: receive.pd,
                ..self.accessor()
            },
        };
        let range = offset..offset + payload.len();
        memory.scatter(
            receive.segments.iter().copied(),
            range,
            &mut payload.cursor(&mut Sources::default()),
        )
    }

    pub fn schedule(&self) {
        self.hca().scheduler.schedule(self.qp.number);
    }

    /// Schedules the queue pair for `time`, which is after `delay`.
    pub fn schedule_at(&self, time: Instant, timer: Timer, delay: Duration) {
        self.trace(NicEvent::TimerSet, || [timer as u32, microseconds(delay), 0, 0]);
        self.hca().scheduler.schedule_at(time, Task::Queue(self.qp.number));
    }

    /// Schedules the queue pair again after `interval`, unless it is scheduled for that already.
    pub fn repeat_after(&self, interval: Duration, timer: Timer) {
        let hca = self.hca();
        let time = hca.clock.instant() + interval;
        if hca.scheduler.repeat_at(time, Task::Queue(self.qp.number)) {
            self.trace(NicEvent::TimerSet, || [timer as u32, microseconds(interval), 0, 0]);
        }
    }

    /// Returns the place of a completion. If the completion queue does not take it, moves the queue pair to the error
    /// state.
    pub fn placed(&self, posted: Posted) -> Option<CqePlace> {
        posted.unwrap_or_else(|CqInError| {
            self.fail(Some(EventType::WqCatastrophicError));
            None
        })
    }

    /// Announces an event of the queue pair.
    pub fn announce(&self, event: EventType) {
        self.hca()
            .eqs
            .announce(event, 0, &event_data(EventQueue::Qp, self.qp.number));
    }

    /// Moves the queue pair to the error state. The NIC's thread, which holds no locks then, flushes the WQEs.
    pub fn fail(&self, event: Option<EventType>) {
        if self.qp.fail(&self.hca().vport.read()) {
            if let Some(event) = event {
                self.announce(event);
            }
            self.schedule();
        }
    }
}

//! The queues of a connection as its [`Frontend`].

use std::cell::RefCell;
use std::sync::Arc;

use vhost_daemon::vring::Vring;
use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use super::IsmBackend;
use super::move_queue::{self, Segment};
use super::virtqueue::{self, Chain, EventQueue};
use crate::abi::{CONTROL_QUEUE, EVENT_QUEUE, MOVE_QUEUE};
use crate::connection::{Frontend, Outcome, Request};
use crate::event::EventRing;
use crate::mover::ExecuteMove;
use crate::window::RegionMapper;

/// The queues for the time of a kick.
pub struct Virtqueues<'a> {
    backend: &'a IsmBackend,
    vrings: &'a [Vring],
    /// The request that was taken last.
    chain: RefCell<Option<Chain>>,
    /// The data of a move; kept to reuse the allocation.
    segments: RefCell<Vec<Segment>>,
}

impl<'a> Virtqueues<'a> {
    /// Takes the queues of a back-end.
    pub fn new(backend: &'a IsmBackend, vrings: &'a [Vring]) -> Self {
        Self {
            backend,
            vrings,
            chain: RefCell::new(None),
            segments: RefCell::default(),
        }
    }

    fn control(&self) -> &Vring {
        &self.vrings[CONTROL_QUEUE as usize]
    }
}

impl Frontend for Virtqueues<'_> {
    fn is_ready(&self) -> bool {
        self.control().get_ref().get_queue().ready()
    }

    fn is_at_beginning(&self) -> bool {
        let queues = [CONTROL_QUEUE, EVENT_QUEUE].map(|queue| &self.vrings[queue as usize]);
        queues.iter().all(|vring| vring.queue_next_avail() == 0)
    }

    fn next_request(&self, current: &dyn Fn() -> bool) -> Option<Request> {
        let backend = self.backend;
        let (chain, request) =
            virtqueue::next_request(self.control(), &backend.memory, backend.guest().stats(), current)?;
        *self.chain.borrow_mut() = Some(chain);
        Some(request)
    }

    fn answer(&self, answer: &[u8], current: &dyn Fn() -> bool) -> Outcome {
        match self.chain.borrow_mut().take() {
            Some(chain) => virtqueue::answer_request(self.control(), &self.backend.memory, chain, answer, current),
            None => Outcome::Dropped,
        }
    }

    fn answer_late(&self, answer: &[u8]) -> Outcome {
        let backend = self.backend;
        virtqueue::answer_late(self.control(), &backend.memory, backend.guest().stats(), answer)
    }

    fn await_requests(&self) -> bool {
        virtqueue::await_chains(self.control(), &self.backend.memory)
    }

    fn serve_move(&self, current: &dyn Fn() -> bool, execute: &mut ExecuteMove<'_>) -> Option<Outcome> {
        let backend = self.backend;
        let (vring, stats) = (&self.vrings[MOVE_QUEUE as usize], backend.guest().stats());
        let segments = &mut self.segments.borrow_mut();
        move_queue::serve_move(vring, &backend.memory, stats, segments, current, execute)
    }

    fn await_moves(&self) -> bool {
        virtqueue::await_chains(&self.vrings[MOVE_QUEUE as usize], &self.backend.memory)
    }

    fn events(&self) -> Box<dyn EventRing> {
        let backend = self.backend;
        let vring = self.vrings[EVENT_QUEUE as usize].clone();
        Box::new(EventQueue::new(
            vring,
            backend.memory.clone(),
            backend.ram.clone(),
            backend.guest().stats().clone(),
        ))
    }

    fn mapper(&self) -> Option<Arc<dyn RegionMapper>> {
        self.backend.mapper()
    }
}

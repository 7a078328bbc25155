//! Completions of a burst, which may become a compressed session.

use std::sync::atomic::Ordering;

use mlx5_prm::queue_entry::Cqe;
use zerocopy::IntoBytes;

use super::compression::Session;
use super::failure::{Completion, CqInError};
use super::{Cq, PADDED, State, entry_size, traced};
use crate::dma::{self, Purpose};
use crate::hca::nic_event::NicEvent;
use crate::hca::pcie_latency::Transaction;
use crate::net::CqePlace;

impl Cq {
    /// Whether completions of a burst may be compressed (`cqe_comp_en`).
    #[inline]
    pub fn compresses(&self) -> bool {
        self.compresses
    }

    /// Appends a completion as [`post_of`](Self::post_of) does to a CQ that [compresses](Self::compresses), one of a
    /// burst that ends with [`end_burst`](Self::end_burst) if it is held: it then waits for others that it can be
    /// compressed with.
    pub fn post_of_burst(&self, queue: u32, cqe: Cqe) -> Result<Completion, CqInError> {
        self.post_entry(queue, &[], cqe, true)
    }

    /// Writes the completions that are held.
    pub fn end_burst(&self) {
        if self.compresses {
            let mut state = self.state.lock();
            if self.write_session(&mut state) {
                self.fire(state);
            }
        }
    }

    /// Adds a completion to the session, or to the next one if this one does not take it. Its entry is reserved: it
    /// overruns the CQ as if it were written now.
    pub(super) fn join(&self, queue: u32, mut cqe: Cqe) -> Result<CqePlace, CqInError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let entries = state.ring.size();
        let takes = |session: &Session| session.takes(queue, &cqe, entries);
        let mut fires = !state.session.as_deref().is_some_and(takes) && self.write_session(state);
        let Some(pending) = state.session.as_deref().map(Session::len) else {
            // A panic has lost it.
            drop(guard);
            return self.post_past_door(&[], cqe);
        };
        let room = match state.failure {
            Some(_) => Err(CqInError),
            None => self.make_room(state, pending, &cqe).map_err(|failure| {
                // Those before it have their entries.
                fires |= self.write_session(state);
                self.fail(state, failure)
            }),
        };
        let joined = room.map(|()| {
            cqe.timestamp.set(self.clock.now());
            if let Some(session) = &mut state.session {
                session.add(queue, &cqe);
            }
            CqePlace {
                cq: self.number,
                index: state.ring.slot_after(pending),
                syndrome: None,
            }
        });
        if fires {
            self.fire(guard);
        }
        joined
    }

    /// Writes the completions of the session, if there are any, and returns whether they fire the event now. A CQ that
    /// fails says so with the next completion.
    #[inline]
    pub(super) fn write_session(&self, state: &mut State) -> bool {
        match state.session.take_if(|session| !session.is_empty()) {
            Some(session) => self.write_taken(state, session),
            None => false,
        }
    }

    fn write_taken(&self, state: &mut State, mut session: Box<Session>) -> bool {
        self.pcie_latency.spend(Transaction::CqeWrite);
        let first = state.ring.producer;
        let _ = match session.plain() {
            Some(cqes) => cqes
                .iter()
                .try_for_each(|cqe| self.append(state, &[], *cqe).map(|_| ())),
            None => self.compress(state, &session),
        };
        session.clear();
        state.session = Some(session);
        self.completes(state, first)
    }

    /// Writes the arrays of a session, then the title, which makes all of them the consumer's.
    fn compress(&self, state: &mut State, session: &Session) -> Result<(), CqInError> {
        if state.failure.is_some() {
            return Err(CqInError);
        }
        let title = session.title(state.ring.owner());
        let mut writes = 0;
        let written = self.write_arrays(state, session, &mut writes).and_then(|()| {
            writes += 1;
            let at = completion_offset(state, 0);
            state.buffer.publish(&self.dma, Purpose::Cqe, at, title.as_bytes())
        });
        if let Err(error) = written {
            return Err(self.lose(state, &title, &error));
        }
        let count = session.len();
        state.ring.advance_by(count);
        let size = match state.context.cqe_sz() {
            PADDED => 2 * size_of::<Cqe>(),
            _ => size_of::<Cqe>(),
        };
        state.cqe_writes.add(writes, writes * size as u64);
        for index in 0..count as u16 {
            self.tracer.record(NicEvent::Cqe, self.number, || {
                let mut cqe = title;
                cqe.wqe_counter.set(title.wqe_counter.get().wrapping_add(index));
                traced(&cqe, title.op_own >> 4, None)
            });
        }
        self.counters.plain.fetch_add(count.into(), Ordering::Relaxed);
        self.counters.compressed.fetch_add(count.into(), Ordering::Relaxed);
        self.counters.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write_arrays(&self, state: &State, session: &Session, writes: &mut u64) -> dma::Result<()> {
        for (distance, array) in session.arrays() {
            let at = completion_offset(state, distance);
            state.buffer.write(&self.dma, Purpose::Cqe, at, array.as_bytes())?;
            *writes += 1;
        }
        Ok(())
    }
}

/// Offset in the buffer of the completion that is `entries` behind the next: the upper half of an entry of 128 bytes.
fn completion_offset(state: &State, entries: u32) -> u64 {
    let size = entry_size(&state.context).unwrap_or(size_of::<Cqe>() as u64);
    u64::from(state.ring.slot_after(entries) + 1) * size - size_of::<Cqe>() as u64
}

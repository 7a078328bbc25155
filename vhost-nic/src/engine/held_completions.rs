//! Completions of a burst of frames that wait for its end, to be compressed.

use std::cell::RefCell;
use std::sync::Arc;

use mlx5_prm::queue_entry::Cqe;
use smallvec::SmallVec;

use crate::hca::cq::{Completion, Cq, CqInError};

/// CQs with held completions of a burst. Ends the burst when it is dropped: also after a panic.
#[derive(Default)]
pub(super) struct HeldCompletions(RefCell<SmallVec<[Arc<Cq>; 2]>>);

impl HeldCompletions {
    /// Appends a completion of a queue to a CQ that compresses.
    pub fn post(&self, cq: &Arc<Cq>, queue: u32, cqe: Cqe) -> Result<Completion, CqInError> {
        let completion = cq.post_of_burst(queue, cqe)?;
        if completion.held {
            let mut cqs = self.0.borrow_mut();
            if !cqs.iter().any(|other| Arc::ptr_eq(other, cq)) {
                cqs.push(cq.clone());
            }
        }
        Ok(completion)
    }
}

impl Drop for HeldCompletions {
    fn drop(&mut self) {
        self.0.get_mut().iter().for_each(|cq| cq.end_burst());
    }
}
